"""Runs the command line: ``python -m convattn``."""

from convattn.cli import main

main()
