"""Photos, galleries and posts of some 300 sites, fetched by gallery-dl in process."""

import contextlib
import errno
import functools
import logging
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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

# Extractors that are no site: they log in, read local files or guess.
NO_SITES = {"oauth", "noop", "ytdl", "recursive", "generic"}
MAX_DEPTH = 4  # of galleries that lead to galleries
MAX_EMPTY_POSTS = 20  # without a file, per file allowed: a profile of words alone ends
MAX_WAIT_S = 5.0  # what the engine may sleep on its own; more is for the queue to wait

# The containers that may be joined or repaired; a playlist could open other files.
MEDIA = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,aac,mp3,ogg,flac,wav,flv"

# Under which names extractors keep what we show; the first that is there counts.
FACTS = {
    "title": "title gallery_title filename",
    "uploader": "author user username uploader artist owner creator",
    "date": "date create_date published",
    "text": "content selftext selftext_html description desc caption body text",
}
NAMES = "name nickname username uniqueId nick handle screen_name"

# The answer, if there was one, has not what the extractor looks for.
NO_FIND = (LookupError, AttributeError, TypeError, ValueError)
OUT_OF_REACH = [
    (r"NameResolution|failed to resolve|SSLError|certificate|ProxyErr", Cause.NETWORK),
    (r"timed ?out|timeout", Cause.TIMED_OUT),
    (r"connection|RemoteDisconnected|IncompleteRead|unreachable", Cause.NETWORK),
]
WORDS = [
    (r"Insufficient privileges", Cause.PRIVATE),
    (r"larger than allowed maximum|larger than max-filesize|Errno 27", Cause.TOO_LARGE),
    (r"Errno 28|No space left", Cause.DISK_FULL),
    (r"\d redirects|redirect loop", Cause.INVALID_URL),
    (r"redirect to \S*login|login (?:page|required)|User input required", Cause.LOGIN),
    (r"HTML response|HTTP redirect to|Invalid (?:response|file sig)", Cause.NO_MEDIA),
    *OUT_OF_REACH,
    (r"size mismatch|Empty file|decode", Cause.NETWORK),
    (r"rate.?limit|too many requests", Cause.RATE_LIMITED),
    (r"unsupported|not supported/enabled|DRM", Cause.UNSUPPORTED),
    (r"\bprivate\b|protected", Cause.PRIVATE),
    (r"not found|not be found|unavailable|deleted|removed|suspended", Cause.GONE),
    (r"log ?in|sign in|authenti|credentials|cookies", Cause.LOGIN),
    (r"unable to (?:retrieve|extract|find|parse)|failed to (?:parse|extract|retrieve)",
     Cause.ENGINE_OUTDATED),
]  # fmt: skip


@hookimpl
def register_engines() -> list[Engine]:
    return [Engine("gallery-dl", version, warm, supports, download)]


def version() -> str:
    from gallery_dl import version as module

    return str(module.__version__)


def warm() -> None:
    """Import every extractor and compile its pattern; and what a download imports."""
    import sqlite3  # noqa: F401 - the engine's cache

    from gallery_dl import extractor, job  # noqa: F401
    from gallery_dl.downloader import http, ytdl  # noqa: F401
    from yt_dlp import YoutubeDL  # noqa: F401

    extractor.find("https://boss-bot.invalid/")


def supports(url: str) -> bool:
    return _find(url) is not None


def _find(url: str) -> Any:
    """The extractor for a link of a site that the engine knows, or None."""
    from gallery_dl import extractor

    found = extractor.find(url) if re.match(r"https?://", url, re.IGNORECASE) else None
    return None if found is None or found.category in NO_SITES else found


def download(request: Request, report: Report) -> None:
    _configure(request)
    post = Post(request, report)
    with _listening(post.words):
        found = _find(request.url)
        if found is None:
            raise JobFailed(Cause.UNSUPPORTED, "no extractor of its own")
        try:
            _job_class(post)(found).run()
        except Enough as enough:
            post.more = True
            if enough.failure:
                post.failures.append(enough.failure)
        except Exception as error:  # its set-up failed, which the engine does not catch
            if not post.failures:
                post.failed(error, post.words)
    post.finish()


class Enough(BaseException):
    """Ends the job from deep inside: the engine logs an Exception and goes on."""

    def __init__(self, failure: JobFailed | None = None) -> None:
        super().__init__(str(failure))
        self.failure = failure


class Post:
    """What is known of the link so far. It is the engine's `output`, too."""

    def __init__(self, request: Request, report: Report) -> None:
        self.request, self.report = request, report
        self.words: list[str] = []  # the engine's warnings and errors
        self.failures: list[JobFailed] = []
        self.unsupported: list[str] = []  # links in the post that no extractor knows
        self.wait_s: float | None = None  # as the last 429 asked
        self.number = self.saved = self.posts = self.children = 0
        self.path: Path | None = None  # of the file at hand, once it is complete
        self.name = ""  # of the file at hand
        self.count: int | None = None  # files of the post, if it says so
        self.text = ""
        self.more = False

    def next_file(self, name: str) -> None:
        if self.number >= self.request.max_items:
            raise Enough
        self.number += 1
        self.name, self.path = name, None

    def tell(self, known: dict[str, Any]) -> None:
        """Tell about the post from the engine's keywords, for the first post only."""
        self.posts += 1
        if self.posts > MAX_EMPTY_POSTS * self.request.max_items:
            raise Enough
        listed = (known.get("gallery_data") or {}).get("items")  # Reddit's galleries
        count = known.get("count") or (len(listed) if listed else None)
        alone = self.number == 0 and isinstance(count, int) and count > 0
        self.count = count if alone else None
        if self.posts > 1:
            return
        facts = {fact: _text(known, names.split()) for fact, names in FACTS.items()}
        if re.fullmatch(r"\[[\w ]+\]", facts["text"]):  # "[deleted]" is no text
            self.words.append(facts.pop("text"))
        self.text = facts.get("text", "")
        self.report.info(**{k: v for k, v in facts.items() if v}, items=self.count)

    def failed(self, error: BaseException | None, words: Sequence[str]) -> None:
        self.failures.append(failure(self.request, error, words, self.wait_s))

    def finish(self) -> None:
        """Tell how many items there are and which failed; raises if none arrived."""
        if not self.saved:
            self._explain()
        else:
            for one in self.failures:
                self.report.item_failed(one)
        items = max(self.number, self.count or 0) if not self.more else self.count
        self.report.info(items=items, more=self.more)

    def _explain(self) -> None:
        """Raise why no file arrived, unless the post is words alone."""
        if self.failures:
            raise self.failures[0]
        said = "\n".join(self.words)
        if cause := first_cause(said, self.request.failures):
            raise JobFailed(cause, said)
        if self.text:
            return
        if self.unsupported:
            links = " ".join(self.unsupported[:3])
            raise JobFailed(Cause.UNSUPPORTED, f"it only links to {links}")
        raise JobFailed(first_cause(said, WORDS) or Cause.NO_MEDIA, said)

    # The engine's `output`:

    def start(self, path: str) -> None:
        self.progress(None, 0, 0)  # the clock of a download that stands still starts

    def success(self, path: str) -> None:
        self.path = Path(path)
        self.saved += 1
        self.report.file(self.path)

    def progress(self, total: int | None, done: int, speed: int) -> None:
        limit = self.request.max_file_bytes
        if limit and done > limit:
            raise OSError(errno.EFBIG, "File too large")
        if total and done > total:  # it came compressed
            total = None
        try:
            self.report.progress(
                Progress(self.name, done, total, speed or None, self.number, self.count)
            )
        except JobFailed as error:
            raise Enough(error) from error


def _job_class(post: Post) -> Any:
    """The engine's job, with our names, caps and ears; jobs of its children too."""
    from gallery_dl.exception import ControlException, ExtractionError
    from gallery_dl.job import DownloadJob
    from gallery_dl.text import remove_html

    def heard(response: Any, **_: Any) -> None:
        if response.status_code == 429:
            post.wait_s = wait_asked_s(response.headers)

    def wait(
        seconds: Any = None, until: Any = None, adjust: float = 1.0, reason: Any = ""
    ) -> None:
        if isinstance(until, datetime):  # the engine's have no zone and mean UTC
            until = until.replace(tzinfo=until.tzinfo or UTC).timestamp()
        asked_s = float(seconds or float(until or 0) - time.time()) + adjust
        if asked_s > MAX_WAIT_S:
            raise Enough(JobFailed(Cause.RATE_LIMITED, str(reason), "", asked_s))
        time.sleep(max(asked_s, 0))

    class FileJob(DownloadJob):  # type: ignore[misc]
        def __init__(self, extractor: Any, parent: Any = None) -> None:
            super().__init__(extractor, parent)
            self.out = post
            self.depth: int = 1 + (parent.depth if parent else 0)
            self.extractor.wait = wait

        def _init(self) -> None:
            super()._init()
            if self.extractor.session:
                self.extractor.session.hooks["response"].append(heard)

        def initialize(self, kwdict: Any = None) -> None:
            super().initialize(kwdict)
            self.pathfmt.build_filename = self._name

        def _name(self, kwdict: dict[str, Any]) -> str:
            # Links and answers decide the extension; a dot and no more stays for the
            # hand-over to yt-dlp, which adds its own.
            extension = re.sub(r"[^a-z0-9]", "", str(kwdict["extension"]).lower())[:10]
            return f"{post.request.prefix}_{post.number:04d}.{extension}"

        def dispatch(self, messages: Any) -> Any:
            heard_before = len(post.words)
            try:
                return super().dispatch(messages)
            except Exception as error:  # the engine would only log it
                if isinstance(error, ExtractionError) or not isinstance(
                    error, ControlException
                ):
                    post.failed(error, post.words[heard_before:])
                raise

        def handle_directory(self, kwdict: dict[str, Any]) -> None:
            super().handle_directory(kwdict)
            post.tell(kwdict)

        def handle_url(self, url: str, kwdict: dict[str, Any]) -> None:
            if url.startswith("text:"):
                if not post.text:
                    post.text = remove_html(url[5:])
                    post.report.info(text=post.text)
                return
            post.next_file(str(kwdict.get("filename") or ""))
            heard_before = len(post.words)
            if url.startswith("ytdl:"):
                _tame_yt_dlp()
            if url.startswith(("http://", "https://", "ytdl:http")):
                super().handle_url(url, kwdict)
            if post.path is None:
                post.failed(None, post.words[heard_before:])
                own = f"{post.request.prefix}_{post.number:04d}.*"
                for left in post.request.folder.glob(own):
                    left.unlink()

        def handle_skip(self) -> None:
            pass  # a file too large, or none; the words heard say which

        def handle_queue(self, url: str, kwdict: dict[str, Any]) -> None:
            if post.number >= post.request.max_items or self.depth > MAX_DEPTH:
                raise Enough
            post.children += 1
            if post.children > post.request.max_items:
                raise Enough
            if not kwdict.get("_extractor") and _find(url) is None:
                post.unsupported.append(url)
                return
            super().handle_queue(url, kwdict)

    return FileJob


def failure(
    request: Request,
    error: BaseException | None,
    words: Sequence[str],
    wait_s: float | None = None,
) -> JobFailed:
    """Why it failed: the platform knows the site's words best, then come statuses and
    classes, then words of the engine and of the libraries below it."""
    from gallery_dl import exception
    from requests import exceptions as requests

    if isinstance(error, JobFailed):
        return error
    said = [*words, f"{type(error).__name__}: {error}"] if error else list(words)
    detail = "\n".join(said)
    message = ""
    classes: list[tuple[Any, Cause]] = [
        (MemoryError, Cause.TOO_LARGE),
        (exception.NoExtractorError, Cause.UNSUPPORTED),
        (exception.NotFoundError, Cause.GONE),
        ((exception.AuthRequired, exception.AuthenticationError), Cause.LOGIN),
        (requests.TooManyRedirects, Cause.INVALID_URL),
        (requests.Timeout, Cause.TIMED_OUT),
        (requests.JSONDecodeError, Cause.ENGINE_OUTDATED),
        (requests.RequestException, Cause.NETWORK),
    ]
    cause = first_cause(detail, request.failures)
    statuses = re.findall(r"(?:'|HTTP Error )([45]\d\d)[ :]", detail)
    if not cause and isinstance(error, exception.ChallengeError):
        cause = Cause.LOGIN
        message = "That site turns bots away. A login, set by the host, may help."
    if not cause and statuses:
        cause = first_cause(statuses[-1], STATUS_CAUSES)
    cause = cause or next((c for kind, c in classes if isinstance(error, kind)), None)
    if not cause and isinstance(error, NO_FIND):
        cause = first_cause(detail, OUT_OF_REACH) or Cause.ENGINE_OUTDATED
    cause = cause or first_cause(detail, WORDS)
    if not cause:
        known = isinstance(error, exception.AuthorizationError)
        cause = Cause.LOGIN if known else Cause.INTERNAL if error else Cause.NO_MEDIA
    wait_s = wait_s if cause is Cause.RATE_LIMITED else None
    return JobFailed(cause, detail, message, wait_s)


def _text(known: dict[str, Any], names: Sequence[str]) -> str:
    """The first of these keywords that says something, as plain text."""
    from gallery_dl.text import remove_html, unescape

    for name in names:
        value = known.get(name)
        if isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, dict):
            value = next((value[key] for key in NAMES.split() if value.get(key)), None)
        if isinstance(value, datetime) and value.year > 1:  # 1: not known
            return value.replace(tzinfo=value.tzinfo or UTC).isoformat()
        if isinstance(value, str) and value:
            is_html = re.search(r"</?(?:p|br|a|span|div)\b", value)
            return str(unescape(remove_html(value)) if is_html else value)
    return ""


@contextlib.contextmanager
def _listening(words: list[str]) -> Iterator[None]:
    """Collect the engine's warnings and errors; all its words go to the log."""

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            print(f"[{record.name}] {text}", file=sys.stderr)
            if record.levelno >= logging.WARNING and text:
                words.append(text)

    root, ear, level = logging.getLogger(), Ear(logging.INFO), logging.root.level
    root.addHandler(ear)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(ear)
        root.setLevel(level)


def _configure(request: Request) -> None:
    """Set the engine up anew: what is ours to choose, the platform's options over it,
    and over those what no option may change."""
    from gallery_dl import config

    config.clear()
    ours = {"retries": 1, "timeout": 20, "sleep-retries": 0.5, "ratelimit": "abort"}
    for name, value in {**ours, "sleep-429": 0}.items():
        config.set(("extractor",), name, value)
    for option, value in request.options.items():
        *path, name = option.split(".")
        if path and path[0] in ("extractor", "downloader"):  # the rest is yt-dlp's
            config.set(path, name, value)

    # A value at the very top is found before any option of a site.
    fixed: dict[str, Any] = {
        "base-directory": f"{request.folder}{os.sep}",
        "directory": [],
        "filename": "{extension}",  # never used; others could run code
        "skip": False,
        "archive": None,
        "part-directory": None,
        "progress": 0,
        "mtime": False,
        "filesize-max": str(request.max_file_bytes) if request.max_file_bytes else None,
        "postprocess": False,
        "netrc": False,
        "input": False,
        "write-pages": False,
        "actions": None,
        "cookies": str(request.cookies_file) if request.cookies_file else None,
        "cookies-update": True,
        # Videos whose pictures and sound come apart go to yt-dlp:
        "module": None,
        "config-file": None,
        "cmdline-args": None,
        "raw-options": _yt_dlp_options(request),
    }
    if request.proxy:
        fixed["proxy"] = request.proxy
    if request.sleep_request_s:
        fixed["sleep-request"] = request.sleep_request_s
    for name, value in fixed.items():
        config.set((), name, value)
    config.set(("cache",), "file", str(request.cache_dir / "gallery-dl.sqlite3"))
    if bundle := os.environ.get("SSL_CERT_FILE"):
        os.environ.setdefault("REQUESTS_CA_BUNDLE", bundle)


@functools.cache
def _tame_yt_dlp() -> None:
    """Once: no plugins from elsewhere, nothing that connects unseen by the fence, and ffmpeg
    opens media alone."""
    from yt_dlp.downloader.external import FFmpegFD
    from yt_dlp.globals import plugin_dirs
    from yt_dlp.networking.common import _REQUEST_HANDLERS
    from yt_dlp.postprocessor.ffmpeg import FFmpegPostProcessor

    guard = ["-nostdin", "-protocol_whitelist", "file", "-format_whitelist", MEDIA]
    run = FFmpegPostProcessor.real_run_ffmpeg

    def refused(self: Any, *_: Any) -> bool:
        self.report_error("unsupported: only ffmpeg could fetch it")
        return False

    def guarded(self: Any, inputs: Any, outputs: Any, **how: Any) -> Any:
        inputs = [(path, [*guard, *options]) for path, options in inputs]
        return run(self, inputs, outputs, **how)

    plugin_dirs.value = []
    _REQUEST_HANDLERS.pop("CurlCFFI", None)
    FFmpegFD.available = classmethod(lambda cls, path=None: False)
    FFmpegFD.real_download = refused
    FFmpegPostProcessor.real_run_ffmpeg = guarded
    # Asked by ffprobe to help an ffmpeg of before 2017.
    FFmpegPostProcessor.get_audio_codec = lambda self, path: None


def _yt_dlp_options(request: Request) -> dict[str, Any]:
    ffmpeg = request.programs.get("ffmpeg")
    fits = f"[filesize_approx<?{request.target_bytes}]" if request.target_bytes else ""
    options: dict[str, Any] = {
        "format": f"bv*{fits}+ba/bv*+ba/b" if ffmpeg else f"b{fits}/b/bv*/ba",
        "format_sort": ["vcodec:h264", "res", "fps", "acodec:aac"],
        "ffmpeg_location": ffmpeg or str(request.folder / "no-ffmpeg"),
        "external_downloader": {"default": "native"},
        "hls_prefer_native": True,
        "js_runtimes": {},
        "cachedir": str(request.cache_dir),
        "max_filesize": request.max_file_bytes or None,
        "fragment_retries": 1,
        "extractor_retries": 1,
        "noprogress": True,
        "skip_unavailable_fragments": False,
    }
    if "SSL_CERT_FILE" in os.environ:
        options["compat_opts"] = {"no-certifi"}
    return options
