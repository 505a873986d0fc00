"""The workbench of ``process_files``: ffmpeg and ffprobe in a sandbox, on a job's files."""

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bossbot_plugins._media import FORMATS as STREAMS
from bossbot_plugins._programs import find_programs

from bossbot import (
    App,
    Bench,
    Cause,
    Job,
    JobFailed,
    MediaFile,
    Probe,
    Progress,
)

# The containers that may be opened; a playlist could lead to other files.
PICTURES = "gif,image2,jpeg_pipe,png_pipe,webp_pipe,bmp_pipe,tiff_pipe"
FORMATS = f"{STREAMS},{PICTURES}"
GUARD = ("-protocol_whitelist", "file", "-format_whitelist", FORMATS)
# What a Probe is made of: a file's texts could be longer than what run() returns.
ENTRIES = (
    "format=format_name,duration:stream_disposition=attached_pic:"
    "stream=codec_type,codec_name,width,height,pix_fmt,avg_frame_rate"
)
MAX_NAME = 60  # characters, of the end of a name


class JobBench(Bench):
    """The ``Bench`` of one attempt."""

    def __init__(
        self,
        app: App,
        job: Job,
        folder: Path,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.app = app
        self.job = job
        self.limit_bytes = job.limit_bytes or int(app.settings.max_file_size)
        self.on_progress = on_progress
        self._folder = folder  # of the attempt's files
        self._numbers = itertools.count(1)

    @property
    def _home(self) -> Path:
        return self._folder.with_name("home")

    def path(self, name: str) -> Path:
        """See ``Bench``."""
        safe = re.sub(r"[^\w.-]", "-", Path(name).name, flags=re.ASCII)
        number = f"{next(self._numbers):03}"
        return self._folder / f"{self.job.id}-{number}-{safe[-MAX_NAME:]}"

    async def file(self, path: Path) -> MediaFile:
        """See ``Bench``."""
        try:
            return await self.app.storage.inspect(path, self._folder)
        except OSError as error:
            raise JobFailed(Cause.INTERNAL, f"{path.name}: {error}") from error

    async def ffmpeg(
        self, *argv: str | Path, label: str = "Making it fit", length_s: float = 0
    ) -> None:
        """See ``Bench``."""

        def on_line(line: str) -> None:
            key, _, value = line.partition("=")
            if key == "out_time_us" and value.lstrip("-").isdecimal():
                share = max(int(value), 0) / 1e6 / length_s if length_s else None
                self.on_progress(Progress(label, share=share and min(share, 1.0)))

        self.on_progress(Progress(label))
        guarded = ["-nostdin", "-hide_banner", "-y", "-progress", "-"]
        for word in map(_word, argv):
            guarded += [*GUARD, "-i"] if word == "-i" else [word]
        ran = await self.app.runner.run(
            [_program("ffmpeg"), *guarded], self._home, on_line
        )
        if ran.exit:
            words = f"ffmpeg (exit {ran.exit}): {ran.stderr[-1000:]}"
            raise JobFailed(Cause.INTERNAL, words)

    async def probe(self, file: MediaFile) -> Probe:
        """See ``Bench``."""
        words = ["-v", "error", *GUARD, "-of", "json", "-show_entries", ENTRIES]
        ran = await self.app.runner.run(
            [_program("ffprobe"), *words, _word(file.path)], self._home
        )
        try:
            return _probe(json.loads(ran.stdout))
        except (ValueError, LookupError, TypeError) as error:
            detail = f"ffprobe: {ran.stderr[-1000:]} {error!r}"
            raise JobFailed(Cause.NO_MEDIA, detail) from error


def _program(name: str) -> str:
    if path := find_programs().get(name):
        return path
    raise JobFailed(Cause.INTERNAL, f"{name} is missing")


def _word(word: str | Path) -> str:
    """An argument; a path so that no part of its name is read as a protocol."""
    return f"file:{word.absolute()}" if isinstance(word, Path) else word


def _probe(found: dict[str, Any]) -> Probe:
    streams = found["streams"]

    def first(kind: str) -> dict[str, Any]:
        of_kind = (s for s in streams if s.get("codec_type") == kind)
        covers = (
            s for s in of_kind if not s.get("disposition", {}).get("attached_pic")
        )
        return next(covers, {})

    video, audio = first("video"), first("audio")
    duration = found["format"].get("duration")
    numerator, _, denominator = video.get("avg_frame_rate", "0/0").partition("/")
    rate = int(numerator) / int(denominator or 1) if int(denominator or 1) else None
    return Probe(
        container=found["format"]["format_name"],
        duration_s=float(duration) if duration else None,
        video=video.get("codec_name", ""),
        width=int(video.get("width", 0)),
        height=int(video.get("height", 0)),
        pixel_format=video.get("pix_fmt", ""),
        frames_per_s=rate or None,
        audio=audio.get("codec_name", ""),
    )
