"""`python -m erftheory` is the command `erftheory`."""

import sys

from erftheory.cli import main

if __name__ == "__main__":
    sys.exit(main())
