"""What image files begin with."""

__all__ = ["HEAD", "format_name"]

HEAD = 64
"""Bytes of a file that suffice to tell its format."""

_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"), "HEIC"
)

_SIGNATURES = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"%!PS": "EPS",
    b"\xc5\xd0\xd3\xc6": "EPS",
    b"%PDF": "PDF",
    b"\xd7\xcd\xc6\x9a": "WMF",
    b"\x01\0\0\0": "EMF",
    b"\x89HDF": "HDF5",
    b"BUFR": "BUFR",
    b"GRIB": "GRIB",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"gimp xcf": "GIMP",
    b"\xd0\xcf\x11\xe0": "FlashPix",
    b"<svg": "SVG",
    b"<?xml": "SVG or another XML",
    b"P7\n": "PAM",
}


def format_name(head: bytes) -> str | None:
    """Return the name of an image format by the first :data:`HEAD` bytes of a file; None if it is unknown."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        brands = (head[8:12], *(head[start : start + 4] for start in range(16, len(head), 4)))
        known = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
        return "AVIF" if "AVIF" in known else next(iter(known), None)
    return next((name for signature, name in _SIGNATURES.items() if head.startswith(signature)), None)
