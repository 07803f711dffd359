"""Which images are animations, and when they stay animated."""

from pathlib import Path

from convattn.images.io import WRITABLE, is_animated

__all__ = ["ANIMATIONS", "becomes_animation", "needs_animation"]

ANIMATIONS = (".gif", ".webp", ".png", ".apng", ".avif", ".avifs")
"""The suffixes of files that can hold an animation, in lower case."""


def becomes_animation(source: Path, target: Path) -> bool:
    """Return whether a file with several frames becomes one; elsewhere it becomes one still image."""
    kinds = source.suffix.lower(), target.suffix.lower()
    if not source.is_file() or not set(kinds) <= set(ANIMATIONS):
        return False
    if kinds[1] == ".png" and kinds[0] not in (".png", ".apng"):
        return False
    return ".apng" in kinds or kinds[1] == ".gif" or is_animated(source)


def needs_animation(source: Path) -> bool:
    """Return whether a file has several frames, in a format that is not written for still images."""
    suffix = source.suffix.lower()
    return suffix in ANIMATIONS and suffix not in WRITABLE and source.is_file() and is_animated(source)
