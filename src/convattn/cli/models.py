"""``convattn models``."""

from typing import TYPE_CHECKING, Annotated

import typer

from convattn.cli.options import CommandGroup, application

if TYPE_CHECKING:
    from rich.table import Table

    from convattn.checkpoints.catalog import Model, Weights

__all__ = ["app"]

app = application(name="models", cls=CommandGroup, invoke_without_command=True)

_FULL_WIDTH = 150  # columns that the whole table needs
_Names = Annotated[list[str], typer.Argument(metavar="NAME", help="Names that `convattn models` lists.")]


@app.callback()
def models(context: typer.Context) -> None:
    """List the models, download them, or measure their speed."""
    if context.invoked_subcommand is None:
        _list()


@app.command()
def download(
    names: _Names,
    scale: Annotated[
        int | None, typer.Option("--scale", "-s", help="Only this scale; by default every scale.")
    ] = None,
) -> None:
    """Download models for later use: convattn models download esc-real esc-light."""
    from convattn.checkpoints.loading import load_network

    for model in map(_find, names):
        for each in [scale] if scale else list(model.weights):
            typer.echo(model.file(each, check=load_network))


@app.command()
def show(names: _Names) -> None:
    """Show models: license, data, figures, limits, how to repeat the training, and where the files are."""
    from rich.console import Console
    from rich.markup import escape

    for model in map(_find, names):
        card = model.card
        Console().print(f"[bold]{model.name}[/bold]: {card.task.value}, {card.good_for}; {card.license}")
        figures = ", ".join(f"{name} {value:g}" for name, value in card.figures.items())
        parts = {"Data": card.data, "Figures": figures, "Limits": card.limits, "Repeat": card.repeat}
        files = {_scale(scale): str(weights.url or weights.path) for scale, weights in model.weights.items()}
        for title, text in (parts | files).items():
            if text:
                Console().print(f"  {title}: {escape(text)}", soft_wrap=True)


@app.command()
def measure(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="By default all models on this machine."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Measure the time for a result of 1280×720 pixels; `convattn models` shows it from then on."""
    from convattn.bench.model_speed import measure_speed
    from convattn.checkpoints.catalog import models as catalog

    chosen = [_find(name) for name in names] if names else list(catalog().values())
    for model in chosen:
        for scale, milliseconds in measure_speed(model, device, download=bool(names)):
            at = f" ×{scale}" if scale else ""
            typer.echo(f"{model.name}{at}: {milliseconds:,.0f} ms")


def _find(name: str) -> "Model":
    from convattn.checkpoints.catalog import find, suggestion
    from convattn.errors import InputError

    if model := find(name):
        return model
    raise InputError(f"There is no model {name!r}; `convattn models` lists them.{suggestion(name)}")


def _list() -> None:
    from rich.console import Console

    console = Console()
    if console.is_terminal and console.width < _FULL_WIDTH:
        console.print(_summary())
        console.print("`convattn models | less -S` also shows parameters, PSNR, times and licenses.")
        return
    console = console if console.is_terminal else Console(width=180)
    console.print(_table())
    console.print("PSNR-Y on Set5; published for models that can be downloaded, measured for the others.")


def _summary() -> "Table":
    """Return the models with what fits into a narrow terminal."""
    from rich.table import Table

    from convattn.checkpoints.catalog import models as catalog

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("model", "scale", "where"):
        table.add_column(heading, no_wrap=True)
    table.add_column("good for")
    for model in catalog().values():
        scales = " ".join(_scale(scale) for scale in model.weights)
        places = {weights.availability.value: None for weights in model.weights.values()}
        table.add_row(model.name, scales, ", ".join(places), model.card.good_for)
    return table


def _scale(scale: int | None) -> str:
    return f"×{scale}" if scale else "any"


def _table() -> "Table":
    from rich.table import Table

    from convattn.bench.model_speed import known_speed
    from convattn.checkpoints.catalog import models as catalog

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("model", "task", "scale", "parameters", "size", "PSNR (dB)", "ms for 1280×720"):
        table.add_column(heading, justify="left" if heading in ("model", "task") else "right", no_wrap=True)
    for heading in ("license", "where", "good for"):
        table.add_column(heading)
    for model in catalog().values():
        for number, (scale, weights) in enumerate(model.weights.items()):
            speed = known_speed(model, scale)
            table.add_row(
                "" if number else model.name,
                "" if number else model.card.task.value,
                _scale(scale),
                f"{weights.parameters / 1e6:.2f} M" if weights.parameters else "?",
                _megabytes(weights),
                f"{weights.psnr:.2f}" if weights.psnr else "",
                f"{speed:,.0f}" if speed else "",
                "" if number else model.card.license,
                weights.availability.value + (" (needs spandrel)" if model.needs_spandrel else ""),
                "" if number else model.card.good_for,
            )
    return table


def _megabytes(weights: "Weights") -> str:
    """Return the size of a file; where it is unknown, that of its parameters in float32."""
    if size := weights.bytes_on_disk:
        return f"{size / 1e6:.1f} MB"
    return f"≈{4 * weights.parameters / 1e6:.1f} MB" if weights.parameters else "?"
