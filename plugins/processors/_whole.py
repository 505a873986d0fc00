"""Checks whether a file is whole: cut short, it may fit and even play, but not to its
end.

Each kind is checked as far as its structure allows; for others the answer is yes.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

from bossbot_plugins._media import adts_frame
from bossbot_plugins._mp4 import read_mp4

TAIL_BYTES = 2**17
MAX_PICTURE_BYTES = 64 * 2**20  # that is read at once
MAX_FRAME = 2**13  # bytes of sound
AT_ONCE = 2**20  # bytes; while it searches them, Python does nothing else
FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # of ASF
UNKNOWN = 0x7FFFFF00  # sizes from here on stand for "as much as comes"


def is_whole(path: Path) -> bool:
    """Whether nothing is missing at the end of a file, as far as can be seen."""
    if boxes := read_mp4(path):
        return boxes.whole
    with path.open("rb") as file:
        head = file.read(16)
        check = next(
            (one for start, one in CHECKS.items() if head[: len(start)] == start), None
        )
        if check in (_jpeg, _gif) and path.stat().st_size > MAX_PICTURE_BYTES:
            return True
        file.seek(0)
        return check is None or check(file)


def moves(path: Path, mime: str) -> bool:
    """Whether a picture moves; a large GIF hardly does otherwise."""
    if mime == "image/webp":
        with path.open("rb") as file:
            head = file.read(21)
        return head[12:16] == b"VP8X" and bool(head[20] & 2)
    if mime == "image/avif":
        return bool((boxes := read_mp4(path)) and boxes.tracks)
    if mime != "image/gif" or path.stat().st_size > MAX_PICTURE_BYTES:
        return mime in ("image/gif", "image/apng")
    return _gif_pictures(path.read_bytes()) > 1


def _jpeg(file: BinaryIO) -> bool:
    """To its end marker, not that of a preview in it."""
    data, place = file.read(), 2
    marker = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            return True  # decoders ignore anything between segments, and so do we
        kind = data[place + 1]
        if kind == 0xD9:
            return True
        if kind in (0xFF, 0x01, *range(0xD0, 0xD9)):
            place += 1 if kind == 0xFF else 2
            continue
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if kind == 0xDA:  # the picture itself, up to the next marker
            starts = range(place, len(data), AT_ONCE)
            found = (marker.search(data, at, at + AT_ONCE + 1) for at in starts)
            if not (end := next(filter(None, found), None)):
                return False
            place = end.start()
    return data[place : place + 2] == b"\xff\xd9"


def _png(file: BinaryIO) -> bool:
    end, place = file.seek(0, 2), 8
    while place + 12 <= end:
        file.seek(place)
        head = file.read(8)
        if head[4:] == b"IEND":
            return True
        place += 12 + int.from_bytes(head[:4], "big")
    return False


def _gif(file: BinaryIO) -> bool:
    return _gif_pictures(file.read()) >= 0


def _gif_pictures(data: bytes) -> int:
    """How many pictures a GIF has, -1 if it does not go to the end of a block; the end
    marker itself is often missing."""
    count = 0

    def colours(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 0x80 else 0

    def blocks(place: int) -> int:
        while data[place]:
            place += 1 + data[place]
        return place + 1

    try:
        place = 13 + colours(data[10])
        while place < len(data):
            kind = data[place]
            if kind == 0x21:
                place = blocks(place + 2)
            elif kind == 0x2C:
                count += 1
                place = blocks(place + 11 + colours(data[place + 9]))
            else:  # the end marker, or what nobody reads
                return count
    except IndexError:
        return -1
    return count if place == len(data) else -1


def _riff(file: BinaryIO) -> bool:
    head = file.read(8)
    size = int.from_bytes(head[4:8], "little")
    return not size or size >= UNKNOWN or 8 + size <= file.seek(0, 2) + 1


def _ogg(file: BinaryIO) -> bool:
    """To the end of its last page."""
    tail = _tail(file)
    place = tail.rfind(b"OggS")
    if place < 0 or place + 27 > len(tail):
        return place < 0  # bytes that nobody reads, or half a head
    lengths = tail[place + 27 : place + 27 + tail[place + 26]]
    body = place + 27 + tail[place + 26] + sum(lengths)
    return body <= len(tail)


def _matroska(file: BinaryIO) -> bool:
    """As long as the size of its segment says, unless that is not known."""
    head, end, place = file.read(4096), file.seek(0, 2), 0

    def number(place: int, keep: bool) -> tuple[int, int]:
        """A number of variable length, and where it ends."""
        width = 9 - head[place].bit_length()
        value = int.from_bytes(head[place : place + width], "big")
        return value if keep else value & (1 << 7 * width) - 1, place + width

    try:
        while place < len(head):
            kind, place = number(place, True)
            before = place
            size, place = number(place, False)
            if kind == 0x18538067:
                unknown = size == (1 << 7 * (place - before)) - 1
                return unknown or place + size <= end
            place += size
    except IndexError:
        pass
    return True


def _flv(file: BinaryIO) -> bool:
    """Its last tag is followed by that one's length."""
    end = file.seek(0, 2)
    file.seek(max(end - 4, 0))
    length = int.from_bytes(file.read(4), "big")
    if not 11 <= length <= end - 13:
        return False
    file.seek(end - 4 - length)
    head = file.read(4)
    return head[0] in (8, 9, 18) and int.from_bytes(head[1:], "big") + 11 == length


def _mp3(file: BinaryIO) -> bool:
    """As long as the first frame says, if that is one of facts (Xing, LAME)."""
    head, start = file.read(10), 0
    if head[:3] == b"ID3":
        start = 10 + sum(
            (byte & 127) << 7 * (3 - n) for n, byte in enumerate(head[6:10])
        )
    file.seek(start)
    frame = file.read(256)
    found = re.search(rb"Xing|Info", frame)
    if not found:
        return True
    flags = int.from_bytes(frame[found.end() : found.end() + 4], "big")
    place = found.end() + 4 + 4 * (flags & 1)
    size = int.from_bytes(frame[place : place + 4], "big") if flags & 2 else 0
    return start + size <= file.seek(0, 2) + 4096  # some count the tags, too


def _flac(file: BinaryIO) -> bool:
    """Whether its last frame is the last one of as many as it says."""
    head = file.read(42)
    most = int.from_bytes(head[10:12], "big")
    total = int.from_bytes(head[21:26], "big") & (1 << 36) - 1
    end = file.seek(0, 2)
    file.seek(max(end - 2 * TAIL_BYTES, 0))
    tail = file.read()
    if not total or not most:
        return True
    for found in reversed(list(re.finditer(rb"\xff[\xf8\xf9]", tail))):
        if (number := _flac_frame(tail[found.start() : found.start() + 16])) is None:
            continue
        fixed = tail[found.start() + 1] == 0xF8
        return total - (number * most if fixed else number) <= most
    return False


def _flac_frame(head: bytes) -> int | None:
    """The number of the frame, or of its first sample, that begins so."""
    if len(head) < 16 or head[2] >> 4 == 0 or head[2] & 15 == 15 or head[3] & 1:
        return None
    more = 8 - (head[4] ^ 0xFF).bit_length()  # ones at the front, as in UTF-8
    if more == 1 or more > 7:
        return None
    number = head[4] & (0xFF >> (more + 1)) if more else head[4]
    place = 4 + max(more, 1)
    for byte in head[5:place]:
        if byte >> 6 != 2:
            return None
        number = number << 6 | byte & 63
    place += {6: 1, 7: 2}.get(head[2] >> 4, 0)
    place += {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    crc = 0
    for byte in head[:place]:
        crc ^= byte
        for _ in range(8):
            crc = crc << 1 ^ (0x107 if crc & 0x80 else 0)
    return number if place < len(head) and crc == head[place] else None


def _asf(file: BinaryIO) -> bool:
    """As long as its properties say, unless it was sent live."""
    head = file.read(2**16)
    place = head.find(FILE_PROPERTIES) + 16
    if place < 16 or len(head) < place + 76:
        return True
    size = int.from_bytes(head[place + 24 : place + 32], "little")
    return bool(head[place + 72] & 1) or size <= file.seek(0, 2)


def _bmp(file: BinaryIO) -> bool:
    return int.from_bytes(file.read(6)[2:], "little") <= file.seek(0, 2)


def _tiff(file: BinaryIO) -> bool:
    """Whether its index is there; it is mostly the last thing in it."""
    head = file.read(8)
    order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
    return int.from_bytes(head[4:], order) < file.seek(0, 2)


def _transport_stream(file: BinaryIO) -> bool:
    """Unless a last packet begins and does not end."""
    end = file.seek(0, 2)
    file.seek(end - end % 188)
    return file.read(1) != b"G"


def _mpeg(file: BinaryIO) -> bool:
    """To the end of the last packet; what follows is read by nobody."""
    tail = _tail(file)
    place = tail.find(b"\0\0\1\xba")
    while place >= 0 and tail[place : place + 3] == b"\0\0\1":
        head = tail[place : place + 14]
        if head[3:4] == b"\xb9":
            break
        if len(head) < 14:
            return False
        if head[3] == 0xBA:
            place += 14 + (head[13] & 7) if head[4] & 0xC0 else 12
        else:
            place += 6 + int.from_bytes(head[4:6], "big")
        if place > len(tail):
            return False
    return True


def _framed(length_of: Callable[[bytes], int], file: BinaryIO) -> bool:
    """To the end of the last frame in a row of frames; ``length_of`` reads from a head how
    many bytes one has, 0 for what is none."""
    tail = _tail(file)
    for start in range(min(len(tail), MAX_FRAME)):
        place, count = start, 0
        while length := length_of(tail[place : place + 7]):
            place, count = place + length, count + 1
        if count >= 4:  # so many in a row are no accident
            rest = tail[place : place + 7]
            half_a_head = 0 < len(rest) < 7 and rest[:1] == tail[start : start + 1]
            return place <= len(tail) and not half_a_head
    return True


def _ac3_frame(head: bytes) -> int:
    """The bytes of the frame of AC-3 or E-AC-3 that begins so; 0 for none."""
    if len(head) < 6 or not head.startswith(b"\x0b\x77"):
        return 0
    if head[5] >> 3 > 10:  # E-AC-3
        return 2 * (((head[2] & 7) << 8 | head[3]) + 1)
    frequency, code = head[4] >> 6, head[4] & 63
    if frequency == 3 or code >= 2 * len(AC3_KBPS):
        return 0
    kbps = AC3_KBPS[code // 2]
    if frequency == 1:  # 44.1 kHz
        return 2 * (kbps * 96_000 // 44_100 + code % 2)
    return kbps * (4, 0, 6)[frequency]


AC3_KBPS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512,
            576, 640)  # fmt: skip


def _tail(file: BinaryIO) -> bytes:
    file.seek(max(file.seek(0, 2) - TAIL_BYTES, 0))
    return file.read()


CHECKS: dict[bytes, Callable[[BinaryIO], bool]] = {
    b"\xff\xd8\xff": _jpeg,
    b"\x89PNG\r\n\x1a\n": _png,
    b"GIF8": _gif,
    b"RIFF": _riff,
    b"OggS": _ogg,
    b"\x1a\x45\xdf\xa3": _matroska,
    b"FLV\x01": _flv,
    b"ID3": _mp3,
    b"\xff\xfb": _mp3,
    b"\xff\xf3": _mp3,
    b"fLaC": _flac,
    b"G": _transport_stream,
    b"\0\0\1\xba": _mpeg,
    b"\xff\xf1": partial(_framed, adts_frame),
    b"\xff\xf9": partial(_framed, adts_frame),
    b"\x0b\x77": partial(_framed, _ac3_frame),
    b"\x30\x26\xb2\x75": _asf,
    b"BM": _bmp,
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
}
