"""The command line: one thin file a command, no logic."""

import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pkgutil import resolve_name
from typing import Any

import typer
from typer.core import TyperGroup

from convattn import __version__
from convattn.cli.warnings import shown_warnings
from convattn.errors import InputError

__all__ = ["app", "main"]

_COMMANDS = {
    "upscale": "convattn.cli.upscale:upscale",
    "serve": "convattn.cli.serve:serve",
    "train": "convattn.cli.train:train",
    "evaluate": "convattn.cli.evaluate:evaluate",
    "export": "convattn.cli.export:export",
    "degrade": "convattn.cli.degrade:degrade",
    "bench": "convattn.cli.bench:bench",
    "doctor": "convattn.cli.doctor:doctor",
    "models": "convattn.cli.models:app",
    "compare": "convattn_yolo.compare:compare",
}


class _Commands(Mapping[str, Any]):
    """The commands by name. Each is imported once it is asked for: a start pays for its own command only."""

    def __getitem__(self, name: str) -> Any:
        if name in _COMMANDS and not _is_installed(name):
            raise InputError(f"`convattn {name}` needs convattn-yolo: pip install convattn-yolo.")
        command = resolve_name(_COMMANDS[name])
        if not isinstance(command, typer.Typer):
            command, function = typer.Typer(add_completion=False), command
            command.command(name)(function)
        return typer.main.get_command(command)

    def __iter__(self) -> Iterator[str]:
        return filter(_is_installed, _COMMANDS)

    def __len__(self) -> int:
        return sum(map(_is_installed, _COMMANDS))


def _is_installed(name: str) -> bool:
    return find_spec(_COMMANDS[name].partition(".")[0]) is not None


class _Group(TyperGroup):
    """What stands after ``convattn``."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands()  # type: ignore[assignment]

    def get_help_option(self, ctx: Any) -> Any:
        """Return the option --help."""
        if option := super().get_help_option(ctx):
            option.default = False  # typer imports pydantic, which takes long, in order to coerce None
        return option


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
    cls=_Group,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback()(_options)

_UsageError: Any = typer.BadParameter.__base__  # click's, of which newer versions of typer have their own


def main() -> None:
    """Run the command line.

    Errors are printed in one line. The exit status is 1 for an error, and 2 for a wrong usage.
    """
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
    elif "did you mean" not in message.lower() and _word() not in _COMMANDS:
        near = _nearest(_word(), list(_COMMANDS))
    hint = f" Did you mean {near}?" if near else ""
    return f"{message}{'' if message.endswith('?') else '.'}{hint} See convattn --help."


def _nearest(word: str, names: Sequence[str]) -> str:
    return next(iter(difflib.get_close_matches(word, names, n=1)), "")


def _word() -> str:
    """The first word of the command line that is no option."""
    return next((word for word in sys.argv[1:] if not word.startswith("-")), "")
