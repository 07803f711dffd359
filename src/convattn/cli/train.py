"""The command ``convattn train``."""

from typing import Annotated

import typer

__all__ = ["train"]


def train(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or a bundled recipe such as esc-nano.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Changes to the recipe.")
    ] = None,
) -> None:
    """Train a network on a folder of images: convattn train esc-nano data=FOLDER scale=2.

    The same command resumes an interrupted training. Keys that are changed
    most: max_steps, batch_size, learning_rate, start_from, validation,
    output_dir. The documentation of convattn.training.config.Recipe lists all.
    """
    from convattn.training.config import load_recipe

    chosen = load_recipe(recipe, settings or [])

    from convattn import training

    training.train(chosen)
