"""Start-up hook: extends Ultralytics with C3k2_ESC as soon as Ultralytics is imported.

An installed convattn-yolo calls :func:`start` whenever Python starts, so this module imports only what the
interpreter has loaded by then. The environment variable ``CONVATTN_YOLO_STARTUP=0`` disables the hook;
``convattn_yolo.install()`` installs it at any time.
"""

from __future__ import annotations

import os
import sys
from _thread import get_ident  # threading is not loaded yet

TYPE_CHECKING = False  # importing typing would take longer than everything else here
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["install", "start"]


def start() -> None:
    """Call :func:`install` unless the environment variable disables it."""
    if os.environ.get("CONVATTN_YOLO_STARTUP") != "0":
        install()


def install() -> None:
    """Extend the modules of Ultralytics that are imported, and watch for the others. Idempotent."""
    if any(isinstance(finder, _Watcher) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Watcher())
    for name, extend in _EXTENSIONS.items():
        if name in sys.modules:
            _safely(extend, sys.modules[name])


class _Watcher:
    """Import finder that delegates to the other finders and extends certain modules after their execution.

    Another finder may delegate to this one in turn, as that of an older release does: while a thread is
    looking for a module, this one does not look for it again.
    """

    def __init__(self) -> None:
        self._searches: set[tuple[int, str]] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        search = get_ident(), name
        if name not in _EXTENSIONS or search in self._searches:
            return None
        self._searches.add(search)
        try:
            finders = [
                finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")
            ]
            spec = next(filter(None, (finder.find_spec(name, path, target) for finder in finders)), None)
        finally:
            self._searches.remove(search)
        if spec is not None and spec.loader is not None:
            _extend_after_execution(spec.loader, _EXTENSIONS[name])
        return spec


def _extend_after_execution(loader: object, extend: Callable[[ModuleType], None]) -> None:
    execute = loader.exec_module  # type: ignore[attr-defined]

    def exec_module(module: ModuleType) -> None:
        execute(module)
        _safely(extend, module)

    loader.exec_module = exec_module  # type: ignore[attr-defined]


def _safely(extend: Callable[[ModuleType], None], module: ModuleType) -> None:
    """Warn about a failure instead of breaking the import of another package's module."""
    try:
        extend(module)
    except Exception as error:
        import warnings

        warnings.warn(f"convattn-yolo could not extend {module.__name__}: {error}", stacklevel=2)


def _extend_tasks(tasks: ModuleType) -> None:
    from convattn_yolo.registration import register

    register(tasks)


def _extend_trainer(trainer: ModuleType) -> None:
    from convattn_yolo.registration import register_trainer

    register_trainer(trainer)


def _extend_command(cfg: ModuleType) -> None:
    from convattn_yolo.registration import register_command

    register_command(cfg)


def _extend_torchvision(extension: ModuleType) -> None:
    if "ultralytics" in sys.modules:  # others get the torchvision that is installed
        _define_nms(extension)


def _define_nms(extension: ModuleType) -> None:
    from convattn_yolo.torchvision_nms import define_nms

    define_nms(extension)


_EXTENSIONS: dict[str, Callable[[ModuleType], None]] = {
    "ultralytics.nn.tasks": _extend_tasks,
    "ultralytics.engine.trainer": _extend_trainer,
    "ultralytics.cfg": _extend_command,
    "torchvision.extension": _extend_torchvision,
}
