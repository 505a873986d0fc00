"""Videos and sound of over 1,000 sites, and of pages that hold some, by yt-dlp."""

import contextlib
import errno
import functools
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from bossbot import (
    STATUS_CAUSES,
    Cause,
    Engine,
    JobFailed,
    Progress,
    Report,
    Request,
    first_cause,
    hookimpl,
    wait_asked_s,
)

# What yt-dlp calls the JavaScript runtimes, and the names of their programs.
RUNTIMES = {"deno": "deno", "node": "node", "bun": "bun", "quickjs": "qjs"}
# The containers that may be joined or repaired; a playlist could open other files.
MEDIA = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,aac,mp3,ogg,flac,wav,flv"
# What plays everywhere, then the best of it.
BEST = ["vcodec:h264", "lang", "quality", "res", "fps", "acodec:aac"]
LIVE = "That stream is still live. Try again when it has ended."

# What sites say, through extractors.
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
# What yt-dlp and the libraries below it say.
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
    return [Engine("yt-dlp", version, warm, supports, download, generic=True)]


def version() -> str:
    from yt_dlp import version as module

    return str(module.__version__)


def warm() -> None:
    """Compile every extractor's pattern and rehearse what every download does. Their
    modules stay unread: 20 MB, which a page of a site that none knows takes, later."""
    from yt_dlp.globals import plugin_dirs
    from yt_dlp.networking import common

    plugin_dirs.value = []  # no engine plugins from elsewhere
    for extractor in _extractors():
        extractor.suitable("https://boss-bot.invalid/")
    # Reading the authorities takes longer than the rest of a small download.
    common.make_ssl_context = functools.cache(common.make_ssl_context)
    video = Video(Request("", Path(), "", options={"simulate": True}), cast(Report, 0))
    video.told = True
    with contextlib.redirect_stderr(io.StringIO()), _downloader(video) as engine:
        page = {"extractor": "warm", "webpage_url": "https://boss-bot.invalid/"}
        engine.process_ie_result({"id": "1", "url": "https://a.invalid/a.mp4", **page})
        engine.get_info_extractor("Generic")
        for handler in engine._request_director.handlers.values():
            handler._make_sslcontext()


def supports(url: str) -> bool:
    if not re.match(r"https?://", url, re.IGNORECASE):
        return False
    known = (ie for ie in _extractors() if ie.ie_key() != "Generic")
    return any(ie.suitable(url) for ie in known)


def _extractors() -> list[Any]:
    from yt_dlp.extractor import gen_extractor_classes

    return [ie for ie in gen_extractor_classes() if ie._ENABLED]


def download(request: Request, report: Report) -> None:
    from yt_dlp.utils import DownloadCancelled

    video = Video(request, report)
    _tame(request)
    # Data that extractors hand to each other in a link's fragment is not a member's.
    url = request.url.partition("#__youtubedl_smuggle")[0]
    with _downloader(video) as engine:
        for extractor in _extractors():
            engine.add_info_extractor(extractor)
        try:
            engine.extract_info(url)
        except Enough as enough:
            video.failures.append(enough.failure)
        except DownloadCancelled:  # at max_items
            pass
    video.finish()


class Enough(BaseException):
    """Ends the job from deep inside: the engine goes on after an Exception."""

    def __init__(self, failure: JobFailed) -> None:
        super().__init__(str(failure))
        self.failure = failure


class Video:
    """What is known of the link so far; what the engine calls when it gets on."""

    def __init__(self, request: Request, report: Report) -> None:
        self.request, self.report = request, report
        self.failures: list[JobFailed] = []
        self.warnings: list[str] = []
        self.told = False
        self.saved = 0
        self.items: int | None = None  # of a playlist, if it says so
        self.entries = 1  # found, of which one more than wanted is looked for
        self.part: list[float | None] = []  # of a clip: where it starts and ends

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
        """Tell about the video; returns why it is not to be fetched."""
        if info.get("is_live") or info.get("live_status") in ("is_live", "is_upcoming"):
            title = str(info.get("title"))
            self.failures.append(JobFailed(Cause.UNSUPPORTED, f"live: {title}", LIVE))
            return "it is live"
        # It is asked thrice: of an entry of a playlist, of what an extractor found,
        # and of what will be fetched.
        if incomplete and incomplete is not True:
            self.tell(info)
            # ffmpeg would fetch a part by itself; the whole is cut when it is here.
            self.part = [info.pop(f"section_{end}", None) for end in ("start", "end")]
        return None

    def tell(self, info: dict[str, Any]) -> None:
        self.entries = info.get("n_entries") or 1
        if self.told:
            return
        self.told = True
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
        if self.request.max_file_bytes and done > self.request.max_file_bytes:
            raise OSError(errno.EFBIG, "File too large")
        try:
            self.report.progress(
                Progress(
                    str(info.get("title") or ""),
                    int(done),
                    int(total) if total else None,
                    now.get("speed"),
                    info.get("playlist_autonumber") or 1,
                    self.items,
                )
            )
        except JobFailed as error:  # the job has more bytes than it may
            raise Enough(error) from error

    def done(self, path: str) -> None:
        self.report.file(Path(path))
        self.saved += 1
        self.warnings.clear()

    def failed(self, error: BaseException | None, message: str) -> None:
        self.failures.append(failure(self.request, error, message, self.warnings))
        self.warnings.clear()

    def finish(self) -> None:
        """Tell how many items there are and which failed; raises if none arrived."""
        if not self.saved:
            said = "\n".join(self.warnings)
            first = next(iter(self.failures), JobFailed(Cause.NO_MEDIA, said))
            raise first
        for one in self.failures:
            self.report.item_failed(one)
        more = self.entries > self.request.max_items
        self.report.info(items=self.items, more=more)


def _downloader(video: Video) -> Any:
    """The engine, set up, without extractors."""
    from yt_dlp import YoutubeDL
    from yt_dlp.postprocessor.ffmpeg import FFmpegPostProcessor

    class Downloader(YoutubeDL):  # type: ignore[misc]
        def trouble(
            self, message: Any = None, tb: Any = None, is_error: bool = True
        ) -> None:
            print(message, file=sys.stderr)
            if is_error:
                video.failed(sys.exc_info()[1], str(message))

        def prepare_filename(self, info: dict[str, Any], *_: Any, **how: Any) -> str:
            request, extension = video.request, re.sub(r"\W", "", str(info.get("ext")))
            name = f"{request.prefix}_{self._num_downloads:04d}.{extension[:15]}"
            return str(request.folder / name)

        def process_info(self, info: dict[str, Any]) -> None:
            failed, saved = len(video.failures), video.saved
            try:
                super().process_info(info)
            finally:
                del video.failures[failed + 1 :]  # it says twice why a video failed
                if video.saved == saved:
                    folder, number = video.request.folder, self._num_downloads
                    for left in folder.glob(f"{video.request.prefix}_{number:04d}*"):
                        left.unlink()

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
    if engine.format_selector is None:
        ffmpeg = "ffmpeg" in video.request.programs
        best = engine.build_format_selector("bv*+ba/b" if ffmpeg else "b/bv*/ba")
        limits = (video.request.target_bytes, video.request.max_file_bytes)
        limit = min((size for size in limits if size), default=0)
        engine.format_selector = lambda context: fitting(best, context, limit)
    return engine


def fitting(best: Any, context: dict[str, Any], limit: int) -> Iterator[dict[str, Any]]:
    """Yields the best format whose size is not known to be over the limit; else the
    smallest. `best` is a selector of the engine, which says what is best of what."""
    formats, tried = list(context["formats"]), []
    while chosen := next(iter(best({**context, "formats": formats})), None):
        parts = chosen.get("requested_formats") or [chosen]
        sizes = [f.get("filesize") or f.get("filesize_approx") or 0 for f in parts]
        tried.append((sum(sizes), chosen))
        if not limit or sum(sizes) <= limit:
            yield chosen
            return
        largest = parts[sizes.index(max(sizes))]["format_id"]
        formats = [one for one in formats if one["format_id"] != largest]
    if tried:
        yield min(tried, key=lambda one: one[0])[1]


def _parameters(video: Video) -> dict[str, Any]:
    """The engine's parameters: what is ours to choose, the platform's options over it,
    and over those what no option may change."""
    request = video.request
    if bundle := os.environ.get("REQUESTS_CA_BUNDLE"):
        os.environ.setdefault("SSL_CERT_FILE", bundle)
    runtimes = {name: request.programs.get(file) for name, file in RUNTIMES.items()}
    options = {k: v for k, v in request.options.items() if "." not in k}
    return {
        "noplaylist": True,
        "format_sort": BEST,
        "socket_timeout": 20,
        "retries": 1,
        "fragment_retries": 2,
        "extractor_retries": 1,
        **options,
        "outtmpl": {},  # `prepare_filename` makes the names
        "paths": {},
        "updatetime": False,
        "quiet": False,
        "noprogress": True,
        "color": "never",
        "logger": video,
        "match_filter": video.check,
        "progress_hooks": [video.progress],
        "postprocessors": [],
        "ignoreerrors": "only_download",  # `trouble` hears of each
        "skip_unavailable_fragments": False,
        "playlistend": request.max_items + 1,
        "max_downloads": request.max_items,
        "max_filesize": request.max_file_bytes or None,
        "cookiefile": str(request.cookies_file) if request.cookies_file else None,
        "cookiesfrombrowser": None,
        "usenetrc": False,
        "netrc_cmd": None,
        "proxy": request.proxy,
        "sleep_interval_requests": request.sleep_request_s,
        "cachedir": str(request.cache_dir),
        "enable_file_urls": False,
        "nocheckcertificate": False,
        # The host's own authorities count where it names some.
        "compat_opts": {"no-certifi"} if "SSL_CERT_FILE" in os.environ else set(),
        "impersonate": None,
        "external_downloader": {"default": "native"},
        "hls_prefer_native": True,
        "js_runtimes": {k: {"path": path} for k, path in runtimes.items() if path},
        "remote_components": set(),
        # A path that is not there keeps it from trying what PATH has.
        "ffmpeg_location": request.programs.get("ffmpeg", f"{request.folder}/none"),
    }


def _tame(request: Request) -> None:
    """Let the engine start the helper programs alone: ffmpeg on media files, and a
    JavaScript runtime with the memory that it needs. No plugins, nothing that
    connects unseen by the fence."""
    from yt_dlp.downloader.external import FFmpegFD
    from yt_dlp.globals import plugin_dirs
    from yt_dlp.networking.common import _REQUEST_HANDLERS
    from yt_dlp.postprocessor.ffmpeg import FFmpegPostProcessor
    from yt_dlp.utils import Popen

    runtimes = {os.path.realpath(request.programs.get(p, p)) for p in RUNTIMES.values()}
    allowed = {os.path.realpath(path) for path in request.programs.values()}
    guard = ["-nostdin", "-protocol_whitelist", "file", "-format_whitelist", MEDIA]
    start, run = Popen.__init__, FFmpegPostProcessor.real_run_ffmpeg

    def guarded_start(self: Any, argv: Any, *rest: Any, **how: Any) -> None:
        program = os.path.realpath(argv[0])
        if program not in allowed:  # it asks for several, to see what is there
            raise FileNotFoundError(errno.ENOENT, "not for downloads", argv[0])
        with _all_memory(program in runtimes):
            start(self, argv, *rest, **how)

    def refused(self: Any, *_: Any) -> bool:
        self.report_error("unsupported: only ffmpeg could fetch it")
        return False

    def guarded_run(self: Any, inputs: Any, outputs: Any, **how: Any) -> Any:
        inputs = [(path, [*guard, *options]) for path, options in inputs]
        return run(self, inputs, outputs, **how)

    plugin_dirs.value = []
    _REQUEST_HANDLERS.pop("CurlCFFI", None)
    FFmpegFD.available = classmethod(lambda cls, path=None: False)
    FFmpegFD.real_download = refused
    Popen.__init__ = guarded_start
    FFmpegPostProcessor.real_run_ffmpeg = guarded_run
    # Asked by ffprobe to help an ffmpeg of before 2017.
    FFmpegPostProcessor.get_audio_codec = lambda self, path: None


@contextlib.contextmanager
def _all_memory(wanted: bool) -> Iterator[None]:
    """Raise the soft limit of memory to the hard one for a program that starts now."""
    if not wanted or sys.platform == "win32":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def failure(
    request: Request, error: BaseException | None, message: str, warnings: list[str]
) -> JobFailed:
    """Why it failed: the platform knows the site's words best, then come classes, what
    sites say, statuses, and words of the libraries below."""
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
    # The network's own words are not the site's: "Service Unavailable".
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
    wait_s = None
    if cause is Cause.RATE_LIMITED and status:
        wait_s = wait_asked_s(status.response.headers)
    passing = (ConnectionResetError, network.IncompleteRead)
    if (status and status.status >= 500) or among(passing):
        wait_s = 0.0  # it may well work a moment later
    return JobFailed(cause, detail, retry_after_s=wait_s)
