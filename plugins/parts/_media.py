"""Recognises files by their content: photos, videos, sound and plain text.

If the first bytes show only the container, or nothing, the answer is not sure, and
ffprobe is worth asking.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

HEAD_BYTES = 64 * 1024
MAX_BOXES = 500  # that are looked at in one file
MAX_LEAD_BYTES = 4 * 2**20  # of tags and zeros before the first frame of sound

# The endings of each kind of content, the usual one first.
SUFFIXES = {
    "image/jpeg": "jpg jpeg jpe jfif",
    "image/png": "png apng",
    "image/apng": "png apng",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/avif": "avif avifs",
    "image/heic": "heic heif hif",
    "image/tiff": "tif tiff",
    "image/bmp": "bmp",
    "image/jxl": "jxl",
    "video/mp4": "mp4 m4v mov",
    "video/x-m4v": "m4v mp4",
    "video/quicktime": "mov mp4 qt",
    "video/3gpp": "3gp 3g2 mp4",
    "video/webm": "webm mkv",
    "video/x-matroska": "mkv webm",
    "video/x-msvideo": "avi",
    "video/x-flv": "flv",
    "video/x-ms-wmv": "wmv asf",
    "video/mpeg": "mpg mpeg vob",
    "video/mp2t": "ts mts m2ts",
    "video/ogg": "ogv ogg ogm",
    "audio/mpeg": "mp3 mp2 mpga",
    "audio/mp4": "m4a m4b",
    "audio/aac": "aac",
    "audio/ogg": "ogg oga opus spx",
    "audio/flac": "flac",
    "audio/x-flac": "flac",
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/webm": "webm weba",
    "audio/x-matroska": "mka mkv",
    "audio/x-ms-wma": "wma asf",
    "audio/x-aiff": "aiff aif aifc",
    "audio/amr": "amr",
    "audio/x-caf": "caf",
    "audio/ac3": "ac3",
    "audio/eac3": "eac3 ec3",
    "audio/vnd.dts": "dts",
    "audio/basic": "au snd",
    "audio/x-w64": "w64",
    "audio/x-wavpack": "wv",
    "audio/x-tta": "tta",
    "audio/mp2t": "ts mts m2ts",
    "text/plain": "txt srt vtt lrc",
}
KINDS = ("image", "video", "audio", "text")  # that may be posted

# The boxes that an ISO media file (MP4, MOV, HEIC...) may begin with.
FIRST_BOXES = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"wide", b"pnot", b"sidx",
               b"emsg", b"prft", b"free", b"skip", b"uuid", b"meta", b"ssix")  # fmt: skip
# Brands only choose the ending of a file that is known to be a video.
BRANDS = {b"qt  ": "video/quicktime", b"M4V ": "video/x-m4v", b"M4VH": "video/x-m4v"}
# Beginnings of pages, scripts, lists and programs, which are never media.
NO_MEDIA = rb"\0*\s*([<\[{][\s!-~]{4}|#!|#EXT|ffconcat|@echo|MZ|PK[\3-\x08]|%PDF|Rar!)"

# The containers that ffprobe may open, all with streams of their own: a playlist could
# lead to other files, and any file could be called a picture.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,aac,mp3,ogg,flac,wav,flv,avi,mpeg,amr,"
    "aiff,asf,caf,ac3,eac3,dts,au,w64,wv,tta"
)
GUARD = ("-protocol_whitelist", "file", "-format_whitelist", FORMATS)
ENTRIES = (
    "format=format_name,probe_score:stream_disposition=attached_pic:"
    "stream=codec_type,codec_name,width"
)
# ffprobe's names of containers whose content it recognises better than we do.
PROBED = {
    "mov": ("video/mp4", "audio/mp4"),
    "matroska": ("video/x-matroska", "audio/x-matroska"),
    "mpegts": ("video/mp2t", "audio/mp2t"),
    "mpeg": ("video/mpeg", "audio/mpeg"),
    "ogg": ("video/ogg", "audio/ogg"),
    "asf": ("video/x-ms-wmv", "audio/x-ms-wma"),
    "avi": ("video/x-msvideo", "video/x-msvideo"),
    "flv": ("video/x-flv", "video/x-flv"),
    "mp3": ("audio/mpeg", "audio/mpeg"),
    "aac": ("audio/aac", "audio/aac"),
    "flac": ("audio/flac", "audio/flac"),
    "wav": ("audio/wav", "audio/wav"),
    "aiff": ("audio/x-aiff", "audio/x-aiff"),
    "amr": ("audio/amr", "audio/amr"),
    "caf": ("audio/x-caf", "audio/x-caf"),
    "ac3": ("audio/ac3", "audio/ac3"),
    "eac3": ("audio/eac3", "audio/eac3"),
    "dts": ("audio/vnd.dts", "audio/vnd.dts"),
    "au": ("audio/basic", "audio/basic"),
    "w64": ("audio/x-w64", "audio/x-w64"),
    "wv": ("audio/x-wavpack", "audio/x-wavpack"),
    "tta": ("audio/x-tta", "audio/x-tta"),
}
MIN_SCORE = 25  # of 100, of ffprobe; below it guesses


class Found(NamedTuple):
    """The type that a file seems to have."""

    mime: str  # "" for no media
    sure: bool = True  # else ffprobe may know better


def sniff(path: Path) -> Found:
    """The type of a file, by its content; for plain text, and for JPEG XL, which may
    begin with only two bytes, its ending counts, too."""
    import filetype  # here, since the start should not have to wait for it

    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        if is_text(head):
            plain = path.suffix.lower().lstrip(".") in SUFFIXES["text/plain"].split()
            return Found("text/plain" if plain else "")
        if found := _iso(file, head):
            return found
        bare = head.startswith(b"\xff\x0a") and path.suffix.lower() == ".jxl"
        if bare or head.startswith(b"\0\0\0\x0cJXL \r\n\x87\n"):
            return Found("image/jxl")
        kind = filetype.guess(head[:8192])
        mime = str(kind.mime) if kind else ""
        if head.startswith(b"OggS"):
            return _ogg(head)
        if mime in ("video/webm", "video/x-matroska"):
            return _matroska(mime, head)
        if not mime and is_transport_stream(head):
            return Found("video/mp2t", False)
        if re.match(NO_MEDIA, head):
            return Found("")
        if mime in ("", "audio/mpeg", "audio/aac"):
            sound = _sound(file, head)
            return Found(sound or mime, bool(sound))
    if mime.partition("/")[0] not in KINDS:
        return Found("")
    return Found(mime, mime != "video/x-ms-wmv")


def is_text(head: bytes) -> bool:
    """Whether this is plain text, and no page, script or list of other files."""
    with contextlib.suppress(UnicodeDecodeError):
        text = head.decode("utf-8", "strict" if len(head) < HEAD_BYTES else "ignore")
        return not re.search(r"[\x00-\x08\x0e-\x1f]|^\s*(<|#EXT|ffconcat)", text)
    return False


def suffix_for(mime: str, own: str) -> str:
    """The ending for a kind of content: its own one where it suits."""
    own, suiting = own.lower().lstrip("."), SUFFIXES.get(mime, "").split()
    if own in suiting:
        return own
    if suiting:
        return suiting[0]
    import filetype

    kind = filetype.get_type(mime=mime)
    return str(kind.extension) if kind else "bin"


def mime_of(name: str) -> str:
    """The type of one of our files, by the ending that we gave it."""
    own = name.lower().rpartition(".")[2]
    found = (mime for mime, suiting in SUFFIXES.items() if own in suiting.split())
    return next(found, "application/octet-stream")


# ISO media: a row of boxes, whatever the brand says


def read_box(file: BinaryIO, start: int) -> tuple[bytes, int, int] | None:
    """The head of the box at a place: name, where its content starts, and its size with
    the head, 0 for all that is left; None at the end of the file."""
    file.seek(start)
    if len(head := file.read(16)) < 8:
        return None
    size, name, body = int.from_bytes(head[:4], "big"), head[4:8], start + 8
    if size == 1:
        size, body = int.from_bytes(head[8:16], "big"), start + 16
    return name, body, size


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The boxes in a piece of a file: name, and where its content starts and ends."""
    for _ in range(MAX_BOXES):
        if start + 8 > end:  # which may be no place that a file can have
            return
        if not (box := read_box(file, start)):
            return
        name, body, size = box
        size = size or end - start
        stop = min(start + size, end)
        if stop < body or not re.fullmatch(rb"[\xa9 -~]{4}", name):
            return
        yield name, body, stop
        start += size


def _iso(file: BinaryIO, head: bytes) -> Found | None:
    if head[4:8] not in FIRST_BOXES:
        return None
    end = file.seek(0, 2)
    boxes = list(_boxes(file, 0, end))
    names = {name for name, _, _ in boxes}
    # Only a box of padding could be anything that has these letters there.
    if not names & {b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"meta"}:
        return None
    handlers: set[bytes] = set()
    codes = b""
    for name, start, stop in boxes:
        if name == b"meta":  # a photo; the boxes follow a version
            handlers |= {_handler(file, start + 4, stop)} & {b"pict"}
        if name in (b"meta", b"moov"):
            file.seek(start)
            codes += file.read(min(stop - start, HEAD_BYTES))
        if name == b"moov":
            handlers |= set(_tracks(file, start, stop))
    if b"pict" in handlers:
        avif = b"av01" in codes or head[8:12] in (b"avif", b"avis")
        return Found("image/avif" if avif else "image/heic")
    if b"vide" in handlers:
        brand = head[8:12] if head[4:8] == b"ftyp" else b""
        kind = "video/3gpp" if brand[:3] in (b"3gp", b"3g2") else "video/mp4"
        return Found(BRANDS.get(brand, kind))
    if b"soun" in handlers:
        return Found("audio/mp4")
    return Found("video/mp4", False)


def _tracks(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    """The kinds of a movie's tracks."""
    for name, first, last in _boxes(file, start, end):
        if name == b"trak":
            for inner, begin, stop in _boxes(file, first, last):
                if inner == b"mdia":
                    yield _handler(file, begin, stop)


def _handler(file: BinaryIO, start: int, end: int) -> bytes:
    """What the box "hdlr" among these says that they are for."""
    for name, first, _ in _boxes(file, start, end):
        if name == b"hdlr":
            file.seek(first + 8)
            return file.read(4)
    return b""


# Other containers


def _ogg(head: bytes) -> Found:
    if re.search(rb"\x80theora|\x01video\0|BBCD\0|OVP80", head):
        return Found("video/ogg")
    known = re.search(rb"\x01vorbis|OpusHead|Speex   |\x7fFLAC|\x01audio\0", head)
    return Found("audio/ogg", bool(known))


def _matroska(mime: str, head: bytes) -> Found:
    """By the names of its codecs, which stand in elements with the number 0x86."""
    if re.search(rb"\x86[\x81-\xff]V_[A-Z]", head):
        return Found(mime)
    sound = re.search(rb"\x86[\x81-\xff]A_[A-Z]", head)
    return Found(mime.replace("video", "audio")) if sound else Found(mime, False)


def is_transport_stream(head: bytes) -> bool:
    """Whether this is MPEG-TS: packets of 188 bytes, 192 with a time before each, or 204
    with a checksum behind it. The first one may be cut."""
    for size in (188, 192, 204):
        for start in range(size):
            marks = head[start : start + 5 * size : size]
            if marks == b"G" * 5 or (start in (0, 4) and marks in (b"GGG", b"GGGG")):
                return True
    return False


def _sound(file: BinaryIO, head: bytes) -> str:
    """ "audio/mpeg" or "audio/aac" for a row of such frames, which may come after a tag,
    zeros and other bytes; "" for anything else."""
    start = 0
    while head[:3] == b"ID3" and len(head) >= 10:
        size = sum((byte & 127) << 7 * (3 - n) for n, byte in enumerate(head[6:10]))
        start += 10 + size + (10 if head[5] & 16 else 0)
        file.seek(start)
        head = file.read(HEAD_BYTES)
    while head and not any(head) and start < MAX_LEAD_BYTES:
        start += len(head)
        file.seek(start)
        head = file.read(HEAD_BYTES)
    zeros = len(head) - len(head.lstrip(b"\0"))
    file.seek(start + zeros)
    head = file.read(2 * HEAD_BYTES)
    for found in re.finditer(rb"\xff(?=[\xe0-\xff])", head[:HEAD_BYTES]):
        for kind, length_of in (
            ("audio/mpeg", _mpeg_frame),
            ("audio/aac", adts_frame),
        ):
            place = found.start()
            for _ in range(4):  # so many in a row are no accident
                if not (length := length_of(head[place : place + 7])):
                    break
                place += length
            else:
                return kind
    return ""


def _mpeg_frame(head: bytes) -> int:
    """The length in bytes of the frame of MPEG sound that begins so; 0 for none."""
    if len(head) < 4 or head[0] != 255 or head[1] < 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)  # versions: 2.5, -, 2, 1
    rate, frequency, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    # Nobody has sound of layer 1, but programs have tables that look so.
    if version == 1 or layer in (1, 4) or rate in (0, 15) or frequency == 3:
        return 0
    step = frequency if version == 3 else frequency + 3
    hertz = (44100, 48000, 32000, 22050, 24000, 16000)[step] // (2 - (version > 0))
    kbps = KBPS[(version == 3, layer)][rate - 1]
    samples = 72 if layer == 3 and version != 3 else 144
    return samples * 1000 * kbps // hertz + padding


# By whether it is version 1, and the layer: the rates in kbit/s.
KBPS = {
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def adts_frame(head: bytes) -> int:
    """The length in bytes of the frame of AAC that begins so; 0 for none."""
    if len(head) < 7 or head[0] != 255 or head[1] & 0xF6 != 0xF0:
        return 0
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length > 7 and head[2] >> 2 & 15 < 13 else 0


# What ffprobe says


def probed_mime(answer: dict[str, Any], guess: str) -> str:
    """The kind of content by ffprobe's answer, in JSON; "" when it finds no media."""
    form = answer.get("format") or {}
    if int(form.get("probe_score") or 0) < MIN_SCORE:
        return ""
    video = audio = False
    for stream in answer.get("streams") or ():
        cover = (stream.get("disposition") or {}).get("attached_pic")
        known = stream.get("codec_name") not in (None, "", "unknown")
        if stream.get("codec_type") == "video" and known and not cover:
            video = video or bool(stream.get("width"))
        audio = audio or (stream.get("codec_type") == "audio" and known)
    if not video and not audio:
        return ""
    name = str(form.get("format_name") or "").partition(",")[0]
    mime = PROBED.get(name, ("", ""))[not video]
    # The doctype distinguishes WebM from Matroska; a brand, MP4 from its relatives.
    if guess and (guess.startswith("video") == video) and name in ("mov", "matroska"):
        return guess
    if guess == "video/webm":
        return "audio/webm"
    return mime or guess
