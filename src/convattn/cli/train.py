"""The command ``convattn train``."""

from typing import Annotated

import typer

__all__ = ["train"]


def train(
    recipe: Annotated[
        str, typer.Argument(help="A YAML file or the name of a bundled recipe, such as esc-nano.")
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values of the recipe to change.")
    ] = None,
) -> None:
    """Train a network on a folder of images: convattn train esc-nano data=FOLDER scale=2."""
    from convattn.training.config import load_recipe

    chosen = load_recipe(recipe, settings or [])

    from convattn import training

    training.train(chosen)
