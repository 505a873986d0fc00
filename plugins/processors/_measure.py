"""Measures a video or a sound, by reading it once."""

import re
from pathlib import Path
from weakref import WeakKeyDictionary

from bossbot_plugins._plan import Source
from bossbot_plugins._reasons import CUT, DAMAGED

from bossbot import Bench, Cause, JobFailed, MediaFile, Probe

# The containers whose head says how long they are.
SAID = ("mov", "matroska", "asf", "flv", "avi", "aiff", "au", "caf", "w64", "wv", "tta")
# The measured files of each job's bench, by path and SHA-256: several plugins ask.
_known = WeakKeyDictionary[Bench, dict[tuple[Path, str], Source]]()


async def measured(file: MediaFile, bench: Bench) -> Source:
    """The streams of a file that are posted, and how many bytes they take.

    Raises:
        JobFailed: it holds none, or ends too early.
    """
    known, key = _known.setdefault(bench, {}), (file.path, file.sha256)
    if key not in known:
        known[key] = await _measure(file, bench)
    return known[key]


async def _measure(file: MediaFile, bench: Bench) -> Source:
    try:
        probe = await bench.probe(file)
    except JobFailed as error:
        if error.cause is not Cause.NO_MEDIA:
            raise
        raise JobFailed(Cause.NO_MEDIA, error.detail, DAMAGED) from error
    if not probe.video and not probe.audio:
        raise JobFailed(Cause.NO_MEDIA, f"{file.name} has no streams", DAMAGED)
    copied = (*maps_of(probe), "-c", "copy", "-f", "null", "-")
    read = await bench.ffmpeg("-i", file.path, *copied)
    said_s, sizes = probe.duration_s or 0, sizes_in(read.said)
    end_s = read.length_s + probe.start_s  # some count from zero, some from the start
    short = 0 < read.length_s and end_s < said_s * 0.97 - 0.5
    if short and probe.container.partition(",")[0] in SAID:
        detail = f"{read.length_s:.1f} of {said_s:.1f} s"
        raise JobFailed(Cause.NO_MEDIA, detail, CUT)
    length_s = read.length_s or said_s
    if length_s <= 0:
        raise JobFailed(Cause.NO_MEDIA, "it has no length", DAMAGED)
    video = sizes.get("video", 0) if probe.video else 0
    return Source(probe, length_s, video, sizes.get("audio", 0))


def maps_of(probe: Probe) -> list[str]:
    """ffmpeg's words for the streams that are posted: a picture, a sound, or both."""
    streams = (probe.video, probe.index), (probe.audio, probe.audio_index)
    return [word for codec, n in streams if codec for word in ("-map", f"0:{n}")]


def sizes_in(said: str) -> dict[str, int]:
    """The bytes of video and audio that ffmpeg wrote, from its output."""
    found = re.findall(r"(video|audio):\s*(\d+)Ki?B", said, re.IGNORECASE)
    return {kind: int(size) * 1024 for kind, size in found}
