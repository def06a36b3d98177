"""Names the command that `python -m recon_ad.data check` has become; to go after one release."""

import sys

if __name__ == "__main__":
    given = " ".join(sys.argv[2:]) or "PATH"
    print(f"error: this command is now python -m recon_ad.check {given}", file=sys.stderr)
    sys.exit(2)
