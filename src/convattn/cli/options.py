"""Options that several commands share, and groups of options as dataclasses."""

import copy
import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from convattn.choices import Precision

__all__ = ["CommandGroup", "Device", "GroupedCommand", "Precisions", "application", "with_groups"]

application = functools.partial(typer.Typer, add_completion=False, rich_markup_mode=None)
"""A typer application with plain help: rich takes longer to import than all the rest."""

Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="auto takes a GPU if there is one.")]
Precisions = Annotated[Precision, typer.Option(help="auto is fp16 on CUDA and fp32 elsewhere.")]


class CommandGroup(TyperGroup):
    """A group of commands whose help is quick, and has their first lines in full."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands; called by ``--help``."""
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, command.get_short_help_str(limit=200)) for name, command in commands if command]
            )

    def get_help_option(self, ctx: Any) -> Any:
        """Return the option --help."""
        if option := super().get_help_option(ctx):
            option.default = False  # typer imports pydantic, which takes long, in order to coerce None
        return option


class GroupedCommand(TyperCommand):
    """A command whose help has a section for each group of options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections; called by ``--help``."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            title = "Arguments" if parameter.param_type_name == "argument" else "Options"
            if record := parameter.get_help_record(ctx):
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Turn each parameter that is a dataclass into the options that its fields describe.

    The help text has a section for each dataclass but the first, titled with its name.

    Args:
        command: What typer is to call. It receives instances of the dataclasses.
    """
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        group: Any = parameter.annotation
        if isinstance(group, type) and is_dataclass(group):
            parameters += _options(group, section=group.__name__ if groups else None)
            groups[parameter.name] = group
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def run(**given: Any) -> None:
        made = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**given, **made)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _options(group: Any, section: str | None) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [_option(field, hints[field.name], section) for field in fields(group)]


def _option(field: Field[Any], annotation: Any, section: str | None) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    option = copy.copy(annotation.__metadata__[0])  # commands share some of them
    option.rich_help_panel = section
    annotation = Annotated[annotation.__origin__, option]
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )
