"""What an upload is, by its first bytes; its name and what the client says of it are never trusted."""

from dataclasses import dataclass

from convattn.images.signatures import format_name

__all__ = ["MEDIA_TYPES", "OTHER", "Kind", "sniff"]

MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".tif": "image/tiff",
    ".avif": "image/avif",
    ".gif": "image/gif",
    ".mp4": "video/mp4",
    ".mkv": "video/x-matroska",
    ".avi": "video/x-msvideo",
}
"""The media types of what is read and written, by suffix."""

_VIDEOS = (".mp4", ".mkv", ".avi")
_SYNONYMS = (".jpeg", ".tiff", ".apng", ".m4v", ".mov", ".webm")
_ON_THE_WEB = (".png", ".jpg", ".webp", ".avif", ".gif", ".mp4")


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        suffix: As the file is named on the disk.
    """

    suffix: str

    @property
    def is_video(self) -> bool:
        """Whether it is a video; animations are images."""
        return self.suffix in _VIDEOS

    @staticmethod
    def is_suffix(suffix: str) -> bool:
        """Whether a suffix of a file name is that of an image or a video, and no part of the name."""
        return suffix.lower() in (*MEDIA_TYPES, *_SYNONYMS)

    @property
    def is_shown_by_browsers(self) -> bool:
        """Whether browsers show it."""
        return self.suffix in _ON_THE_WEB


def sniff(head: bytes) -> Kind | None:
    """Return the kind of a file by its first 64 bytes, or None if it is empty.

    Whatever has no signature of its own here is :data:`OTHER`, an image for the image reader, which knows
    many formats. A playlist or other text that makes a video reader open further files never reaches one.
    """
    if not head:
        return None
    name = format_name(head)
    suffix = _IMAGES.get(name) if name else None
    if head.startswith(_MATROSKA):
        suffix = ".mkv"
    elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        suffix = ".avi"
    elif head[4:8] == b"ftyp" and name is None:
        suffix = ".mp4"
    return Kind(suffix) if suffix else OTHER


OTHER = Kind(".image")
"""An image of any other format; the image reader finds out which, or that it is none."""

_IMAGES = {"PNG": ".png", "JPEG": ".jpg", "GIF": ".gif", "TIFF": ".tif", "WebP": ".webp", "AVIF": ".avif"}
_MATROSKA = b"\x1aE\xdf\xa3"
