"""`python -m pacs` is `filmroom`."""

import sys

from pacs.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
