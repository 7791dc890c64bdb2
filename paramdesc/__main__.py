"""`python -m paramdesc` runs the demo."""

import sys

from paramdesc.demo.cli import main

if __name__ == "__main__":
    sys.exit(main())
