"""Name the command that replaces `python -m recon_ad.data check`, for one more release."""

import sys

from recon_ad.usage import asks_for_help

if __name__ == "__main__":
    given = " ".join(sys.argv[2:]) or "PATH"
    if asks_for_help(sys.argv):
        print("This command is now python -m recon_ad.check, which has a --help of its own.")
        sys.exit()
    print(f"error: this command is now python -m recon_ad.check {given}", file=sys.stderr)
    sys.exit(2)
