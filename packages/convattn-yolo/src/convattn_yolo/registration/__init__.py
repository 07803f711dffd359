"""Registers C3k2_ESC in Ultralytics: the only package that touches Ultralytics' internals.

Nothing of Ultralytics is edited or copied. Wrappers of a few of its functions handle models with C3k2_ESC and
leave all others unchanged.
"""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from convattn.errors import InputError
from convattn_yolo.registration import parsing, profiling, weights

__all__ = ["register", "register_command", "register_trainer"]


class DatasetError(InputError, RuntimeError):
    """A dataset cannot be used. Ultralytics raises a RuntimeError there, and so does this package."""


def register(tasks: ModuleType) -> None:
    """Extend Ultralytics.

    Args:
        tasks: The module ``ultralytics.nn.tasks``. Extending it again does nothing.
    """
    if getattr(tasks.parse_model, "knows_c3k2_esc", False):
        return
    _wrap(tasks, "parse_model", parsing.parse_model)
    _wrap(tasks, "check_yaml", parsing.check_yaml)
    _wrap(tasks, "guess_model_scale", parsing.guess_model_scale)
    _wrap(tasks.BaseModel, "load", weights.load)
    _wrap(tasks.BaseModel, "fuse", weights.fuse)
    if hasattr(tasks, "_SafeLoad"):
        _wrap(tasks._SafeLoad, "_build", weights.allow_in_safe_loading, staticmethod)
    _register_ddp()
    profiling.register_flops()


def register_trainer(trainer: ModuleType) -> None:
    """Say in one sentence what is wrong with a dataset, for our models and for all others.

    Args:
        trainer: The module ``ultralytics.engine.trainer``.
    """
    _wrap(trainer.BaseTrainer, "get_dataset", _get_dataset)


def register_command(cfg: ModuleType) -> None:
    """Let an InputError end the command ``yolo`` without a traceback.

    Args:
        cfg: The module ``ultralytics.cfg``, whose ``entrypoint`` is the command.
    """
    _wrap(cfg, "entrypoint", _run_command)


def _get_dataset(original: Callable[..., Any], self: Any) -> Any:
    try:
        return original(self)
    except (OSError, RuntimeError, SyntaxError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0].strip(" ❌⚠️.")
        raise DatasetError(f"The dataset {self.args.data} cannot be used: {reason}.") from error


def _run_command(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return original(*args, **kwargs)
    except InputError as error:
        sys.exit(f"yolo: {error}")


def _wrap(
    owner: Any, name: str, wrapper: Callable[..., Any], kind: Callable[[Any], Any] = lambda function: function
) -> None:
    """Replace ``owner.name`` by ``wrapper``, which gets the original as its first argument."""
    original = getattr(owner, name)
    if getattr(original, "knows_c3k2_esc", False):
        return

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs)

    wrapped.knows_c3k2_esc = True  # type: ignore[attr-defined]
    setattr(owner, name, kind(wrapped))
    # `from ... import` may have copied the original.
    for module in ("ultralytics.nn",):
        if getattr(sys.modules.get(module), name, None) is original:
            setattr(sys.modules[module], name, wrapped)


def _register_ddp() -> None:
    import ultralytics.utils.dist as dist

    _wrap(dist, "generate_ddp_file", _generate_ddp_file)


def _generate_ddp_file(original: Callable[..., Any], trainer: Any) -> str:
    """Import this package in the workers, where the start-up hook may be disabled."""
    file = Path(original(trainer))
    main = 'if __name__ == "__main__":\n'
    code = file.read_text(encoding="utf-8")
    file.write_text(
        code.replace(main, f"{main}    import convattn_yolo; convattn_yolo.install()\n", 1), encoding="utf-8"
    )
    return str(file)
