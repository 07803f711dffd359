"""Options that several commands share, and groups of options as dataclasses."""

import copy
import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any, get_type_hints

import typer

from convattn.choices import Precision

__all__ = ["Device", "Precisions", "with_groups"]

Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="auto takes a GPU if there is one.")]
Precisions = Annotated[Precision, typer.Option(help="auto is fp16 on CUDA and fp32 elsewhere.")]


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Turn each parameter that is a dataclass into the options that its fields describe.

    The help text has a panel for each dataclass but the first, titled with its name.

    Args:
        command: What typer is to call. It receives instances of the dataclasses.
    """
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        group: Any = parameter.annotation
        if isinstance(group, type) and is_dataclass(group):
            parameters += _options(group, panel=group.__name__ if groups else None)
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


def _options(group: Any, panel: str | None) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [_option(field, hints[field.name], panel) for field in fields(group)]


def _option(field: Field[Any], annotation: Any, panel: str | None) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    option = copy.copy(annotation.__metadata__[0])  # commands share some of them
    option.rich_help_panel = panel
    annotation = Annotated[annotation.__origin__, option]
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )
