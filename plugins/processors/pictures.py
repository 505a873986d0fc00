"""Makes pictures fit the channel, and shows everywhere what only some programs show."""

import asyncio
import dataclasses
import math
import re
from pathlib import Path
from typing import Any

from bossbot_plugins._programs import find_programs
from bossbot_plugins._reasons import (
    CUT,
    DAMAGED,
    TOO_LARGE,
    failed,
    in_place_of,
    too_large,
    without_ffmpeg,
)
from bossbot_plugins._whole import is_whole, moves
from loguru import logger

from bossbot import (
    Bench,
    Cause,
    JobFailed,
    MediaFile,
    Probe,
    _,
    format_size,
    hookimpl,
)

SHOWN = ("image/jpeg", "image/png", "image/gif", "image/webp", "image/apng")
QUALITIES = (2, 4, 7)  # of JPEG, by ffmpeg's count
SMALLER = (5, 5, 5, 5)  # likewise, when it gets fewer pixels each time
MOST = {"jpg": 16_384, "webp": 16_383, "png": 2**31}  # pixels of a side
MAX_PIXELS = 40e6  # of the result: encoders run out of memory soon after
# What turns a photo as its camera was held: EXIF, orientation.
TURNS = {
    2: "hflip",
    3: "hflip,vflip",
    4: "vflip",
    5: "transpose=0",
    6: "transpose=1",
    7: "transpose=3",
    8: "transpose=2",
}


@hookimpl(trylast=True)  # so that what others have made fits, too
async def process_files(files: list[MediaFile], bench: Bench) -> list[MediaFile]:
    """See docs/plugins.md. Pictures that move and are too large are left to ``fit``."""
    return [await fitted(file, bench) for file in files]


async def fitted(file: MediaFile, bench: Bench) -> MediaFile:
    """A picture as it is posted, or with the reason why it is not."""
    if not file.mime.startswith("image/") or file.failure:
        return file
    if not await asyncio.to_thread(is_whole, file.path):
        return failed(file, CUT, "cut short")
    fits = file.size <= bench.limit_bytes
    if fits and file.mime in SHOWN:
        return file
    if await asyncio.to_thread(moves, file.path, file.mime):
        return file
    if "ffmpeg" not in find_programs():
        return without_ffmpeg(file, bench)
    try:
        made = await smaller(file, bench)
    except JobFailed as error:
        logger.info("{} was not made to fit: {}", file.name, error.detail)
        if error.cause in (Cause.TIMED_OUT, Cause.DISK_FULL):
            return dataclasses.replace(file, failure=error)
        # Some programs show it as it is; ours cannot read it.
        return file if fits else too_large(file, bench, TOO_LARGE, error.detail)
    if made.size > bench.limit_bytes:
        return too_large(file, bench, TOO_LARGE, f"{made.size} bytes")
    await asyncio.to_thread(file.path.unlink)
    return in_place_of(file, made)


async def smaller(file: MediaFile, bench: Bench) -> MediaFile:
    """A picture in a form that every program shows, with as many pixels and as good as
    fits."""
    probe = await bench.probe(file)
    if not probe.width or not probe.height:
        raise JobFailed(Cause.NO_MEDIA, f"{file.name} has no size", DAMAGED)
    turn = await asyncio.to_thread(turn_of, file.path)
    clear = has_alpha(probe.pixel_format)
    ending = "webp" if clear else "jpg"
    pixels = probe.width * probe.height
    scale = min(1.0, MOST[ending] / max(probe.width, probe.height))
    scale = min(scale, math.sqrt(MAX_PIXELS / pixels))
    made = None
    for number, quality in enumerate(QUALITIES + SMALLER):
        if made and number >= len(QUALITIES):
            scale *= min(0.9, 0.95 * math.sqrt(bench.limit_bytes / made.size))
        made = await drawn(file, probe, bench, ending, scale, quality, turn)
        if made.size <= bench.limit_bytes:
            break
    assert made
    if file.size <= bench.limit_bytes:
        return made
    text = _("from {size} to fit {limit}")
    size, limit = format_size(file.size), format_size(bench.limit_bytes)
    return dataclasses.replace(made, note=text.format(size=size, limit=limit))


async def drawn(
    file: MediaFile,
    probe: Probe,
    bench: Bench,
    ending: str,
    scale: float,
    quality: int,
    turn: str,
) -> MediaFile:
    path = bench.path(f"{file.path.stem}.{ending}")
    filters = [turn] if turn else []
    if scale < 1:
        width, height = (max(int(n * scale), 1) for n in (probe.width, probe.height))
        filters.insert(0, f"scale={width}:{height}:flags=lanczos")
    how = ["-c:v", "libwebp", "-quality", str(98 - 4 * quality)]
    if ending == "jpg":
        filters.append("scale=out_range=pc,format=yuvj420p")
        how = ["-c:v", "mjpeg", "-q:v", str(quality), "-huffman", "optimal"]
    words = ["-frames:v", "1", "-map_metadata", "-1", "-threads", "1", *how]
    if filters:
        words = ["-vf", ",".join(filters), *words]
    await bench.ffmpeg("-noautorotate", "-i", file.path, *words, path)
    return await bench.file(path)


def has_alpha(pixel_format: str) -> bool:
    return bool(re.match(r"(rgba|bgra|argb|abgr|ya|yuva|gbrap|pal8)", pixel_format))


def turn_of(path: Path) -> str:
    """ffmpeg's filters that turn a JPEG as EXIF says; "" for none."""
    with path.open("rb") as file:
        head = file.read(2**16)
    start = head.find(b"Exif\0\0") + 6
    if not head.startswith(b"\xff\xd8") or start < 6:
        return ""
    tiff = head[start:]
    order: Any = "little" if tiff[:2] == b"II" else "big"

    def number(place: int, length: int) -> int:
        return int.from_bytes(tiff[place : place + length], order)

    table = number(4, 4)
    for entry in range(min(number(table, 2), 100)):
        place = table + 2 + 12 * entry
        if number(place, 2) == 0x0112:
            return TURNS.get(number(place + 8, 2), "")
    return ""
