"""Image files to arrays and back: pixels, bit depth, transparency, color profile and metadata are kept."""

from convattn.images.io.finding import find_images
from convattn.images.io.formats import READABLE, WRITABLE, Format, check_size, format_of, sniff
from convattn.images.io.frames import is_animated
from convattn.images.io.image import Image
from convattn.images.io.reading import read_image, read_rgb
from convattn.images.io.writing import write_image

__all__ = [
    "READABLE",
    "WRITABLE",
    "Format",
    "Image",
    "check_size",
    "find_images",
    "format_of",
    "is_animated",
    "read_image",
    "read_rgb",
    "sniff",
    "write_image",
]
