"""Plans the pixels and bits of a video, so that it fits and looks acceptable."""

from typing import NamedTuple

from bossbot import Probe

SHORT_SIDES = (2160, 1440, 1080, 720, 480, 360)  # pixels; never larger than it is
GOOD_BPP = 0.04  # bits a pixel; below it, fewer pixels look better
LEAST_BPP = 0.02  # below it, at 360p, nothing looks acceptable
SHARE = 0.96  # of the limit that is aimed at; from 0.9 to 1 counts as a hit
SOUND_KBPS = (128, 96, 64, 48, 32, 24, 16)
MAX_PARTS = 20  # of a file; more would fill the channel
MAX_FPS = 60.0
MIN_BPS = 2000  # x264 takes no fewer
MAX_BPS = 40_000_000  # nothing here looks better with more, and level 4.1 allows it
# Blocks of 16 x 16 pixels in a picture: for more, x264 needs more memory than a program
# may have. And in a second: H.264, level 5.2.
MAX_BLOCKS, MAX_BLOCKS_S = 160 * 90, 2_073_600
# How much H.264 needs for the same picture.
NEEDS = {"hevc": 1.5, "av1": 1.8, "vp9": 1.4}


class Source(NamedTuple):
    """A video or a sound, measured."""

    probe: Probe
    length_s: float
    video_bytes: int  # of the packets
    audio_bytes: int

    @property
    def video_bps(self) -> float:
        return self.video_bytes * 8 / self.length_s

    @property
    def audio_bps(self) -> float:
        return self.audio_bytes * 8 / self.length_s

    @property
    def index_bps(self) -> float:
        """What an mp4's index takes: some bytes for each frame of pictures and sound."""
        pictures = 96 * self.fps if self.probe.video else 0.0
        return pictures + (2000 if self.probe.audio else 0)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as it is shown."""
        size = self.probe.width, self.probe.height
        return size[::-1] if 45 < self.probe.rotation % 180 < 135 else size

    @property
    def fps(self) -> float:
        """Frames a second that are worth keeping."""
        fps = self.probe.frames_per_s or 30.0
        if not self.steady:  # it is made even, without losing the fast parts
            fast = MAX_FPS if fps > 30 else 30.0 if fps > 10 else max(3 * fps, 5)
            fps = min(self.probe.ticks_per_s, fast)
        return min(fps, MAX_FPS)

    @property
    def steady(self) -> bool:
        """Whether each second has as many frames."""
        ticks = self.probe.ticks_per_s
        return not ticks or abs((self.probe.frames_per_s or 0) - ticks) <= ticks / 20


class Plan(NamedTuple):
    """What a video is encoded to."""

    width: int
    height: int
    video_bps: int
    sound_kbps: int  # 0 for none
    # Whether the bits are enough for all that the source has; then quality decides.
    ample: bool

    @property
    def short_side(self) -> int:
        return min(self.width, self.height)


def plan(source: Source, limit_bytes: float) -> Plan:
    """The best video of a source that takes about so many bytes."""
    total_bps = limit_bytes * 8 / source.length_s
    sound_kbps = sound_for(source, total_bps)
    video_bps = total_bps - sound_kbps * 1000 - source.index_bps
    # Even with a large index, the picture gets a quarter of the bits.
    video_bps = max(video_bps, total_bps / 4)
    enough = source.video_bps * NEEDS.get(source.probe.video, 1.0)
    sizes = sizes_of(*source.size)
    size = next(
        (
            (width, height)
            for width, height in sizes
            if fits_level(width, height, source.fps)
            and (video_bps >= min(GOOD_BPP * width * height * source.fps, 0.9 * enough))
        ),
        sizes[-1],
    )
    return Plan(*size, possible(video_bps), sound_kbps, video_bps >= enough)


def possible(bps: float) -> int:
    """The nearest number of bits a second that the encoder takes."""
    return int(min(max(bps, MIN_BPS), MAX_BPS))


def sound_for(source: Source, total_bps: float) -> int:
    """The kbit/s of the sound, about a sixth of all; 0 if there is none."""
    if not source.probe.audio:
        return 0
    most = max(total_bps / 6, min(total_bps / 3, 32_000)) / 1000
    most = min(most, max(source.audio_bps * 1.1 / 1000, SOUND_KBPS[-1]))
    return next((one for one in SOUND_KBPS if one <= most), SOUND_KBPS[-1])


def sizes_of(width: int, height: int) -> list[tuple[int, int]]:
    """A picture's own size and the smaller ones, with even sides."""
    short = min(width, height)
    sides = [short, *(side for side in SHORT_SIDES if side < 0.95 * short)]
    return [(even(width * s / short), even(height * s / short)) for s in sides]


def even(length: float) -> int:
    """The even number at or below, at least 2."""
    return max(int(length) // 2 * 2, 2)


def fits_level(width: int, height: int, fps: float) -> bool:
    blocks = -(-width // 16) * -(-height // 16)
    return blocks <= MAX_BLOCKS and blocks * fps <= MAX_BLOCKS_S


def parts_needed(source: Source, limit_bytes: int) -> int:
    """How many parts look acceptable; 1 for one that need not be split."""
    least_bps = 24_000 if source.probe.audio else 0.0
    if source.probe.video:
        width, height = sizes_of(*source.size)[-1]
        needs = NEEDS.get(source.probe.video, 1.0)
        least_bps += min(
            LEAST_BPP * width * height * source.fps, source.video_bps * needs
        )
        least_bps += source.index_bps
    return max(-int(-least_bps * source.length_s // (limit_bytes * SHARE * 8)), 1)
