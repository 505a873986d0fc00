"""Splits videos and sound that are too long to look or sound acceptable in one file."""

import asyncio
from dataclasses import replace

from bossbot_plugins._measure import maps_of, measured
from bossbot_plugins._plan import MAX_PARTS, SHARE, Source, parts_needed, plan
from bossbot_plugins._programs import find_programs
from bossbot_plugins._reasons import in_place_of
from bossbot_plugins._whole import is_whole

from bossbot import N_, Bench, JobFailed, MediaFile, _, hookimpl

MANY = 2.5  # times as many parts without encoding are better than a long encoding
SLACK_S = 0.1  # longer than need be, so that no crumb is left for one more
SPLITTING = N_("Splitting it")
SOUNDS = ("mp3", "ogg", "flac", "wav")  # whose parts are as the whole


@hookimpl  # after the changes to the whole, and before its parts are made to fit
async def process_files(files: list[MediaFile], bench: Bench) -> list[MediaFile]:
    """See docs/plugins.md. What cannot be split stays for others to make it fit."""
    parts = list[MediaFile]()
    for file in files:
        parts += await parts_of(file, bench)
    return parts


async def parts_of(file: MediaFile, bench: Bench) -> list[MediaFile]:
    """The parts of a file, or the file where one is enough."""
    too_large = file.size > bench.limit_bytes and not file.failure
    if not too_large or file.mime.partition("/")[0] not in ("video", "audio"):
        return [file]
    whole = await asyncio.to_thread(is_whole, file.path)
    if not whole or "ffmpeg" not in find_programs():
        return [file]
    try:
        source = await measured(file, bench)
        count = count_for(source, file, bench.limit_bytes)
        if not 1 < count <= MAX_PARTS:
            return [file]
        length_s = source.length_s / count + SLACK_S
        parts = await split(file, source, length_s, bench)
        if len(parts) < parts_needed(
            source, bench.limit_bytes
        ):  # for lack of key frames
            for part in parts:
                await asyncio.to_thread(part.path.unlink)
            parts = await split(file, source, length_s, bench, encodes=True)
    except JobFailed:  # the next one finds the same, and says so
        return [file]
    if len(parts) < 2:
        return [file]
    await asyncio.to_thread(file.path.unlink)
    text, count = _("part {number} of {count}"), len(parts)
    return [
        in_place_of(file, replace(part, note=text.format(number=number, count=count)))
        for number, part in enumerate(parts, 1)
    ]


def count_for(source: Source, file: MediaFile, limit: int) -> int:
    """In how many parts a file is posted: as few as look acceptable, or some more if
    those need not be encoded."""
    count = parts_needed(source, limit)
    as_it_is = -int(-file.size // (limit * SHARE * 0.95))
    few = as_it_is <= min(count * MANY, MAX_PARTS)
    return as_it_is if 1 < count and few else count


async def split(
    file: MediaFile,
    source: Source,
    length_s: float,
    bench: Bench,
    encodes: bool = False,
) -> list[MediaFile]:
    """The parts of a file, each of about that length: they begin at key frames, which are
    made first if it is to be encoded."""
    probe = source.probe
    kind = probe.container.partition(",")[0]
    ending = "mp4" if kind == "mov" else "mkv"
    if kind in SOUNDS and not probe.video:
        ending = kind
    first = bench.path(f"part.{ending}")
    pattern = first.with_stem(f"{first.stem}-%03d")
    codec = with_key_frames(source, length_s, bench.limit_bytes) if encodes else ()
    front = ["-segment_format_options", "movflags=+faststart"]
    how = ["-f", "segment", "-segment_time", f"{length_s:.3f}"]
    how += ["-reset_timestamps", "1", *(front if ending == "mp4" else ())]
    argv = [*maps_of(probe), "-c", "copy", *codec, "-map_chapters", "-1", *how]
    await bench.ffmpeg(
        *("-i", file.path, *argv, pattern),
        label=SPLITTING,
        length_s=source.length_s,
        encodes=encodes,
    )
    parts = []
    for number in range(MAX_PARTS * 4):
        path = pattern.with_name(pattern.name.replace("%03d", f"{number:03}"))
        if not path.exists():
            break
        parts.append(await bench.file(path))
    return parts


def with_key_frames(source: Source, length_s: float, limit: int) -> list[str]:
    """ffmpeg's words for a picture that can be split, of the size that its parts will
    have: quickly made, and so good that it can be encoded once more."""
    aim = plan(source, limit * SHARE * source.length_s / length_s)
    filters = ["yadif"] if source.probe.interlaced else []
    filters.append(f"scale={aim.width}:{aim.height}")
    count = int(source.length_s / length_s)
    keys = ",".join(f"{number * length_s:.3f}" for number in range(1, count + 1))
    how = ["-preset", "ultrafast", "-crf", "18", "-force_key_frames", keys or "0"]
    return ["-vf", ",".join(filters), "-c:v", "libx264", *how]
