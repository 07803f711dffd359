"""The command line: one thin file a command, no logic."""

import sys

import typer

from convattn.cli.bench import bench
from convattn.cli.compare import compare
from convattn.cli.degrade import degrade
from convattn.cli.evaluate import evaluate
from convattn.cli.export import export
from convattn.cli.train import train
from convattn.cli.upscale import upscale
from convattn.errors import InputError

__all__ = ["app", "main"]

app = typer.Typer(
    name="convattn",
    help="Super-resolution and detection with convolutions that emulate self-attention (ESC).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(upscale)
app.command()(train)
app.command()(evaluate)
app.command()(export)
app.command()(compare)
app.command()(degrade)
app.command()(bench)


def main() -> None:
    """Run the command line; errors meant for the user become one line and exit status 1."""
    try:
        app()
    except InputError as error:
        print(f"convattn: {error}", file=sys.stderr)
        sys.exit(1)
