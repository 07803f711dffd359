"""The command line: one thin file a command, no logic."""

import sys
from importlib.metadata import entry_points
from typing import Any

import typer

from convattn.cli.bench import bench
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
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(upscale)
app.command()(train)
app.command()(evaluate)
app.command()(export)
app.command()(degrade)
app.command()(bench)
for _command in entry_points(group="convattn.commands"):  # those of convattn-yolo, where it is installed
    app.command(_command.name)(_command.load())


_UsageError: Any = typer.BadParameter.__base__  # click's, of which newer versions of typer have their own


def main() -> None:
    """Run the command line; errors become one line and exit status 1, or 2 where the words are no command."""
    try:
        sys.exit(app(None if sys.argv[1:] else ["--help"], prog_name="convattn", standalone_mode=False))
    except InputError as error:
        print(f"convattn: {error}", file=sys.stderr)
        sys.exit(1)
    except _UsageError as error:
        print(f"convattn: {error.format_message().rstrip('.')}; --help tells what fits.", file=sys.stderr)
        sys.exit(2)
    except typer.Abort:
        sys.exit(130)
