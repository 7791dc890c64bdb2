"""Which command runs."""
from paramdesc.commands.demo.cli import main
__all__ = ["main"]
