"""Reads the boxes of an mp4: whether it is whole, and whether it plays anywhere.

ffprobe finds out more, but its process takes longer to start than this takes in all,
and it does not show whether the index is in front.
"""

import contextlib
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from bossbot_plugins._media import FIRST_BOXES, read_box

MAX_BOXES = 50_000  # of a file in fragments
MAX_INDEX_BYTES = 64 * 2**20
MAX_TRACKS = 100
AT_ONCE = 2**16  # numbers; while it compares them, Python does nothing else
LOOKS = 16  # places where a picture should be, from the first to the last
PROFILES = (66, 77, 100)  # of H.264: baseline, main, high; all 8 bits and 4:2:0
MAX_LEVEL = 52  # 5.2
AAC = (2, 5, 29)  # object types: LC, and HE with one or two tools


class Track(NamedTuple):
    """A stream of an mp4."""

    kind: str  # "vide", "soun", or another handler
    codec: str  # "avc1", "mp4a"...
    plays: bool  # wherever H.264 and AAC do
    first: tuple[int, int] = (0, 0)  # its first sample: where, and how many bytes
    last: int = 0  # where the last of its pieces begins
    looks: Sequence[int] = ()  # where some of its pieces begin
    width: int = 4  # bytes of the numbers before the units of H.264


class Mp4(NamedTuple):
    """What the boxes of a file say."""

    brand: str
    whole: bool  # nothing that they promise lies behind its end
    true: bool  # where its index says that a picture is, there is one
    in_front: bool  # the index comes before what it is of
    fragmented: bool
    tracks: list[Track]

    @property
    def plays(self) -> bool:
        """Whether it is a video that plays anywhere, as it is."""
        shown = [one for one in self.tracks if one.kind in ("vide", "soun")]
        pictures = sum(one.kind == "vide" for one in shown)
        fine = self.whole and self.in_front and not self.fragmented
        return fine and self.brand != "qt  " and pictures == 1 and all_play(shown)

    @property
    def sounds(self) -> bool:
        """The same for sound without a picture."""
        shown = [one for one in self.tracks if one.kind in ("vide", "soun")]
        sound = bool(shown) and all(one.kind == "soun" for one in shown)
        return self.whole and not self.fragmented and sound and all_play(shown)


def all_play(tracks: list[Track]) -> bool:
    return all(one.plays for one in tracks)


def read_mp4(path: Path) -> Mp4 | None:
    """None for a file that has no such boxes."""
    with path.open("rb") as file, contextlib.suppress(ValueError, struct.error):
        if file.read(8)[4:] in FIRST_BOXES:
            return _read(file)
    return None


def _read(file: BinaryIO) -> Mp4 | None:
    end = file.seek(0, 2)
    brand, index, names, whole = "", b"", list[bytes](), True
    for name, start, stop in _top(file, end):
        whole = whole and stop <= end
        names.append(name)
        if name == b"ftyp":
            file.seek(start)
            brand = file.read(4).decode("latin-1")
        if name == b"moov" and stop - start <= MAX_INDEX_BYTES:
            file.seek(start)
            index = file.read(stop - start)
    if not names:
        return None
    tracks = list[Track]()
    fragmented = b"moof" in names
    for name, body in _inside(memoryview(index)):
        fragmented = fragmented or name == b"mvex"
        if name == b"trak":
            tracks.append(_track(body))
        if len(tracks) > MAX_TRACKS:
            return None
    places = [names.index(one) for one in (b"moov", b"mdat") if one in names]
    return Mp4(
        brand=brand,
        # A photo has "meta" for its index.
        whole=whole
        and not {b"moov", b"meta"}.isdisjoint(names)
        and all(one.last < end for one in tracks),
        true=all(_is_there(file, one) for one in tracks if one.codec == "avc1"),
        in_front=places == sorted(places),
        fragmented=fragmented,
        tracks=tracks,
    )


def _top(file: BinaryIO, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The outer boxes: name, and where each one's content starts and should end."""
    start = 0
    for _ in range(MAX_BOXES):
        if not (box := read_box(file, start)):
            return
        name, body, size = box
        stop = start + size if size else end
        if stop < body or not name.isascii() or not name.decode().isprintable():
            return  # not ours; players, too, pass over what follows
        yield name, body, stop
        if stop >= end:
            return
        start = stop


def _inside(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The boxes in a box."""
    start = 0
    while start + 8 <= len(data):
        size, name, body = *struct.unpack_from(">I4s", data, start), start + 8
        if size == 1:
            (size,), body = struct.unpack_from(">Q", data, start + 8), start + 16
        stop = start + size if size else len(data)
        if stop < body:
            return
        yield name, data[body:stop]
        start = stop


def _is_there(file: BinaryIO, track: Track) -> bool:
    """Whether the first picture of H.264 is a row of units with lengths before them, and
    some others begin so."""
    width, (start, size) = track.width, track.first
    if not width < size <= MAX_INDEX_BYTES:
        return True
    file.seek(start)
    data, place = file.read(size), 0
    while place + width < len(data) and not data[place + width] & 0x80:
        place += width + int.from_bytes(data[place : place + width], "big")
    if place != len(data) == size:
        return False
    for place in track.looks:
        file.seek(place)
        head = file.read(width + 1)
        if len(head) > width and (not any(head[:width]) or head[width] & 0x80):
            return False
    return True


def _track(data: memoryview) -> Track:
    kind, codec, plays, first_size, width = "", "", False, 0, 4
    places: Sequence[int] = ()
    left = [data]
    while left:
        for name, body in _inside(left.pop()):
            if name in (b"mdia", b"minf", b"stbl"):
                left.append(body)
            elif name == b"hdlr" and not kind:  # another one may follow, of its data
                kind = bytes(body[8:12]).decode("latin-1")
            elif name == b"stsd":
                codec, plays, width = _codec(body)
            elif name == b"stsz":
                same, count = struct.unpack_from(">II", body, 4)
                sizes = _numbers("I", body[12:], min(count, 1))
                first_size = same or sum(sizes)
            elif name in (b"stco", b"co64"):
                (count,) = struct.unpack_from(">I", body, 4)
                places = _numbers("I" if name == b"stco" else "Q", body[8:], count)
    first = next(iter(places), 0), first_size
    pieces = (places[n : n + AT_ONCE] for n in range(0, len(places), AT_ONCE))
    last = max(map(max, pieces), default=0)
    looks = places[:: max(len(places) // LOOKS, 1)]
    looks = [*looks, *places[-1:]]
    return Track(kind, codec, plays, first, last, looks, width)


def _numbers(kind: str, data: memoryview, count: int) -> Sequence[int]:
    numbers = array(kind)
    length = min(count, len(data) // numbers.itemsize) * numbers.itemsize
    numbers.frombytes(data[:length])
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def _codec(data: memoryview) -> tuple[str, bool, int]:
    """The codec's name, whether it plays (several in one track do not), and the width of
    the lengths in it."""
    (count,) = struct.unpack_from(">I", data, 4)
    size, name = struct.unpack_from(">I4s", data, 8)
    entry = data[8 : 8 + size]
    plays, width = False, 4
    if name == b"avc1":
        config = next((b for n, b in _inside(entry[86:]) if n == b"avcC"), b"")
        plays = len(config) > 3 and config[1] in PROFILES and config[3] <= MAX_LEVEL
        width = (config[4] & 3) + 1 if len(config) > 4 else 4
    if name == b"mp4a":
        version = int.from_bytes(entry[16:18], "big")
        boxes = _inside(entry[36 + {1: 16, 2: 36}.get(version, 0) :])
        plays = _is_aac(bytes(next((b for n, b in boxes if n == b"esds"), b"")))
    return name.decode("latin-1"), plays and count == 1, width


def _is_aac(data: bytes) -> bool:
    """Whether an elementary stream descriptor is of AAC: ISO/IEC 14496-1, 7.2.6."""
    place = 4
    while place + 2 < len(data):
        tag, place = data[place], place + 1
        while data[place] & 0x80:  # its length takes up to four bytes
            place += 1
        place += 1
        if tag == 3:
            flags = data[place + 2]
            place += 3 + 2 * bool(flags & 0x80) + 2 * bool(flags & 0x20)
            if flags & 0x40:
                place += 1 + data[place]
        elif tag == 4:
            if data[place] != 0x40:
                return data[place] == 0x67  # the same of MPEG-2
            place += 13
        elif tag == 5:
            return data[place] >> 3 in AAC
        else:
            return False
    return False
