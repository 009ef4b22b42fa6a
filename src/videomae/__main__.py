"""Make `python -m videomae` the same as the `videomae` command; the command itself is in `cli.py`."""

import sys

from videomae.cli import main

if __name__ == "__main__":
    sys.exit(main())
