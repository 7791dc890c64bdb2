"""`python -m paramdesc` runs the demo, or the command that it is given."""

import sys

from paramdesc.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
