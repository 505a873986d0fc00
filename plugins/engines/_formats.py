"""Chooses the format of a video: the best one that can be posted as it is, or else the
smallest one from which a good one can be made.

Both engines use this. A format is a dictionary with yt-dlp's keys; none of its values
can be trusted.
"""

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from bossbot_plugins._plan import GOOD_BPP, SHORT_SIDES

from bossbot import Request

Format = dict[str, Any]
Ask = Callable[[Format], float | None]

MAX_BYTES, MAX_SECONDS = 2.0**50, 10.0**6  # more is nonsense
# The numbers of a format and the most that each may be; what counts a preference may be
# below zero.
NUMBERS = {
    **dict.fromkeys(("filesize", "filesize_approx"), MAX_BYTES),
    **dict.fromkeys(("tbr", "vbr", "abr"), 10.0**7),  # in 1,000 bits a second
    **dict.fromkeys(("width", "height", "asr"), 10.0**6),
    **dict.fromkeys(("fps", "audio_channels", "aspect_ratio"), 10.0**4),
    "duration": MAX_SECONDS,
}
PREFERENCES = ("preference", "quality", "language_preference", "source_preference")
DEFAULT, OTHER, DESCRIBED = 10, -1, -10  # languages: the preferences that yt-dlp gives
BROKEN = -10  # from here down a site's extractor says that a format hardly works
MAX_ASKED = 6  # formats of one video whose size the site is asked for
ASK_S = 5.0  # for one answer
MAX_LIST_BYTES = 2**21  # of a playlist that is read for its length
MAX_FORMATS = 200  # of a kind that are compared
MAX_SOUNDS = 12  # that a picture is tried with

GOOD_SIDE = 720  # for formats of unknown size
GOOD_SOURCE = 480  # a larger source makes a video that must shrink hardly better
LEAST_SIDE = 240  # of a picture that is posted where a better one can be made
GOOD_SOUND_KBPS = 96
SOUND_KBPS = 128  # of a video that is re-encoded
SMOOTH = 33  # more frames a second than this are an advantage

PLAYING_SOUND = ("mp4a", "aac", "mp3", "opus", "vorbis", "flac", "wav", "pcm")


class Wanted(NamedTuple):
    """The limits for a choice."""

    target_bytes: int = 0  # what can be posted; 0 for any
    max_bytes: int = 0  # what may be fetched; 0 for any
    side: int = 0  # the most that the picture's shorter side may have; 0 for any
    sound_only: bool = False
    ffmpeg: bool = True  # picture and sound can be joined, and a video re-encoded
    sorted_best: bool = (
        False  # the owner has a sorting of his own: the last is the best
    )


def wanted(request: Request) -> Wanted:
    """The limits of a request."""
    quality = str(request.options.get("quality", ""))
    return Wanted(
        request.target_bytes,
        request.max_file_bytes,
        int(quality) if quality.isdecimal() and len(quality) < 6 else 0,
        quality == "audio",
        "ffmpeg" in request.programs,
        bool(request.engine_options.get("format_sort")),
    )


def selector(
    engine: Any, request: Request, video: Format, info: Callable[..., None]
) -> Callable[[Any], Any]:
    """A format selector for yt-dlp; ``info`` gets the fact if one was chosen only to
    fit."""
    want = wanted(request)
    both, one = map(engine.build_format_selector, ("bv*+ba", "b*"))

    def select(context: dict[str, Any]) -> Iterator[Format]:
        formats = list(context["formats"])
        ask = partial(_asked, engine, formats)
        for parts in choose(formats, want, seconds_of(video, formats), ask):
            select = both if len(parts) > 1 else one
            # It tries those of which it is not sure.
            if found := next(iter(select({**context, "formats": list(parts)})), None):
                info(**shrunk(parts, formats, want, seconds_of(video, formats)))
                yield found
                return

    return select


def shrunk(
    parts: Sequence[Format],
    formats: Sequence[Format],
    want: Wanted,
    length_s: float | None,
) -> dict[str, float]:
    """The shorter sides of the choice and of the best within the quality, as facts
    to report; none if the best was not too large, or the other is as well."""
    best = max(_candidates(formats, want), key=lambda one: side_of(one.picture) or 0)
    sides = side_of(parts[0]) or 0, side_of(best.picture) or 0
    sizes = Choice(tuple(parts), ()).bytes(length_s), best.bytes(length_s)
    if want.sound_only or not want.target_bytes or not 0 < sides[0] < sides[1]:
        return {}
    if (sizes[0] or 0) > want.target_bytes or (sizes[1] or 0) <= want.target_bytes:
        return {}
    return {"side": sides[0], "best_side": sides[1]}


def _asked(engine: Any, formats: Sequence[Format], one: Format) -> float | None:
    """How large a format is by its site: the length of a file, or that of a playlist in
    seconds, from which the sizes of all formats in HLS follow."""
    from yt_dlp.networking import Request as Asked
    from yt_dlp.networking.exceptions import RequestError

    in_hls = _in_hls(one)
    if not in_hls and (one.get("protocol") not in ("http", "https")):
        return None
    how = {"headers": one.get("http_headers") or {}, "extensions": {"timeout": ASK_S}}
    with contextlib.suppress(RequestError, OSError, ValueError, LookupError):
        method = "GET" if in_hls else "HEAD"
        with engine.urlopen(Asked(one["url"], method=method, **how)) as answer:
            if not in_hls:
                headers = answer.headers
                kind = str(headers.get("Content-Type", "")).startswith("text/")
                coded = headers.get("Content-Encoding")
                return None if kind or coded else number(headers.get("Content-Length"))
            told, length_s = measured(answer.read(MAX_LIST_BYTES).decode("utf-8"))
        if length_s:
            for other in filter(_in_hls, formats):
                other["filesize_approx"] = bytes_of(other, length_s)
        return told or bytes_of(one, length_s)
    return None


def measured(playlist: str) -> tuple[float | None, float | None]:
    """The bytes and the seconds of a list of segments; None where they are missing."""
    if "#EXT-X-ENDLIST" not in playlist:
        return None, None
    sizes = re.findall(r"^#EXT-X-BYTERANGE:(\d{1,15})", playlist, re.MULTILINE)
    lengths = re.findall(r"^#EXTINF:(\d{1,9}(?:\.\d+)?)", playlist, re.MULTILINE)
    told = sum(map(int, sizes)) if len(sizes) == len(lengths) else None
    return number(told), number(sum(map(float, lengths)), MAX_SECONDS)


def sounds_of(playlist: str) -> list[dict[str, str]]:
    """The attributes of the sounds that an HLS master has in lists of their own."""
    from yt_dlp.utils import parse_m3u8_attributes

    lines = re.findall(r"^#EXT-X-MEDIA:.*", playlist, re.MULTILINE)
    media = map(parse_m3u8_attributes, lines)
    return [one for one in media if one.get("TYPE") == "AUDIO" and one.get("URI")]


def mark_sounds(playlist: str, formats: Sequence[Format]) -> None:
    """Mark the sounds of an HLS master that are in the default language."""
    sounds = sounds_of(playlist)
    preferences = dict[tuple[Any, Any], int]()
    for one in sounds:
        name = one.get("NAME"), one.get("LANGUAGE")
        first = one.get("LANGUAGE") == sounds[0].get("LANGUAGE")
        preference = 0 if first else OTHER
        if "describes-video" in one.get("CHARACTERISTICS", ""):
            preference = DESCRIBED
        elif one.get("DEFAULT") == "YES":
            preference = DEFAULT
        preferences.setdefault(name, preference)
    for form in formats:
        name = form.get("format_note"), form.get("language")
        if form.get("vcodec") == "none" and name in preferences:
            form["language_preference"] = preferences[name]


def mark_streams(mpd: Any, formats: Sequence[Format], mpd_id: str | None) -> None:
    """Add facts from a DASH manifest that yt-dlp leaves out: the streams' length in
    seconds and size, and the main sound."""
    from yt_dlp.utils import parse_duration

    length_s = number(parse_duration(mpd.get("mediaPresentationDuration")))
    live = mpd.get("type") == "dynamic"
    known = dict[str, Format]()
    languages = list[Any]()
    for group in mpd.findall(".//{*}AdaptationSet"):
        roles = {role.get("value") for role in group.findall("{*}Role")}
        is_sound = "audio" in (group.get("contentType") or group.get("mimeType") or "")
        languages += [group.get("lang")] if is_sound else []
        preference = 0 if languages[:1] == [group.get("lang")] else OTHER
        if roles & {"description", "commentary", "enhanced-audio-intelligibility"}:
            preference = DESCRIBED
        elif "main" in roles:
            preference = DEFAULT
        for stream in group.findall("{*}Representation"):
            size = number(stream.get("FBContentLength"))
            facts = {"duration": length_s, "filesize": size}
            sound = "audio" in (stream.get("mimeType") or "") or is_sound
            facts |= {"language_preference": preference} if sound else {}
            known.setdefault(str(stream.get("id")), facts)
    for form in formats:
        form |= {"is_live": True} if live else {}
        name = str(form.get("format_id")).removeprefix(f"{mpd_id}-" if mpd_id else "")
        for key, value in known.get(name, {}).items():
            if value is not None and form.get(key) is None:
                form[key] = value


class Choice(NamedTuple):
    """One format, or a picture and a sound that will be joined."""

    parts: tuple[Format, ...]
    place: tuple[int, ...]  # in the order that yt-dlp gives the formats

    @property
    def picture(self) -> Format:
        return self.parts[0]

    @property
    def sound(self) -> Format:
        return self.parts[-1]

    def unsized(self, duration_s: float | None) -> list[Format]:
        """The parts whose size is not known. The rate of a picture in HLS includes that
        of its sound."""
        parts = self.parts
        if len(parts) > 1 and all(map(_in_hls, parts)):
            parts = parts[:1]
        return [part for part in parts if bytes_of(part, duration_s) is None]

    def bytes(self, duration_s: float | None) -> float | None:
        """Its size, None if that is not known."""
        if self.unsized(duration_s):
            return None
        return sum(bytes_of(part, duration_s) or 0 for part in self.parts)


def tidy(info: Format, formats: Any) -> None:
    """Make numbers of what should be numbers, and drop those that make no sense."""
    for one in [info, *(formats if isinstance(formats, list) else ())]:
        for name, most in NUMBERS.items():
            if one.get(name) is not None:
                one[name] = number(one[name], most)
        for name in PREFERENCES:
            if one.get(name) is not None:
                value = number(one[name], MAX_BYTES, -MAX_BYTES)
                one[name] = value if value is None else int(value)


def number(value: Any, most: float = MAX_BYTES, least: float = 0) -> float | None:
    """A number between these, also from a text; None for anything else, and for 0 where
    it is the least."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = value if isinstance(value, int) else float(value)
        known = math.isfinite(found) and least <= found <= most
    except (ValueError, OverflowError):
        return None
    return found if known and (found or least) else None


def bytes_of(one: Format, duration_s: float | None) -> float | None:
    """The size of a format: its own, or by its bits a second."""
    told = number(one.get("filesize")) or number(one.get("filesize_approx"))
    if told:
        return told
    parts = number(one.get("vbr")), number(one.get("abr"))
    kbps = number(one.get("tbr")) or sum(part or 0 for part in parts)
    return kbps * 125 * duration_s if kbps and duration_s else None


def seconds_of(info: Format, formats: Sequence[Format]) -> float | None:
    """The length of a video, from itself or one of its formats."""
    for one in [info, *formats]:
        if found := number(one.get("duration"), MAX_SECONDS):
            return found
    for one in formats:
        pieces = one.get("fragments") or ()
        lengths = [number(p.get("duration"), MAX_SECONDS) or 0 for p in pieces]
        if total := number(sum(lengths), MAX_SECONDS):
            return total
    return None


def choose(
    formats: Sequence[Format],
    want: Wanted,
    duration_s: float | None = None,
    ask: Ask = lambda one: None,
) -> Iterator[tuple[Format, ...]]:
    """Yield what to fetch, the best first: one format, or a picture and its sound.

    Args:
        formats: in yt-dlp's order, the best last.
        ask: the size of a format by its site; None if the site does not give it either.
    """
    choices = _candidates(formats, want)
    best_language = max((_language(c) or 0 for c in choices), default=0)
    asked = set[int]()

    def value(choice: Choice, hope: bool) -> tuple[Any, ...]:
        size = choice.bytes(duration_s)
        hopeful = hope and any(id(part) not in asked for part in choice.parts)
        fits = _fits(want, size, hopeful)
        return _value(want, duration_s, choice, size, fits, best_language)

    while choices:
        hope = len(choices) > 1 and bool(want.target_bytes) and len(asked) < MAX_ASKED
        best = max(choices, key=lambda choice: value(choice, hope))
        new = [one for one in best.unsized(duration_s) if id(one) not in asked]
        if hope and new:
            asked |= set(map(id, new))
            for part in new:
                part["filesize_approx"] = number(ask(part))
            continue
        yield best.parts
        choices.remove(best)


def _candidates(formats: Sequence[Format], want: Wanted) -> list[Choice]:
    """All that could be fetched: with sound if there is any, within the quality or else
    of the smallest picture, and not larger than allowed, unless everything is."""
    placed = [c for c in enumerate(formats) if not c[1].get("has_drm") or _maybe(c[1])]
    sounds = [c for c in placed if _has(c[1], "a") and not _has(c[1], "v")]
    whole = [c for c in placed if _has(c[1], "a") and _has(c[1], "v")]
    silent = [c for c in placed if not _has(c[1], "a") and _has(c[1], "v")]
    sounds, whole, silent = map(_some, (sounds, whole, silent))
    if want.sound_only and (sounds or whole):
        return [Choice((one,), (place,)) for place, one in sounds or whole]
    choices = [Choice((one,), (place,)) for place, one in whole]
    if want.ffmpeg and sounds:
        some = _few(sounds)
        choices += [
            Choice((picture, sound), (place, other))
            for place, picture in silent
            for other, sound in some
        ]
    choices = choices or [Choice((one,), (place,)) for place, one in silent or sounds]
    if want.side and choices:
        smallest = min(side_of(c.picture) or 0 for c in choices)
        most = max(want.side, smallest)
        choices = [c for c in choices if (side_of(c.picture) or 0) <= most]
    return choices


def _maybe(one: Format) -> bool:
    return bool(one["has_drm"] == "maybe")


def _some(placed: list[tuple[int, Format]]) -> list[tuple[int, Format]]:
    """Not too many of them, from the smallest to the largest."""
    if len(placed) <= MAX_FORMATS:
        return placed

    def size(pair: tuple[int, Format]) -> tuple[float, float]:
        return side_of(pair[1]) or 0, _kbps(pair[1])

    step = (len(placed) - 1) / (MAX_FORMATS - 1)
    rising = sorted(placed, key=size)
    return [rising[round(number * step)] for number in range(MAX_FORMATS)]


def _few(sounds: list[tuple[int, Format]]) -> list[tuple[int, Format]]:
    """The sounds that may be the best for a picture: of each language and codec the
    best and the smallest one, most wanted first."""

    def language(one: Format) -> tuple[float, float]:
        return one.get("language_preference") or 0, one.get("source_preference") or 0

    best = max(language(one) for _, one in sounds)
    same = [pair for pair in sounds if language(pair[1]) == best]
    kept = dict[int, Format]()
    for plays in (True, False):
        of_kind = [pair for pair in same if _is_aac(pair[1]) == plays]
        by_rate = sorted(of_kind, key=lambda pair: (_kbps(pair[1]), pair[0]))
        kept |= dict(by_rate[:1]) | dict(by_rate[-MAX_SOUNDS // 2 + 1 :])
    return list(kept.items())


# What a choice is worth: the larger, the better


def _value(
    want: Wanted,
    duration_s: float | None,
    choice: Choice,
    size: float | None,
    fits: int,
    best_language: float,
) -> tuple[Any, ...]:
    sound, sound_kbps, source = choice.sound, 0.0, 0
    if want.sound_only:
        fits = 0 if _has(sound, "v") else fits
        worth = _of_sound(want, sound, size, fits)
        source = sound.get("source_preference") or 0
    else:
        fits, worth = _of_video(want, duration_s, choice, size, fits)
        sound_kbps = _kbps(sound) if fits else -_kbps(sound)
    within = not want.max_bytes or (size or 0) <= want.max_bytes
    worth = worth if within else (-(size or 0),)
    preference = choice.picture.get("preference")
    preference = -1 if preference is None else preference
    language = _language(choice)
    return (
        preference > BROKEN,
        within,
        0 if language is None else language - best_language,
        source,
        fits,
        *(() if want.sorted_best and fits else (preference, *worth)),
        sound_kbps,
        choice.place,
    )


def _of_video(
    want: Wanted,
    duration_s: float | None,
    choice: Choice,
    size: float | None,
    fits: int,
) -> tuple[int, tuple[Any, ...]]:
    """Whether it fits and is worth fetching for that, and its worth."""
    picture = choice.picture
    side, plays = side_of(picture) or 0, _plays(choice, want)
    fps = number(picture.get("fps"), 10**4) or 30
    good = _good_side(want, duration_s, picture, fps)
    if want.ffmpeg and 0 < side < LEAST_SIDE and good >= GOOD_SOURCE:
        fits = 0  # a larger one makes a better video
    if not fits:
        large = min(side, good, GOOD_SOURCE) if want.ffmpeg else 0
        return 0, (large, _is_sdr(picture), -(size or 0), plays)
    useful = GOOD_SIDE if fits == 1 else good if not plays else side
    usable = min(side, useful) - max(side - useful, 0) / 10**6
    sharp, kbps = picture.get("quality") or 0, _kbps(picture)
    return fits, (usable, fps > SMOOTH, _is_sdr(picture), plays, sharp, kbps)


def _of_sound(
    want: Wanted, sound: Format, size: float | None, fits: int
) -> tuple[Any, ...]:
    """A format that has a picture, too, is only larger."""
    kbps = (number(sound.get("abr")) or 0) if _has(sound, "v") else _kbps(sound)
    if fits:
        return _sound_plays(sound, want), kbps
    good = kbps >= GOOD_SOUND_KBPS or (not kbps and (side_of(sound) or 360) >= 360)
    return good, -(size if size is not None else (side_of(sound) or 0)), kbps


def _fits(want: Wanted, size: float | None, hopeful: bool) -> int:
    """2 for what fits, or may yet be found to; 1 if that is unknown; 0 for too large."""
    if not want.target_bytes or (size is None and hopeful):
        return 2
    if size is None:
        return 1
    return 2 if size <= want.target_bytes else 0


def _good_side(
    want: Wanted, duration_s: float | None, picture: Format, fps: float
) -> int:
    """The shorter side that a video of this length would be re-encoded to."""
    if not want.target_bytes or not want.ffmpeg:
        return SHORT_SIDES[0] if want.ffmpeg else 0
    if not duration_s:
        return GOOD_SIDE
    side, other = (number(picture.get(name), 10**6) for name in ("width", "height"))
    shape = max(side, other) / min(side, other) if side and other else 16 / 9
    bits_s = want.target_bytes * 8 / duration_s - SOUND_KBPS * 1000
    enough = (s for s in SHORT_SIDES if bits_s >= GOOD_BPP * s * s * shape * fps)
    return next(enough, SHORT_SIDES[-1])


def side_of(one: Format) -> float | None:
    """The shorter side of a picture in pixels, None if it is not known."""
    sides = [number(one.get(name), 10**6) for name in ("width", "height")]
    return min((side for side in sides if side), default=None)


def _has(one: Format, kind: str) -> bool:
    """Whether a format has sound (a) or a picture (v), as far as is known."""
    return one.get(f"{kind}codec") != "none"


def _kbps(one: Format) -> float:
    rates = (number(one.get(name)) for name in ("tbr", "abr", "vbr"))
    return next(filter(None, rates), None) or 0


def _language(choice: Choice) -> float | None:
    return choice.sound.get("language_preference")


def _in_hls(one: Format) -> bool:
    return str(one.get("protocol") or "").startswith("m3u8")


def _is_sdr(one: Format) -> bool:
    return one.get("dynamic_range") in (None, "", "SDR")


def _is_aac(one: Format) -> bool:
    return str(one.get("acodec") or "").startswith(("mp4a", "aac"))


def _sound_plays(one: Format, want: Wanted) -> bool:
    codec = str(one.get("acodec") or "").lower()
    placed = want.ffmpeg or one.get("ext") not in ("webm", "mka", "ts")
    return placed and (not codec or codec.startswith(PLAYING_SOUND))


def _plays(choice: Choice, want: Wanted) -> int:
    """2 for what plays everywhere as it is: H.264 and AAC in mp4; 1 for what may; 0 for
    what must be re-encoded."""
    picture, sound = choice.picture, choice.sound
    codec = str(picture.get("vcodec") or "").lower()
    pieces = str(picture.get("protocol") or "").startswith(("m3u8", "http_dash"))
    if not _is_sdr(picture) or (pieces and not want.ffmpeg):
        return 0
    if not codec and not sound.get("acodec"):
        return int(picture.get("ext") in ("mp4", "mov", "m4v", None))
    if not codec.startswith(("avc1", "avc3", "h264", "x264")):
        return int(not codec and picture.get("ext") == "mp4")
    if codec.startswith(("avc1.6e", "avc1.7a", "avc1.f4")):  # 10-bit, 4:2:2, 4:4:4
        return 0
    if _has(sound, "a") and sound.get("acodec") and not _is_aac(sound):
        return 1
    return 2 if picture.get("ext") in ("mp4", "m4v", None) and not pieces else 1
