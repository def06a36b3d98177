"""Names the command that `python -m recon_ad.data check` has become; to go after one release."""

import sys

if __name__ == "__main__":
    sys.exit("error: this command is now python -m recon_ad.check PATH [--category=NAME].")
