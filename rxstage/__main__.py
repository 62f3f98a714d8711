"""`python -m rxstage`: the command line."""

import sys

from rxstage.cli import main

if __name__ == "__main__":
    sys.exit(main())
