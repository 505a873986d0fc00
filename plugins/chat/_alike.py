"""Compares pictures and videos by their looks, however they were encoded.

ffmpeg, in its cage, makes a tiny gray picture of a file, or of three moments of a
video. dhash notes where it gets lighter to the right and downwards. Copies of a picture
differ in few of these bits: 2 % to 8 % if one is smaller, recompressed, brighter or has
a mark on it, and other pictures about 50 % (measured on 26 photos and drawings). A meme
with other words is 5 % away, so its text has to be compared, too.
"""

from collections.abc import Sequence
from typing import NamedTuple

from bossbot import Bench, MediaFile, _

SIZE = 12  # a hash has twice as many bits, squared
BITS = 2 * SIZE * SIZE
SIDE = SIZE + 1
FLAT = 12  # gray levels: a picture with fewer shows nothing that it could be known by
MOMENTS = (0.2, 0.5, 0.8)  # of a video's length
ALIKE = 0.1  # of the bits
MAX_TEXT = 500  # characters of a look; no honest one comes near
MAX_LENGTH_S = 1e9
GRAY = f"scale={SIDE}:{SIDE}:flags=area,format=gray"


class Look(NamedTuple):
    """The fingerprint of a file's looks; ``read_look`` reads its ``str``."""

    hashes: tuple[int, ...]  # one of a picture, those of ``MOMENTS`` of a video
    length_s: float = 0

    def __str__(self) -> str:
        return " ".join([f"{self.length_s:.2f}", *(f"{one:x}" for one in self.hashes)])


def read_look(text: str) -> Look:
    """The ``Look`` of a text. Raises ValueError for any other text."""
    if len(text) > MAX_TEXT:
        raise ValueError("that is no look")
    length, *hashes = text.split()
    look = Look(tuple(int(one, 16) for one in hashes), float(length))
    known = len(look.hashes) in (1, len(MOMENTS)) and 0 <= look.length_s < MAX_LENGTH_S
    if not known or not all(0 <= one < 2**BITS for one in look.hashes):
        raise ValueError("that is no look")
    return look


async def look_at(bench: Bench, file: MediaFile) -> Look | None:
    """The look of a picture or video; None for a flat one, for sound, and for files
    that ffmpeg cannot read.

    Raises:
        JobFailed: ffmpeg failed.
    """
    kind = file.mime.partition("/")[0]
    if kind not in ("image", "video"):
        return None
    length_s, times = 0.0, [0.0]
    if kind == "video":
        length_s = (await bench.probe(file)).duration_s or 0
        times = [length_s * moment for moment in MOMENTS]
    inputs: list[str | object] = []
    for at_s in times:
        inputs += [*(["-ss", f"{at_s:.3f}"] if at_s else []), "-i", file.path]
    count = len(times)
    steps = [f"[{n}:v]trim=end_frame=1,{GRAY}[g{n}]" for n in range(count)]
    row = "".join(f"[g{n}]" for n in range(count))
    join = f"{row}{f'vstack={count}' if count > 1 else 'null'}"
    path = bench.path("look.gray")
    await bench.ffmpeg(
        *inputs,  # type: ignore[arg-type]
        *("-filter_complex", f"{';'.join(steps)};{join}", "-frames:v", "1"),
        *("-f", "rawvideo", path),
        label=_("Comparing"),
    )
    grays = path.read_bytes()
    path.unlink(missing_ok=True)
    if len(grays) != count * SIDE * SIDE:
        return None
    frames = [grays[n * SIDE * SIDE :][: SIDE * SIDE] for n in range(count)]
    hashes = [
        hash_of(list(frame)) for frame in frames if max(frame) - min(frame) >= FLAT
    ]
    return Look(tuple(hashes), length_s) if len(hashes) == count else None


def hash_of(grays: Sequence[int]) -> int:
    """The hash of ``SIDE`` rows of as many grays."""
    import dhash  # brings Pillow, which is not needed elsewhere

    return int(dhash.dhash_int(list(grays), SIZE))


def distance(one: Look, other: Look) -> float:
    """From 0, the same, to 1; a video is compared moment by moment, and is as far away as
    its farthest one. 1 for a picture and a video, and for videos of other lengths."""
    longer, shorter = sorted((one.length_s, other.length_s), reverse=True)
    if len(one.hashes) != len(other.hashes) or longer - shorter > 0.5 + 0.01 * longer:
        return 1.0
    pairs = zip(one.hashes, other.hashes, strict=True)
    return max((a ^ b).bit_count() for a, b in pairs) / BITS
