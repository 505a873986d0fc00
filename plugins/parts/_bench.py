"""The workbench of ``process_files``: ffmpeg and ffprobe in a sandbox, on a job's files."""

import asyncio
import contextlib
import itertools
import json
import math
import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from bossbot_plugins._media import FORMATS as STREAMS
from bossbot_plugins._messages import FRAMES
from bossbot_plugins._programs import find_programs

from bossbot import (
    App,
    Bench,
    Cause,
    Encoded,
    Job,
    JobFailed,
    MediaFile,
    Probe,
    Progress,
    Status,
    _,
    format_time,
    off_the_clock,
    time_left_s,
)

# The containers that may be opened; a playlist could lead to other files.
PICTURES = (
    "gif,apng,ico,image2,jpeg_pipe,png_pipe,webp_pipe,bmp_pipe,tiff_pipe,jpegxl_pipe"
)
FORMATS = f"{STREAMS},{PICTURES}"
GUARD = ("-protocol_whitelist", "file", "-format_whitelist", FORMATS)
# What a Probe is made of: a file's texts could be longer than what run() returns.
ENTRIES = (
    "format=format_name,duration,start_time:stream_disposition=attached_pic:stream_tags=rotate:"
    "stream_side_data=rotation:stream=index,codec_type,codec_name,profile,level,width,"
    "height,pix_fmt,avg_frame_rate,r_frame_rate,field_order,sample_aspect_ratio,"
    "color_transfer,channels,duration"
)
MAX_NAME = 60  # characters, of the end of a name
CORES = os.cpu_count() or 1
ENCODERS = max(CORES // 2, 1)  # at once


class Later(BaseException):
    """The work is too long for files that are posted while others are downloaded. It is
    not a plugin's failure, so no plugin may catch it."""


class JobBench(Bench):
    """The ``Bench`` of one attempt."""

    def __init__(
        self,
        app: App,
        job: Job,
        folder: Path,
        on_progress: Callable[[Progress], None],
        encoders: asyncio.Semaphore | None = None,
    ) -> None:
        self.app = app
        self._encoders = encoders or asyncio.Semaphore(ENCODERS)
        self._early = job.status is Status.DOWNLOADING
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
        self,
        *argv: str | Path,
        label: str = "Making it fit",
        length_s: float = 0,
        encodes: bool = False,
    ) -> Encoded:
        """See ``Bench``."""
        if encodes and self._early:
            raise Later
        program, done_s = _program("ffmpeg"), 0.0

        def on_line(line: str) -> None:
            nonlocal done_s
            key, _, value = line.partition("=")
            if key == "out_time_us" and value.lstrip("-").isdecimal():
                done_s = max(int(value), 0) / 1e6
                share = done_s / length_s if length_s else None
                self.on_progress(Progress(label, share=share and min(share, 1.0)))

        guarded = ["-nostdin", "-hide_banner", "-y", "-progress", "-"]
        for word in map(_word, argv):
            guarded += [*GUARD, "-i"] if word == "-i" else [word]
        async with self._turn(encodes):
            self.on_progress(Progress(label))
            if encodes:
                guarded[-1:-1] = ["-threads", str(self._threads())]
            run = self.app.runner.run
            ran = await run([program, *guarded], self._home, on_line, encodes)
        if ran.exit:
            words = f"ffmpeg (exit {ran.exit}): {ran.stderr[-1000:]}"
            full = re.search(r": No space left on device$", ran.stderr, re.MULTILINE)
            raise JobFailed(Cause.DISK_FULL if full else Cause.INTERNAL, words)
        return Encoded(done_s, ran.stderr)

    async def apng(self, file: MediaFile) -> MediaFile:
        """See ``Bench``."""
        if self._early:
            raise Later
        path = self.path(f"{file.path.stem}.png")
        async with self._turn(True):
            argv = [FRAMES, _word(file.path), _word(path)]
            await self.app.runner.run(argv, self._home, background=True)
        return await self.file(path)

    def _threads(self) -> int:
        """How many threads an encoder may have; 0 for its own choice."""
        own = CORES // ENCODERS
        return max(own // 2, 1) if self.app.runner.downloads() else own * (ENCODERS > 1)

    @contextlib.asynccontextmanager
    async def _turn(self, encodes: bool) -> AsyncIterator[None]:
        """When this program may run, and for how long."""
        async with contextlib.AsyncExitStack() as stack:
            if encodes:
                with off_the_clock():
                    await stack.enter_async_context(self._encoders)
            limit_s = self.app.settings.process_timeout_s
            left_s = time_left_s()
            # Before the hook itself is given up, which would count as its failure.
            end_s = (limit_s if left_s is None else left_s) - min(5.0, limit_s / 10)
            try:
                async with asyncio.timeout(end_s):
                    yield
            except TimeoutError:
                text = _("Making it fit took longer than {time}, so it was stopped.")
                said = text.format(time=format_time(limit_s))
                late = JobFailed(Cause.TIMED_OUT, "over process_timeout_s", said)
                raise late from None

    async def probe(self, file: MediaFile) -> Probe:
        """See ``Bench``."""
        words = ["-v", "error", *GUARD, "-of", "json", "-show_entries", ENTRIES]
        program = _program("ffprobe")
        async with self._turn(False):
            argv = [program, *words, _word(file.path)]
            ran = await self.app.runner.run(argv, self._home)
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
    rates = [_ratio(video.get(f"{one}_frame_rate")) for one in ("avg", "r")]
    turned = [*video.get("side_data_list", ()), video.get("tags", {})]
    angles = [one.get("rotation") or one.get("rotate") or 0 for one in turned]
    return Probe(
        container=found["format"]["format_name"],
        duration_s=max(_number(one.get("duration")) for one in (video, audio))
        or _number(found["format"].get("duration"))
        or None,
        video=video.get("codec_name", ""),
        width=int(video.get("width", 0)),
        height=int(video.get("height", 0)),
        pixel_format=video.get("pix_fmt", ""),
        frames_per_s=rates[0] or None,
        audio=audio.get("codec_name", ""),
        index=int(video.get("index", -1)),
        audio_index=int(audio.get("index", -1)),
        rotation=int(_number(next(filter(None, angles), 0))) % 360,
        shape=_ratio(video.get("sample_aspect_ratio")) or 1,
        profile=video.get("profile", ""),
        level=int(video.get("level", 0)),
        interlaced=video.get("field_order", "") in ("tt", "bb", "tb", "bt"),
        ticks_per_s=rates[1],
        transfer=video.get("color_transfer", ""),
        channels=int(audio.get("channels", 0)),
        start_s=max(_number(found["format"].get("start_time")), 0),
    )


def _number(value: Any) -> float:
    """A value of ffprobe's as a number; 0 for none, and for anything else."""
    with contextlib.suppress(TypeError, ValueError):
        if math.isfinite(number := float(value)):
            return number
    return 0


def _ratio(value: Any) -> float:
    """The same for "30000/1001" and "4:3"."""
    above, below = (_number(one) for one in re.split("[/:]", f"{value}:1")[:2])
    return above / below if below else 0
