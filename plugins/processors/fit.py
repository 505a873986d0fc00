"""Makes videos and sound fit the channel and play anywhere, with the least work.

What fits and plays stays as it is; then only the container changes, or only the sound;
else the video is encoded, to a size that follows from its length.
"""

import asyncio
import dataclasses
import math
import re
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from bossbot_plugins._filters import filters_of, is_hdr
from bossbot_plugins._measure import maps_of, measured, sizes_in
from bossbot_plugins._mp4 import MAX_LEVEL, Mp4, read_mp4
from bossbot_plugins._plan import (
    MAX_BPS,
    MAX_PARTS,
    SHARE,
    Plan,
    Source,
    parts_needed,
    plan,
    possible,
)
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
from bossbot_plugins._sounds import CONTAINERS, ENDINGS
from bossbot_plugins._whole import is_whole, moves
from loguru import logger
from pydantic import Field

from bossbot import (
    Bench,
    Cause,
    Encoded,
    Finding,
    JobFailed,
    MediaFile,
    PluginConfig,
    _,
    format_size,
    hookimpl,
    one_line,
)

PROFILES = ("Constrained Baseline", "Baseline", "Main", "High")  # of H.264
HIT = 0.9  # of the limit; a smaller file looks worse than it could
# What is short misses more, and is soon done again.
MAX_TRIES, MAX_LONG_TRIES, SHORT_S = 6, 4, 60.0
MAX_STATS_BYTES = 64 * 2**20  # for a second pass to have what the first one learnt
BARE = ["-map_metadata", "-1"]  # even the tags may be over the limit
# The share of the limit, the tags, and whether each second takes the same.
SOUND_TRIES: tuple[tuple[float, list[str], bool], ...] = (
    (SHARE, [], False),
    (SHARE, BARE, True),
    (0.8, BARE, True),
)
OGG_BPS = 700  # of the container
# Up to a tenth of the pictures may be broken; for more, ffmpeg ends with 69.
BROKEN = ("-max_error_rate", "0.1")


class Config(PluginConfig):
    """[plugins.fit] in config.toml."""

    encoder: str = Field(
        "",
        pattern="^(h264_[a-z0-9]+)?$",
        description="a hardware encoder, such as h264_vaapi, h264_nvenc or h264_v4l2m2m",
    )
    device: str = Field("/dev/dri/renderD128", description="the device of h264_vaapi")
    preset: Literal[
        "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"
    ] = Field("veryfast", description="x264's preset: slower ones look better")
    crf: int = Field(
        22, ge=12, le=35, description="x264's crf for files that do not have to shrink"
    )


@hookimpl(trylast=True)  # so that what others have made fits, too
async def process_files(
    files: list[MediaFile], bench: Bench, config: Config
) -> list[MediaFile]:
    """See docs/plugins.md. The failure of one file does not affect the others."""
    return [await fitted(file, bench, config) for file in files]


@hookimpl
def check_machine(config: Config) -> list[Finding]:
    """Tries the hardware encoder that the settings name on a picture."""
    ffmpeg = find_programs().get("ffmpeg")
    if not config.encoder or not ffmpeg:
        return []
    before, filters = hardware(config)
    source = ["-f", "lavfi", "-i", "color=s=256x256:d=0.1"]
    picture = ["-vf", ",".join(filters), "-c:v", config.encoder]
    argv = [ffmpeg, "-v", "error", *before, *source, *picture, "-f", "null", "-"]
    try:
        done = subprocess.run(
            argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=20
        )
        if not done.returncode:
            return []
        why = one_line(done.stderr.decode(errors="replace")[:300]).strip()
    except subprocess.TimeoutExpired:
        why = "it takes longer than 20 s"
    what = f"the encoder {config.encoder} does not work here"
    cost = "x264 makes videos fit instead"
    remedy = f"Correct encoder in [plugins.fit], or remove it. The reason: {why}"
    return [Finding(what, cost, remedy)]


def hardware(config: Config) -> tuple[list[str], list[str]]:
    """ffmpeg's words before the input, and the filters, for the hardware encoder."""
    if "vaapi" in config.encoder:
        return ["-vaapi_device", config.device], ["format=nv12", "hwupload"]
    return [], ["format=yuv420p"]


async def fitted(file: MediaFile, bench: Bench, config: Config) -> MediaFile:
    """A file as it is posted, or with the reason why it is not."""
    kind = file.mime.partition("/")[0]
    look = partial(moves, file.path, file.mime)
    large = file.size > bench.limit_bytes or file.mime == "image/avif"
    if kind == "image" and large and await asyncio.to_thread(look):
        kind = "video"
    if file.failure or kind not in ("video", "audio"):
        return file
    boxes = await asyncio.to_thread(read_mp4, file.path)
    look = partial(is_whole, file.path)
    if not (boxes.whole if boxes else await asyncio.to_thread(look)):
        return failed(file, CUT, "cut short")
    if boxes and not boxes.true:
        return failed(file, DAMAGED, "there is no picture where there should be one")
    if file.size <= bench.limit_bytes and plays(file, boxes):
        return named(file, boxes)
    if "ffmpeg" not in find_programs():
        return without_ffmpeg(file, bench)
    try:
        if file.mime == "image/webp":
            picture = await bench.apng(file)
            await asyncio.to_thread(file.path.unlink)
            file = dataclasses.replace(file, path=picture.path, mime=picture.mime)
        source = await measured(file, bench)
        pictures = boxes and any(one.kind == "vide" for one in boxes.tracks)
        if pictures and not source.probe.video:
            return failed(file, DAMAGED, "nobody knows its codec")
        return await Fitting(file, source, bench, config).made()
    except JobFailed as error:
        logger.info("{} was not made to fit: {}", file.name, error.detail)
        full = error.cause is Cause.DISK_FULL and file.size <= bench.limit_bytes
        if error.cause is not Cause.INTERNAL and not full:
            return dataclasses.replace(file, failure=error)
        if file.size > bench.limit_bytes:
            return too_large(file, bench, TOO_LARGE, error.detail)
        return await as_it_is(file, bench)


def plays(file: MediaFile, boxes: Mp4 | None) -> bool:
    """Whether a file plays anywhere, as far as its first look shows."""
    if boxes and boxes.tracks:
        sounds = file.mime.startswith("audio/") and boxes.sounds
        return boxes.plays or sounds
    return ENDINGS.get(file.mime, "m4a") != "m4a"  # as its boxes show


def named(file: MediaFile, boxes: Mp4 | None) -> MediaFile:
    """The same file, with the ending that players know."""
    ending = ".mp4" if boxes and boxes.plays else file.path.suffix
    if file.path.suffix == ending:
        return file
    path = file.path.rename(file.path.with_suffix(ending))
    return dataclasses.replace(file, path=path, mime="video/mp4")


async def as_it_is(file: MediaFile, bench: Bench) -> MediaFile:
    """A file that fits, but could not be converted: it may play in some places, unless
    nothing can be read from it."""
    try:
        await bench.ffmpeg("-xerror", "-i", file.path, "-t", "1", "-f", "null", "-")
    except JobFailed as error:
        return failed(file, DAMAGED, error.detail)
    note = _("unchanged, since it could not be converted")
    return in_place_of(file, dataclasses.replace(file, note=note))


class Made(NamedTuple):
    """What an encoding has led to."""

    file: MediaFile
    said: str  # by ffmpeg


@dataclasses.dataclass
class Fitting:
    """The work on one file."""

    file: MediaFile
    source: Source
    bench: Bench
    config: Config

    @property
    def limit(self) -> int:
        return self.bench.limit_bytes

    async def made(self) -> MediaFile:
        """The file that is posted in place of this one; this one goes."""
        needed = parts_needed(self.source, self.limit)
        if self.file.size > self.limit and needed > MAX_PARTS:
            # Encoding it would take hours, and nobody would watch that.
            raise JobFailed(Cause.INTERNAL, f"{self.source.length_s:.0f} s long")
        made = await (self._video() if self.source.probe.video else self._sound())
        if made.size > self.limit:
            return too_large(self.file, self.bench, TOO_LARGE, f"{made.size} bytes")
        await asyncio.to_thread(self.file.path.unlink)
        return in_place_of(self.file, made)

    # Steps, from the least work to the most

    async def _video(self) -> MediaFile:
        probe, source = self.source.probe, self.source
        if is_plain(source):
            sound = ["-c:a", "copy"] if probe.audio == "aac" else self._aac(128)
            size = source.video_bytes + source.audio_bytes
            if size <= self.limit:
                made = await self._copied(sound)
                if made.size <= self.limit:
                    return made
            aim = plan(source, self.limit * SHARE)
            room_bps = self.limit * SHARE * 8 / source.length_s
            kbps = int(room_bps - source.video_bps * 1.01 - source.index_bps) // 1000
            # As of a still: an encoding would leave its sound no more.
            if probe.audio and kbps >= min(64, aim.sound_kbps):
                made = await self._copied(self._aac(min(kbps, 128)))
                if made.size <= self.limit:
                    text = _("sound at {kbps} kbit/s to fit {limit}")
                    return self._noted(made, text, kbps=min(kbps, 128))
        return await self._encoded()

    async def _copied(self, sound: Sequence[str]) -> MediaFile:
        """The picture as it is, in an mp4."""
        argv = [*maps_of(self.source.probe), "-c:v", "copy", *sound, *CONTAINER]
        file, _said = await self._run("mp4", argv, encodes=False)
        return file

    async def _sound(self) -> MediaFile:
        source, codec = self.source, self.source.probe.audio
        maps = [*maps_of(source.probe), "-map_chapters", "-1"]
        if source.audio_bytes <= self.limit and (ending := CONTAINERS.get(codec)):
            for tags in ([], BARE):
                argv = [*maps, *tags, "-c", "copy"]
                made, _said = await self._run(ending, argv, encodes=False)
                if made.size <= self.limit:
                    return made
        best = None
        for share, tags, exact in SOUND_TRIES:
            bps = int(self.limit * share * 8 / source.length_s)
            kbps = min(bps // 1000, 192)
            ending, how = sound_as(bps - OGG_BPS, source.probe.channels, exact)
            made, _said = await self._run(ending, [*maps, *tags, *how], encodes=True)
            best = await self._best(best, made)
            if best and (ending == "m4a" or best.size >= HIT * self.limit):
                break
        made = best or made
        if self.file.size <= self.limit:  # only the codec was in the way
            return made
        text = _("{kbps} kbit/s to fit {limit}")
        return self._noted(made, text, kbps=kbps)

    async def _encoded(self) -> MediaFile:
        """The encoded file: after one pass if that is a hit, else after corrected ones."""
        aim = plan(self.source, self.limit * SHARE)
        stats = self.bench.path("stats") if self._stats_fit(aim) else None
        short = self.source.length_s <= SHORT_S
        most = MAX_TRIES if short else MAX_LONG_TRIES
        best, tried = None, list[tuple[int, int]]()
        for number in range(1, most + 1):
            last = number == most  # it has to fit, more than to look good
            turn = Pass(min(number, 2), None if last else stats, aim.ample, last)
            made = await self._encode(aim, turn)
            best = await self._best(best, made.file)
            enough = aim.ample or number == most - 1 or is_fine(made.said)
            enough = enough or (number == 2 and not short)
            if best and (enough or best.size >= HIT * self.limit):
                break
            before, exact = aim, bool(stats) and number == 1
            aim = self._better(aim, made, exact, tried)
            if best and aim == before:
                break
            if number == most - 1:
                aim = aim._replace(video_bps=possible(aim.video_bps * 0.8))
        return self._told(best or made.file, aim)

    async def _best(self, best: MediaFile | None, made: MediaFile) -> MediaFile | None:
        """Of a new try and the best one before, the larger one that fits; no other one
        takes place on the disk any longer."""
        better = made.size <= self.limit and (best is None or made.size > best.size)
        loser = best if better else made
        if loser:
            await asyncio.to_thread(loser.path.unlink)
        return made if better else best

    def _better(
        self, aim: Plan, made: Made, exact: bool, tried: list[tuple[int, int]]
    ) -> Plan:
        """The plan after a miss. With x264's notes the next try will be exact; else it
        will err as those before did, only less."""
        if aim.ample:  # then it was not the bits that were planned
            return plan(self.source, self.limit * 0.9)._replace(ample=False)
        video = max(sizes_in(made.said).get("video", 0), 1024)
        room = max(self.limit * SHARE - (made.file.size - video), 1024)
        if exact:
            bps = room * 8 / self.source.length_s
        else:
            tried.append((aim.video_bps, video))
            bps = aim.video_bps * (room / video) ** (1 / bend_of(tried[-2:]))
        return aim._replace(video_bps=possible(bps))

    # How a plan is carried out

    def _stats_fit(self, aim: Plan) -> bool:
        """Whether x264 is to leave notes for a second pass: they are small enough to be
        written, and no other encoder comes first."""
        blocks = aim.width * aim.height / 256
        size = 2 * blocks * self.source.fps * self.source.length_s
        return not (aim.ample or self.config.encoder) and size <= MAX_STATS_BYTES

    async def _encode(self, aim: Plan, turn: "Pass") -> Made:
        """Encoded by the hardware if the owner named one that can, else by x264."""
        ways = [self.config.encoder] if self.config.encoder else []
        ways.append("libx264")
        maps = [True, False] if is_hdr(self.source.probe) else [False]
        attempts = [(way, mapped) for way in ways for mapped in maps]
        for number, (way, mapped) in enumerate(attempts, 1):
            before, picture = self._picture(way, aim, turn, mapped)
            sound = self._aac(aim.sound_kbps) if aim.sound_kbps else ["-an"]
            argv = [*maps_of(self.source.probe), *picture, *sound, *CONTAINER]
            try:
                return await self._run("mp4", argv, encodes=True, before=before)
            except JobFailed as error:
                if number == len(attempts) or error.cause is not Cause.INTERNAL:
                    raise
                logger.warning("{} failed, trying the next way: {}", way, error.detail)
        raise AssertionError("the last way returns or raises")

    def _picture(
        self, way: str, aim: Plan, turn: "Pass", mapped: bool
    ) -> tuple[list[str], list[str]]:
        """ffmpeg's words before the input, and those for the picture."""
        bps = str(aim.video_bps)
        rate = ["-b:v", bps]
        if turn.capped or turn.strict:
            stored = aim.video_bps // 2 if turn.strict else 2 * aim.video_bps
            rate += ["-maxrate", bps, "-bufsize", str(min(stored, MAX_BPS))]
        filters = filters_of(self.source, aim, mapped)
        if way != "libx264":
            before, upload = hardware(self.config)
            filters += upload
            return before, ["-vf", ",".join(filters), "-c:v", way, *rate]
        x264 = ["-preset", self.config.preset, "-profile:v", "high"]
        if self.config.preset == "veryfast":  # it looks ahead too little to save bits
            x264 += ["-rc-lookahead", "30"]
        if aim.ample:
            rate = ["-crf", str(self.config.crf), *rate[2:]]
        if turn.stats:
            rate += ["-pass", str(turn.number), "-passlogfile", str(turn.stats)]
            rate += ["-fastfirstpass", "0"]
        picture = ["-vf", ",".join([*filters, "format=yuv420p"]), "-c:v", way]
        return [], [*picture, *x264, *rate]

    def _aac(self, kbps: int) -> list[str]:
        if self.source.probe.audio == "aac" and self.source.audio_bps <= kbps * 1100:
            return ["-c:a", "copy"]
        return aac(kbps, self.source.probe.channels)

    async def _run(
        self,
        ending: str,
        argv: Sequence[str],
        encodes: bool,
        before: Sequence[str] = (),
    ) -> Made:
        """ffmpeg's result for the file, checked to be as long."""
        path = self.bench.path(f"{self.file.path.stem}.{ending}")
        length_s = self.source.length_s
        words: list[str | Path] = [*before, "-i", self.file.path, *argv, *BROKEN, path]
        try:
            ran: Encoded = await self.bench.ffmpeg(
                *words, length_s=length_s, encodes=encodes
            )
        except JobFailed as error:
            await asyncio.to_thread(path.unlink, missing_ok=True)
            if "(exit 69)" in error.detail:
                raise JobFailed(Cause.NO_MEDIA, error.detail, DAMAGED) from error
            raise
        made = await self.bench.file(path)
        least_s, made_s = length_s - max(0.5, length_s / 50), ran.length_s
        if made_s < least_s:  # ffmpeg counts few pictures in many seconds wrongly
            made_s = (await self.bench.probe(made)).duration_s or 0
        if made_s < least_s:
            detail = f"only {made_s:.1f} of {length_s:.1f} s could be read"
            raise JobFailed(Cause.NO_MEDIA, detail, DAMAGED)
        return Made(made, ran.said)

    # What the member reads

    def _noted(self, made: MediaFile, text: str, **values: object) -> MediaFile:
        note = text.format(limit=format_size(self.limit), **values)
        return dataclasses.replace(made, note=note)

    def _told(self, made: MediaFile, aim: Plan) -> MediaFile:
        """What was encoded, with a note of what has changed most."""
        before, after = min(self.source.size), aim.short_side
        if self.file.size <= self.limit:
            codec = self.source.probe.video.upper()
            if codec == "H264":  # of a kind that does not play everywhere
                codec = f"H.264 {self.source.probe.profile}"
            return self._noted(made, _("from {codec} to H.264"), codec=codec)
        if before - after > 1:
            text = _("{before}p to {after}p to fit {limit}")
            return self._noted(made, text, before=before, after=after)
        size = format_size(self.file.size)
        return self._noted(made, _("from {size} to fit {limit}"), size=size)


class Pass(NamedTuple):
    """One of x264's passes."""

    number: int
    stats: Path | None  # where it writes, or finds, its statistics
    capped: bool  # whether few seconds may take more than their share
    strict: bool  # whether none may


CONTAINER = [
    *("-sn", "-dn", "-map_metadata", "-1", "-map_chapters", "-1", "-write_tmcd", "0"),
    *("-movflags", "+faststart", "-max_muxing_queue_size", "4096"),
]


def is_plain(source: Source) -> bool:
    """Whether the picture plays anywhere in an mp4."""
    probe = source.probe
    plain = probe.pixel_format in ("yuv420p", "yuvj420p") and probe.profile in PROFILES
    # An avi does not say when its pictures are shown, if that is not their order.
    plain = plain and 0 < probe.level <= MAX_LEVEL and probe.container != "avi"
    return probe.video == "h264" and plain


def bend_of(tried: list[tuple[int, int]]) -> float:
    """How much the bytes follow the bits that were planned, by the last two tries: 1 as
    they should; in a second of noise x264 comes only part of the way."""
    if len(tried) < 2 or tried[0][0] == tried[1][0]:
        return 1.0
    (planned, got), (then_planned, then_got) = tried
    bend = math.log(then_got / got) / math.log(then_planned / planned)
    return min(max(bend, 0.25), 1.0)


def is_fine(said: str) -> bool:
    """Whether more bits would show no better picture, by what x264 printed."""
    found = re.findall(r"frame [IP]:\d+ +Avg QP: *([\d.]+)", said)
    return bool(found) and float(found[-1]) < 16


def sound_as(bps: int, channels: int, exact: bool) -> tuple[str, list[str]]:
    """The ending and ffmpeg's words for sound of so many bits a second; below 64,000 only
    Opus sounds well."""
    kbps = min(bps // 1000, 192)
    if kbps >= 64:
        return "m4a", [*aac(kbps, channels), "-movflags", "+faststart"]
    mono = ["-ac", "1"] if kbps < 32 else ["-ac", str(min(max(channels, 1), 2))]
    rate = ["-b:a", str(max(bps, 6000)), "-vbr", "off" if exact else "constrained"]
    return "ogg", ["-c:a", "libopus", *rate, *mono]


def aac(kbps: int, channels: int) -> list[str]:
    """ffmpeg's words for AAC, in mono and with fewer tones where the bits are few."""
    most = 1 if kbps <= 32 else 2
    hertz = ["-ar", "24000"] if kbps <= 24 else ["-ar", "48000"] if kbps > 64 else []
    count = str(min(max(channels, 1), most))
    return ["-c:a", "aac", "-b:a", f"{kbps}k", "-ac", count, *hertz]
