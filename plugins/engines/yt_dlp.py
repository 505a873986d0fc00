"""Videos and sound from over 1,000 sites, and from web pages that contain them, by
yt-dlp."""

import contextlib
import functools
import io
import json
import os
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from bossbot_plugins._failures import (
    STATUS_CAUSES,
    Enough,
    first_cause,
    report_progress,
    retry_after_s,
    wait_asked_s,
)
from bossbot_plugins._patterns import finder, noting_needs
from bossbot_plugins._yt_dlp_guard import (
    fixed_options,
    guard_yt_dlp,
    leave_out,
    preferred_options,
    share_authorities,
    unexpanded,
)

from bossbot import (
    N_,
    Cause,
    Engine,
    JobFailed,
    Progress,
    Report,
    Request,
    hookimpl,
)

LINK = re.compile("https?://", re.IGNORECASE)
ADULT_AGE = 18  # years
# The largest cover of a sound in bytes, its first bytes by its kind, and the seconds
# for one.
MAX_COVER_BYTES, COVER_S = 5 * 2**20, 5.0
COVERS = {"jpg": b"\xff\xd8\xff", "png": b"\x89PNG", "webp": b"RIFF"}
# The classes whose ways to know a link are but their patterns.
PLAIN = ("InfoExtractor", "LazyLoadExtractor")
# What can be kept, and what can be made of it, the preferred one first.
SUBTITLES = ("srt", "vtt", "ttml", "dfxp")
KEEP = "keep_subtitles"  # the option of a job to have them in its language
MAX_SUBTITLES_BYTES = 2**20
LIVE = N_("That stream is still live. Try again when it has ended.")

# What a site's XML may raise.
NONSENSE = (SyntaxError, ValueError, LookupError, TypeError, AttributeError, OSError)

# Phrases of the sites, as extractors pass them on.
SAID = [
    (r"confirm your age|age.?(?:restrict|limit|gate|verif)|inappropriate", Cause.AGE),
    (r"geo.?(?:restrict|block)|your (?:country|region|location)", Cause.REGION),
    (r"private (?:video|account|post)|is private|members.only", Cause.PRIVATE),
    (r"not a bot|captcha|ip address is blocked", Cause.LOGIN),
    (r"log.?in|sign.?in|logged.in|account cookies|authenticat|password", Cause.LOGIN),
    (r"subscri(?:ber|ption)|premium|purchase|paid|registered users", Cause.LOGIN),
    (r"too many requests|rate.?limit|try again later", Cause.RATE_LIMITED),
    (r"DRM|no suitable extractor|only ffmpeg", Cause.UNSUPPORTED),
    (r"removed|deleted|terminated|suspended|no longer|unavailable", Cause.GONE),
    (r"(?:not|n.t) (?:be )?(?:found|available|exist)|expired", Cause.GONE),
]
# Phrases of yt-dlp and its libraries.
WORDS = [
    (r"larger than max-filesize|Errno 27|Cannot allocate memory", Cause.TOO_LARGE),
    (r"Errno 28|No space left", Cause.DISK_FULL),
    (r"redirect loop|\d redirects|not a valid URL", Cause.INVALID_URL),
    (r"timed ?out|timeout", Cause.TIMED_OUT),
    (r"file:// URLs are disabled|unsupported url scheme", Cause.NO_MEDIA),
    (r"unable to extract|failed to (?:extract|parse)", Cause.ENGINE_OUTDATED),
    (r"impersonat|challenge solving", Cause.ENGINE_OUTDATED),
    (
        r"no video formats|requested format|did not get any data|no media",
        Cause.NO_MEDIA,
    ),
    (r"^Postprocessing:|invalid data found", Cause.NO_MEDIA),
    (r"connection|resolve|certificate|unreachable|bytes read|too short", Cause.NETWORK),
    (r"fragment \d+ not found|giving up after|unable to download", Cause.NETWORK),
]


@hookimpl
def register_engines() -> list[Engine]:
    return [
        Engine("yt-dlp", version, warm, supports, download, True, single, (LIVE,)),
    ]


def version() -> str:
    from yt_dlp import version as module

    return str(module.__version__)


def warm() -> None:
    """Compile all extractors' patterns and rehearse a download. The extractors' modules
    are not imported: they take 20 MB, and only a site without an extractor needs all."""
    leave_out()
    from yt_dlp.globals import plugin_dirs
    from yt_dlp.networking import common

    plugin_dirs.value = []  # no engine plugins from elsewhere
    _table()
    # Loading the certificate authorities takes longer than a small download.
    common.make_ssl_context = functools.cache(common.make_ssl_context)
    video = Video(
        Request("", Path(), "", engine_options={"simulate": True, "format": "b"}),
        cast(Report, 0),
    )
    video.described = True
    with contextlib.redirect_stderr(io.StringIO()), _downloader(video) as engine:
        page = {"extractor": "warm", "webpage_url": "https://boss-bot.invalid/"}
        engine.process_ie_result({"id": "1", "url": "https://a.invalid/a.mp4", **page})
        generic = engine.get_info_extractor("Generic")
        generic._match_valid_url("")
        for find in (generic._og_search_title, generic._html_extract_title):
            find("<title>a</title>", default=None)  # compiles its patterns
        for handler in engine._request_director.handlers.values():
            handler._make_sslcontext()


def supports(url: str) -> bool:
    return _find(url) is not None


def single(url: str) -> bool:
    """Whether it is one video, as most extractors say themselves. Some only know sites
    that cannot be supported, and some patterns take the first word of any path."""
    found = _find(url)
    if found is None or found.ie_key().startswith("Known"):
        return False
    match = found._match_valid_url(url)
    end = match.end() if match else 0
    whole = re.match(r"/?(?:[?#]|$)", url[end:])
    path = urlsplit(url[:end]).path
    return bool(whole or re.search(r"\d", path)) and found.is_single_video(url) is True


@functools.lru_cache(maxsize=1)  # a child asks several times for its link
def _find(url: str) -> Any:
    """The extractor of its own for a link, or None."""
    if not LINK.match(url):
        return None
    candidates, asked, extractors, _ = _table()
    found = (number for number in candidates(url) if asked[number](url))
    return next((extractors[number] for number in found), None)


Table = tuple[
    Callable[[str], list[int]], list[Callable[[str], Any]], list[Any], dict[str, Any]
]


def _table() -> Table:
    """What finds the extractors that may know a link, what says that one is suitable,
    its compiled patterns or a method of its own, and side by side the extractor; without
    the generic one. Then all by their keys. Made once, and kept with the library: a
    child that touches every extractor copies much more memory."""
    from yt_dlp import extractor
    from yt_dlp.utils import variadic

    if not hasattr(extractor, "_boss_bot_tables"):
        asked, extractors = list[Callable[[str], Any]](), list[Any]()
        needed: list[re.Pattern[str] | None] = []
        with noting_needs() as needs:
            for ie in _extractors():
                if ie.ie_key() == "Generic" or ie._VALID_URL is False:
                    continue
                for ask in (ie.suitable, ie._match_valid_url):  # compile and keep it
                    ask("https://boss-bot.invalid/")
                ways = (ie._match_valid_url.__qualname__, ie.suitable.__qualname__)
                by_pattern, plain = (way.split(".")[0] in PLAIN for way in ways)
                compiled = vars(ie).get("_VALID_URL_RE")
                patterns = list(compiled or map(re.compile, variadic(ie._VALID_URL)))
                own: list[Callable[[str], Any]] = [one.match for one in patterns]
                if not by_pattern:
                    own = [ie.suitable]
                elif not plain:  # most have it to leave links to others
                    own = [_both(one, ie.suitable) for one in own]
                asked += own
                needed += patterns if by_pattern else [None]
                extractors += [ie] * len(own)
        by_key = {ie.ie_key(): ie for ie in _extractors()}
        find = finder(needed, needs)
        extractor._boss_bot_tables = find, asked, extractors, by_key
    return cast(Table, extractor._boss_bot_tables)


def _both(match: Callable[[str], Any], suitable: Any) -> Callable[[str], Any]:
    return lambda url: match(url) and suitable(url)


def _extractors() -> list[Any]:
    from yt_dlp.extractor import gen_extractor_classes

    return [ie for ie in gen_extractor_classes() if ie._ENABLED]


def download(request: Request, report: Report) -> None:
    from yt_dlp.utils import DownloadCancelled

    video = Video(request, report)
    guard_yt_dlp(request, report.info)
    # Extractors pass data to each other in the fragment; a member must not.
    url = request.url.partition("#__youtubedl_smuggle")[0]
    with _downloader(video) as engine:
        engine._ies = _table()[-1]  # to add each one takes longer than to download
        found = _find(url)
        try:
            engine.extract_info(url, ie_key=found.ie_key() if found else "Generic")
        except Enough as enough:
            video.failures += [enough.failure] if enough.failure else []
        except DownloadCancelled:  # at max_items
            pass
    video.finish()


class Video:
    """The state of the download, with the callbacks that the engine gets."""

    def __init__(self, request: Request, report: Report) -> None:
        self.request, self.report = request, report
        self.failures: list[JobFailed] = []
        self.warnings: list[str] = []
        self.described = False
        self.saved = 0
        self.later: list[Path] = []  # reported at the end
        self.led = False  # it was reported where the link leads
        self.subtitles = bool(request.options.get("subtitles"))  # were asked for
        self.items: int | None = None  # of a playlist, if it gives the number
        self.entries = 1  # that were found; one more than allowed is looked for
        self.part: list[float | None] = []  # of a clip: its start and end in seconds
        # Saves the cover of the current one beside its file, if there is one.
        self.cover: Callable[[Path], Path | None] = lambda path: None

    # The engine's `logger`:

    def debug(self, text: str) -> None:
        print(text, file=sys.stderr)
        if "larger than max-filesize" in text:
            self.failures.append(JobFailed(Cause.TOO_LARGE, text.strip()))

    info = debug

    def warning(self, text: str) -> None:
        print(text, file=sys.stderr)
        self.warnings.append(text)

    error = warning

    # Its hooks:

    def check(self, info: dict[str, Any], *, incomplete: Any = False) -> str | None:
        """Report the facts of the video; returns a reason to skip it, or None."""
        if info.get("is_live") or info.get("live_status") in ("is_live", "is_upcoming"):
            title = str(info.get("title"))
            self.failures.append(JobFailed(Cause.UNSUPPORTED, f"live: {title}", LIVE))
            return "it is live"
        # Called three times: for the entry of a playlist, for what its extractor
        # found, and for what will be fetched.
        if incomplete and incomplete is not True:
            self.describe(info)
            # ffmpeg would fetch only a part by itself; we cut the downloaded file.
            self.part = [info.pop(f"section_{end}", None) for end in ("start", "end")]
        return None

    def describe(self, info: dict[str, Any]) -> None:
        """Report the facts of the first video, or of the playlist around it."""
        self.entries = info.get("n_entries") or 1
        age = info.get("age_limit")
        adult = None if age is None else age >= ADULT_AGE
        if adult is not None and (adult or not self.described):  # one video is enough
            self.report.info(adult=adult)
        if self.described:
            return
        self.described = True
        is_list = self.entries > 1
        self.items = info.get("playlist_count") if is_list else 1
        date = str(info.get("upload_date") or "")
        if stamp := info.get("timestamp"):
            date = datetime.fromtimestamp(stamp, UTC).isoformat()
        facts = {
            "title": info.get("playlist_title") if is_list else info.get("title"),
            "uploader": info.get("playlist_uploader" if is_list else "uploader"),
            "date": re.sub(r"^(\d{4})(\d\d)(\d\d)$", r"\1-\2-\3", date),
            "text": "" if is_list else info.get("description"),
        }
        self.report.info(**{k: v for k, v in facts.items() if v}, items=self.items)

    def progress(self, now: dict[str, Any]) -> None:
        info = now.get("info_dict", {})
        done = now.get("downloaded_bytes") or 0
        total = now.get("total_bytes") or now.get("total_bytes_estimate")
        report_progress(
            self.request,
            self.report,
            Progress(
                str(info.get("title") or ""),
                int(done),
                int(total) if total else None,
                now.get("speed"),
                info.get("playlist_autonumber") or 1,
                self.items,
            ),
        )

    def done(self, path: str) -> None:
        request = self.request
        # ffmpeg will put it into the file.
        covered = (
            request.options.get("quality") == "audio" and "ffmpeg" in request.programs
        )
        if covered and (cover := self.cover(Path(path))):
            self.report.file(cover)
        self.report.file(Path(path))
        self.saved += 1
        self.warnings.clear()

    def failed(self, error: BaseException | None, message: str) -> None:
        self.failures.append(failure(self.request, error, message, self.warnings))
        self.warnings.clear()

    def finish(self) -> None:
        """Report how many items there are and which ones failed; raise JobFailed when
        none arrived."""
        if not self.saved:
            said = "\n".join(self.warnings)
            first = next(iter(self.failures), JobFailed(Cause.NO_MEDIA, said))
            raise first
        for one in self.failures:
            self.report.item_failed(one)
        for path in self.later:
            self.report.file(path)
        more = self.entries > self.request.max_items
        self.report.info(items=self.items, more=more)


def _downloader(video: Video) -> Any:
    """The engine, set up, still without extractors."""
    from yt_dlp import YoutubeDL
    from yt_dlp.postprocessor.ffmpeg import FFmpegPostProcessor
    from yt_dlp.utils import DownloadError

    class Downloader(YoutubeDL):  # type: ignore[misc]
        def trouble(
            self, message: Any = None, tb: Any = None, is_error: bool = True
        ) -> None:
            print(message, file=sys.stderr)
            if is_error:
                video.failed(sys.exc_info()[1], str(message))

        def process_ie_result(
            self, result: dict[str, Any], *how: Any, **ever: Any
        ) -> Any:
            if str(result.get("_type")).startswith("url") and not video.led:
                video.led = True
                video.report.info(leads_to=result.get("url"))
            return super().process_ie_result(result, *how, **ever)

        def _forceprint(self, key: str, info: Any) -> None:
            """Print nothing: to make what could be printed takes long."""

        def prepare_filename(self, info: dict[str, Any], *_: Any, **how: Any) -> str:
            request, extension = video.request, re.sub(r"\W", "", str(info.get("ext")))
            name = f"{request.prefix}_{self._num_downloads:04d}.{extension[:15]}"
            return str(request.folder / name)

        def process_info(self, info: dict[str, Any]) -> None:
            failed, saved = len(video.failures), video.saved
            video.cover = functools.partial(save_cover, self, info)
            try:
                super().process_info(info)
                self.report_subtitles(info, saved)
            finally:
                del video.failures[failed + 1 :]  # it reports some failures twice
                if video.saved == saved:
                    folder, number = video.request.folder, self._num_downloads
                    for left in folder.glob(f"{video.request.prefix}_{number:04d}*"):
                        left.unlink()

        def process_subtitles(
            self, video_id: Any, by_people: Any, by_machine: Any
        ) -> Any:
            """One language of the subtitles that there are, as the engine wants it."""
            options = video.request.options
            if not video.subtitles and not options.get(KEEP):
                return None
            for known, said in ((by_people, ""), (by_machine, "-orig")):
                chosen = language_of(known or {}, options, said)
                if chosen and (video.subtitles or is_language(chosen, options)):
                    formats = {one.get("ext"): one for one in known[chosen]}
                    kind = next(kind for kind in SUBTITLES if kind in formats)
                    # The name becomes a part of the file's.
                    return {re.sub(r"[^\w-]", "", chosen)[:20]: formats[kind]}
            return None

        def _write_subtitles(self, *arguments: Any) -> Any:
            try:
                return super()._write_subtitles(*arguments)
            except DownloadError as error:  # the video comes without them
                if video.subtitles:
                    video.failed(error, str(error))
                return []

        def report_subtitles(self, info: dict[str, Any], saved: int) -> None:
            for one in (info.get("requested_subtitles") or {}).values():
                path = Path(one.get("filepath") or "")
                arrived = video.saved > saved and path.is_file()
                kept = small_subtitles(path) if arrived else None
                if kept and video.subtitles:
                    video.report.file(kept)
                elif kept:  # nothing waits for them
                    video.later.append(kept)

    def done(path: str) -> None:
        if any(video.part) and "ffmpeg" in video.request.programs:
            start, end = video.part
            options = ["-ss", str(start or 0), *(["-to", str(end)] if end else [])]
            whole, cut = path, str(Path(path).with_stem("part"))
            FFmpegPostProcessor(engine).real_run_ffmpeg(
                [(whole, options)], [(cut, ["-c", "copy"])]
            )
            os.replace(cut, whole)
        video.done(path)

    engine = Downloader(_parameters(video), auto_init=False)
    engine.add_post_hook(done)
    return engine


def is_language(name: str, options: dict[str, Any]) -> bool:
    """Whether subtitles of this name are in the language of the job."""
    wanted = str(options.get("language", "en"))
    return name.partition("-")[0] == wanted.partition("-")[0]


def small_subtitles(path: Path) -> Path | None:
    """Subtitles as SRT or WebVTT; None, and they are gone, if they are too large or
    hold nothing."""
    from yt_dlp.postprocessor.ffmpeg import dfxp2srt

    kept = path
    with contextlib.suppress(*NONSENSE):
        if 0 < path.stat().st_size <= MAX_SUBTITLES_BYTES:
            if path.suffix in (".srt", ".vtt"):
                return path
            kept = path.with_suffix(".srt")
            kept.write_text(dfxp2srt(path.read_bytes()), "utf-8")
            if kept.stat().st_size:
                path.unlink()
                return kept
    for one in {path, kept}:
        one.unlink(missing_ok=True)
    return None


def save_cover(engine: Any, info: dict[str, Any], beside: Path) -> Path | None:
    """Fetch the best picture for a sound; None if there is none."""
    from yt_dlp.networking import Request as Asked
    from yt_dlp.networking.exceptions import RequestError

    for one in (info.get("thumbnails") or [])[:-4:-1]:
        with contextlib.suppress(RequestError, OSError, ValueError, LookupError):
            headers, how = one.get("http_headers") or {}, {"timeout": COVER_S}
            asked = Asked(one["url"], headers=headers, extensions=how)
            with engine.urlopen(asked) as answer:
                data = answer.read(MAX_COVER_BYTES + 1)
            starts = (kind for kind, head in COVERS.items() if data.startswith(head))
            if (kind := next(starts, "")) and len(data) <= MAX_COVER_BYTES:
                path = beside.with_name(f"{beside.stem}.cover.{kind}")
                path.write_bytes(data)
                return path
    return None


def language_of(known: dict[str, Any], options: dict[str, Any], said: str) -> str:
    """Of these languages that of the server, English, or else the first one; of what a
    machine has written only that in which is spoken, whose name ends so."""
    names = [
        name
        for name, formats in known.items()
        if any(one.get("ext") in SUBTITLES for one in formats)
    ]
    if said:
        return next((name for name in names if name.endswith(said)), "")
    for wanted in (str(options.get("language", "en")), "en"):
        short = wanted.partition("-")[0]
        for name in (wanted, short, *names):
            if name in names and name.partition("-")[0] == short:
                return name
    return next(iter(names), "")


def _parameters(video: Video) -> dict[str, Any]:
    """The engine's parameters: our preferences, then the platform's options, then what
    no option may change."""
    request = video.request
    share_authorities()
    options = {k: v for k, v in request.engine_options.items() if "." not in k}
    return {
        "noplaylist": True,
        "socket_timeout": 20,
        "retries": 1,
        **preferred_options(request),
        **options,
        "outtmpl": {},  # `prepare_filename` makes the names
        "paths": {},
        "updatetime": False,
        "quiet": False,
        "color": "never",
        "logger": video,
        "match_filter": video.check,
        "progress_hooks": [video.progress],
        "postprocessors": [],
        "writesubtitles": video.subtitles or bool(request.options.get(KEEP)),
        "ignoreerrors": "only_download",  # `trouble` is called for each
        "playlistend": request.max_items + 1,
        "max_downloads": request.max_items,
        "cookiefile": unexpanded(request.cookies_file)
        if request.cookies_file
        else None,
        "proxy": request.proxy,
        **fixed_options(request),
    }


def failure(
    request: Request, error: BaseException | None, message: str, warnings: list[str]
) -> JobFailed:
    """The failure that an error and the warnings before it stand for. The platform's
    own table of the site's phrases comes first, then the error's class, phrases of all
    sites, HTTP statuses, and phrases of the libraries."""
    from yt_dlp import utils
    from yt_dlp.networking import exceptions as network

    chain: list[BaseException] = []
    while error and error not in chain:
        chain.append(error)
        inner = getattr(error, "cause", None) or error.__cause__
        error = inner or (getattr(error, "exc_info", None) or (None, None))[1]
    if known := next((e for e in chain if isinstance(e, JobFailed)), None):
        return known
    said = re.sub(r"^ERROR: |; please report this issue on .*", "", message)
    detail = "\n".join([said, *warnings])

    def among(kinds: Any) -> Any:
        return next((e for e in chain if isinstance(e, kinds)), None)

    first: list[tuple[Any, Cause]] = [
        (MemoryError, Cause.TOO_LARGE),
        (utils.GeoRestrictedError, Cause.REGION),
        (utils.UnsupportedError, Cause.UNSUPPORTED),
        (utils.UserNotLive, Cause.NO_MEDIA),
    ]
    last: list[tuple[Any, Cause]] = [
        (utils.RegexNotFoundError, Cause.ENGINE_OUTDATED),
        ((json.JSONDecodeError, LookupError, TypeError), Cause.ENGINE_OUTDATED),
        ((AttributeError, ValueError), Cause.ENGINE_OUTDATED),
        (TimeoutError, Cause.TIMED_OUT),
    ]
    status = among(network.HTTPError)
    cause = first_cause(detail, request.failures)
    cause = cause or next((c for kind, c in first if among(kind)), None)
    # "Service Unavailable" is a phrase of HTTP, not of the site.
    if not cause and not among(network.TransportError):
        words = re.sub(r"HTTP Error \d+: [^(;]*|\(caused by .*", "", said)
        cause = first_cause(words, SAID)
    if not cause and status:
        loop = status.redirect_loop
        by_status = first_cause(str(status.status), STATUS_CAUSES)
        cause = Cause.INVALID_URL if loop else by_status
    cause = cause or first_cause(said, WORDS)
    cause = cause or next((c for kind, c in last if among(kind)), None)
    if not cause and among((network.RequestError, utils.ContentTooShortError)):
        cause = Cause.NETWORK
    if not cause and (extraction := among(utils.ExtractorError)):
        cause = Cause.NO_MEDIA if extraction.expected else Cause.ENGINE_OUTDATED
    cause = cause or (Cause.INTERNAL if chain else Cause.NO_MEDIA)
    asked_s = wait_asked_s(status.response.headers) if status else None
    kinds = " ".join(type(one).__name__ for one in chain)
    wait_s = retry_after_s(cause, f"{kinds}\n{detail}", asked_s)
    return JobFailed(cause, detail, retry_after_s=wait_s)
