"""The command line: one thin file a command, no logic."""

import difflib
import sys
from collections.abc import Sequence
from typing import Any

import typer

from convattn import __version__
from convattn.cli.bench import bench
from convattn.cli.degrade import degrade
from convattn.cli.doctor import doctor
from convattn.cli.evaluate import evaluate
from convattn.cli.export import export
from convattn.cli.models import app as models
from convattn.cli.serve import serve
from convattn.cli.train import train
from convattn.cli.upscale import upscale
from convattn.cli.warnings import shown_warnings
from convattn.errors import InputError

__all__ = ["app", "main"]


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"convattn {__version__}")
        raise typer.Exit


def _options(
    version: bool = typer.Option(
        False, "--version", help="Show the version and exit.", is_eager=True, callback=_print_version
    ),
) -> None:
    """Upscale images and videos with ESC networks; train, evaluate and export them."""


app = typer.Typer(
    name="convattn",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback()(_options)
for command in (upscale, serve, train, evaluate, export, degrade, bench, doctor):
    app.command()(command)
app.add_typer(models, name="models")

_UsageError: Any = typer.BadParameter.__base__  # click's, of which newer versions of typer have their own


def main() -> None:
    """Run the command line.

    Errors are printed in one line. The exit status is 1 for an error, and 2 for a wrong usage.
    """
    if sys.argv[1:2] != ["--version"] and _word() not in _names():
        _add_plugins()
    try:
        with shown_warnings():
            sys.exit(app(None if sys.argv[1:] else ["--help"], prog_name="convattn", standalone_mode=False))
    except InputError as error:
        print(f"convattn: {error}", file=sys.stderr)
        sys.exit(1)
    except _UsageError as error:
        print(f"convattn: {_usage(error)}", file=sys.stderr)
        sys.exit(2)
    except typer.Abort:
        sys.exit(130)


def _usage(error: Any) -> str:
    """A usage error as one line, with the nearest name of a misspelt command or option."""
    message, near = error.format_message().replace("Value error, ", "").rstrip("."), ""
    if hasattr(error, "possibilities"):
        option = error.option_name
        message, near = f"There is no option {option}", _nearest(option, error.possibilities or [])
    elif "did you mean" not in message.lower() and _word() not in _names():
        near = _nearest(_word(), _names())
    hint = f" Did you mean {near}?" if near else ""
    return f"{message}{'' if message.endswith('?') else '.'}{hint} See convattn --help."


def _nearest(word: str, names: Sequence[str]) -> str:
    return next(iter(difflib.get_close_matches(word, names, n=1)), "")


def _names() -> list[str]:
    names = [info.name or info.callback.__name__ for info in app.registered_commands if info.callback]
    return names + [group.name for group in app.registered_groups if group.name]


def _word() -> str:
    """The first word of the command line that is no option."""
    return next((word for word in sys.argv[1:] if not word.startswith("-")), "")


def _add_plugins() -> None:
    """Add the commands of other packages, such as convattn-yolo. Finding them takes long."""
    from importlib.metadata import entry_points

    for plugin in entry_points(group="convattn.commands"):
        if plugin.name not in _names():
            app.command(plugin.name)(plugin.load())
