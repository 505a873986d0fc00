"""Writes a picture that moves as an animated PNG, for programs that read no WebP.

Runs in the child, since it reads large files of strangers.
"""

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from bossbot import Cause, JobFailed

MAX_SIDE = 1920  # pixels; more would not be kept either
MAX_PIXELS = 2**30  # of all pictures as they are: some minutes' work at most
MAX_SOURCE_PIXELS = 5000**2  # of one picture as it is
MAX_MS = 65_535  # of one picture: what its number has room for


def to_apng(source: Path, target: Path) -> None:
    """Write the pictures of a WebP, on black where they are transparent.

    Raises:
        JobFailed: they are too many, or too large.
        OSError: it is damaged, or Pillow cannot read it.
    """
    from PIL import Image  # only a few need it

    Image.MAX_IMAGE_PIXELS = None  # what follows is stricter
    with Image.open(source, formats=["WEBP"]) as image, target.open("wb") as file:
        count, (width, height) = getattr(image, "n_frames", 1), image.size
        pixels = width * height
        if pixels > MAX_SOURCE_PIXELS or count * pixels > MAX_PIXELS:
            detail = f"{count} pictures of {width} x {height}"
            raise JobFailed(Cause.TOO_LARGE, detail)
        scale = min(MAX_SIDE / max(width, height), 1)
        size = max(int(width * scale), 1), max(int(height * scale), 1)
        black = Image.new("RGBA", image.size, "black")
        file.write(b"\x89PNG\r\n\x1a\n")
        _chunk(file, b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
        _chunk(file, b"acTL", struct.pack(">II", count, 0))
        for number in range(count):
            image.seek(number)
            shown = Image.alpha_composite(black, image.convert("RGBA"))
            data = shown.convert("RGB").resize(size).tobytes()
            rows = (data[n : n + 3 * size[0]] for n in range(0, len(data), 3 * size[0]))
            packed = zlib.compress(b"".join(b"\0" + row for row in rows), 1)
            # Players show a frame without a time for a tenth of a second.
            shown_ms = min(int(image.info.get("duration") or 100), MAX_MS)
            order = max(2 * number - 1, 0)
            head = struct.pack(">IIIIIHHBB", order, *size, 0, 0, shown_ms, 1000, 0, 0)
            _chunk(file, b"fcTL", head)
            if number:
                _chunk(file, b"fdAT", struct.pack(">I", order + 1) + packed)
            else:
                _chunk(file, b"IDAT", packed)
        _chunk(file, b"IEND", b"")


def _chunk(file: BinaryIO, name: bytes, body: bytes) -> None:
    file.write(struct.pack(">I", len(body)) + name + body)
    file.write(struct.pack(">I", zlib.crc32(body, zlib.crc32(name))))
