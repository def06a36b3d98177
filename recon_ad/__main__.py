"""List the commands: python -m recon_ad."""

import sys

from recon_ad import usage


def main(words: list[str]) -> int:
    """Print the list and return the exit status, which is 2 if any other argument was given."""
    if not words or usage.asks_for_help(["", *words]):
        print(usage.listing())
        return 0
    name = words[0].removeprefix("recon_ad.")
    command = f"python -m recon_ad.{name}" if name in usage.COMMANDS else "python -m recon_ad alone"
    lists = "" if name in usage.COMMANDS else " to list the commands"
    print(f"error: unexpected argument {words[0]}: write {command}{lists}.", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
