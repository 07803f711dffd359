"""Finding the data set a data.yaml describes."""

import tempfile
from pathlib import Path
from typing import Any

import yaml

from convattn.errors import InputError

__all__ = ["resolve_dataset"]


def resolve_dataset(file: str | Path) -> dict[str, Any]:
    """Read a data.yaml and make its paths absolute.

    A relative ``path`` is taken from the folder the data.yaml lies in; where nothing is there, ultralytics
    looks in its own data sets folder, and fetches the sets it knows by name (``coco8.yaml``).

    Args:
        file: A data.yaml, or the name of one that comes with ultralytics.

    Returns:
        The description as ultralytics checks it, with ``path``, ``train``, ``val`` absolute, and ``names`` a
        mapping from class index to name.

    Raises:
        InputError: If it is missing, is no description of a detection data set, or points nowhere.
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
        raise InputError(f"The data set {file} cannot be used: {reason}.") from error


def _beside(file: Path) -> dict[str, Any]:
    """The description in a file, its root made absolute if that can be found from the file's folder."""
    description = yaml.safe_load(file.read_text())
    if not isinstance(description, dict):
        raise InputError(
            f"{file} is no data.yaml: it should name the folders train and val and the class names."
        )
    root = (file.parent / str(description.get("path") or ".")).resolve()
    if root.is_dir():
        description["path"] = str(root)
    return description
