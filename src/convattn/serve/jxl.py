"""The size of a JPEG XL image, from its first bytes; its decoder would decode the pixels to tell it."""

__all__ = ["size_of_jxl"]

_SIGNATURE = b"\xff\x0a"
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
_BITS = (9, 13, 18, 30)


def size_of_jxl(head: bytes) -> tuple[int, int] | None:
    """Return the width and height by the head of a file, before its orientation (ISO/IEC 18181-1, D.2).

    None if there is no size; the codestream is found in a container (18181-2) too.
    """
    start = head.find(_SIGNATURE) if head.startswith(_SIGNATURE) else _start_in_boxes(head)
    if start is None or len(head) < start + 12:
        return None
    bits = _Bits(head[start + 2 : start + 14])
    is_small = bits.take(1)
    height = _side(bits, is_small)
    ratio = _RATIOS.get(bits.take(3))
    return (height * ratio[0] // ratio[1] if ratio else _side(bits, is_small)), height


def _start_in_boxes(head: bytes) -> int | None:
    """Where the codestream begins in a container: in the box jxlc, or in the first of the boxes jxlp."""
    at = 0
    while at + 16 <= len(head):
        length, name = int.from_bytes(head[at : at + 4], "big"), head[at + 4 : at + 8]
        header = 16 if length == 1 else 8
        if length == 1:
            length = int.from_bytes(head[at + 8 : at + 16], "big")
        if name in (b"jxlc", b"jxlp"):
            return at + header + (4 if name == b"jxlp" else 0)
        if length < header:
            return None
        at += length
    return None


class _Bits:
    """Reads numbers from bytes, lowest bit first."""

    def __init__(self, data: bytes) -> None:
        self._rest = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        taken, self._rest = self._rest & ((1 << count) - 1), self._rest >> count
        return taken


def _side(bits: _Bits, is_small: int) -> int:
    if is_small:
        return 8 * (1 + bits.take(5))
    return 1 + bits.take(_BITS[bits.take(2)])
