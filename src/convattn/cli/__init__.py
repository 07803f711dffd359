"""The command line: one thin file a command, no logic."""

import difflib
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pkgutil import resolve_name
from typing import Any

import typer
from typer.core import TyperCommand

from convattn import __version__
from convattn.cli.options import CommandGroup, GroupedCommand, application
from convattn.cli.warnings import shown_warnings
from convattn.errors import InputError

__all__ = ["app", "main"]

_COMMANDS = {
    "upscale": (
        "convattn.cli.upscale:upscale",
        "Upscale images and videos: convattn upscale photo.jpg writes photo_x2.jpg.",
    ),
    "serve": (
        "convattn.cli.serve:serve",
        "Serve a web page and an HTTP API: convattn serve, then open the address that it prints.",
    ),
    "train": (
        "convattn.cli.train:train",
        "Train a network on a folder of images: convattn train esc-nano data=FOLDER scale=2.",
    ),
    "evaluate": (
        "convattn.cli.evaluate:evaluate",
        "Measure PSNR-Y, SSIM-Y and LPIPS by the published protocol.",
    ),
    "export": (
        "convattn.cli.export:export",
        "Write a network for other runtimes: convattn export esc-nano --scale 2 -o net.onnx.",
    ),
    "degrade": (
        "convattn.cli.degrade:degrade",
        "Preview the degradation of real-world training: a sheet per image, the target first.",
    ),
    "bench": (
        "convattn.cli.bench:bench",
        "Measure time, memory and arithmetic of candidates in turns: medians, spread and ratios.",
    ),
    "doctor": (
        "convattn.cli.doctor:doctor",
        "Show what convattn finds on this machine: device, kernels, memory, versions, and what is missing.",
    ),
    "models": (
        "convattn.cli.models:app",
        "List the models, download them, or measure their speed.",
    ),
    "compare": (
        "convattn_yolo.compare:compare",
        "Compare models on your data: paired seeds, equal budgets, confidence intervals.",
    ),
}
"""Name to module and name of the function, and the first line of its help."""

_UsageError: Any = typer.BadParameter.__base__  # click's, of which newer versions of typer have their own


class _Command(TyperCommand):
    """A command that is imported once it runs: neither the others nor --help pay for it.

    Args:
        name: What the user types.
        target: Module and name of its function, or of a typer application.
        summary: The first line of its help.
    """

    def __init__(self, name: str, target: str, summary: str) -> None:
        super().__init__(name, help=summary)
        self._target = target

    def load(self) -> Any:
        """Return the command itself.

        Raises:
            InputError: It belongs to a package that is missing.
        """
        if not self.is_installed():
            raise InputError(f"`convattn {self.name}` needs convattn-yolo: pip install convattn-yolo.")
        command = resolve_name(self._target)
        if not isinstance(command, typer.Typer):
            command, function = application(), command
            command.command(self.name, cls=GroupedCommand)(function)
        return typer.main.get_command(command)

    def is_installed(self) -> bool:
        """Return whether the package of the command is there."""
        return find_spec(self._target.partition(".")[0]) is not None

    def make_context(self, *args: Any, **settings: Any) -> Any:
        """Parse the words after the command."""
        return self.load().make_context(*args, **settings)


class _Group(CommandGroup):
    """What stands after ``convattn``."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: _Command(name, *command) for name, command in _COMMANDS.items()}

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands that are installed."""
        commands: dict[str, Any] = dict(self.commands)
        return [name for name, command in commands.items() if command.is_installed()]


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


app = application(
    name="convattn",
    cls=_Group,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback()(_options)


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
