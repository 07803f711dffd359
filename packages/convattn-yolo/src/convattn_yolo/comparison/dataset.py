"""Read data.yaml files."""

import tempfile
from pathlib import Path
from typing import Any

import yaml

from convattn.errors import InputError

__all__ = ["resolve_dataset"]


def resolve_dataset(file: str | Path) -> dict[str, Any]:
    """Read a data.yaml and make its paths absolute.

    A relative ``path`` is resolved against the data.yaml's folder. If nothing is there, Ultralytics looks in
    its datasets folder and downloads the datasets it knows by name (``coco8.yaml``).

    Args:
        file: A data.yaml, or the name of one that comes with Ultralytics.

    Returns:
        The description as checked by Ultralytics: ``path``, ``train`` and ``val`` are absolute, ``names``
        maps class indices to names.

    Raises:
        InputError: The file is missing, does not describe a detection dataset, or its images are missing.
    """
    from ultralytics.data.utils import check_det_dataset

    try:
        if not Path(file).is_file():
            return check_det_dataset(str(file))
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, Path(file).name)
            copy.write_text(yaml.safe_dump(_beside(Path(file))))
            return check_det_dataset(copy)
    except InputError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0].replace(" ❌", "").rstrip(".")
        raise InputError(f"The dataset {file} cannot be used: {reason}.") from error


def _beside(file: Path) -> dict[str, Any]:
    """Read a description, with ``path`` made absolute if it exists relative to the file's folder."""
    description = yaml.safe_load(file.read_text())
    if not isinstance(description, dict):
        raise InputError(
            f"{file} is not a data.yaml: it must name the folders train and val and the class names."
        )
    root = (file.parent / str(description.get("path") or ".")).resolve()
    if root.is_dir():
        description["path"] = str(root)
    return description
