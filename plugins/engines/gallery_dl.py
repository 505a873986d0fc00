"""Photos, galleries and posts from some 300 sites, fetched by gallery-dl."""

import contextlib
import functools
import inspect
import logging
import os
import re
import socket
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, cast

from bossbot_plugins._failures import (
    STATUS_CAUSES,
    Enough,
    first_cause,
    report_progress,
    request_counter,
    retry_after_s,
    wait_asked_s,
)
from bossbot_plugins._formats import (
    ASK_S,
    Wanted,
    choose,
    number,
    shrunk,
    side_of,
    wanted,
)
from bossbot_plugins._patterns import finder, noting_needs
from bossbot_plugins._tls import SharedContext
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

# Extractors that stand for no site: they log in, read local files or guess.
NO_SITES = {"oauth", "noop", "ytdl", "recursive", "generic"}
# What extractors call one post; any other name is that of a profile, a search or a set.
POSTS = {
    *("album", "art", "article", "artwork", "artworks", "audio", "chapter", "comic"),
    *(
        "comment",
        "deviation",
        "document",
        "entry",
        "episode",
        "file",
        "gallery",
        "image",
    ),
    *("issue", "item", "journal", "media", "message", "photo", "pin", "post", "raw"),
    *("presentation", "reel", "sharedfile", "spotlight", "stash", "status", "story"),
    *("submission", "thread", "tweet", "video", "vmpost", "watch", "work"),
}
NO_BOTS = N_("That site blocks bots. Ask the bot's owner to add a login for it.")
MAX_DEPTH = 4  # of galleries inside galleries
# Posts without a file, for each file allowed; so that a profile of plain text ends.
MAX_EMPTY_POSTS = 20
MAX_VARIANTS = 5  # of a picture that are asked for
MAX_WAIT_S = 5.0  # that the engine may sleep itself; longer waits belong to the queue

# The engine reads files in small pieces. Large ones cost less, and a download that will
# end in time must still gain one long before the runner finds that it stands still.
PIECE_BYTES, MAX_PIECE_BYTES, PIECE_S = 2**15, 2**18, 30

LINK = re.compile("https?://", re.IGNORECASE)
HTML = re.compile(r"</?(?:p|br|a|span|div)\b")  # a text with some of it is no plain one
# The keywords in which extractors keep each fact, the preferred one first.
FACTS = {
    "title": "title gallery_title filename",
    "uploader": "author user username uploader artist owner creator",
    "date": "date create_date published",
    "text": "content selftext selftext_html description desc caption body text",
}
NAMES = "name nickname username uniqueId nick handle screen_name"
# The keywords that mark a post as not for minors, and the ratings that do.
ADULT = "sensitive possibly_sensitive over_18 nsfw is_nsfw is_mature mature x_restrict"
# The sites of which all is.
ADULT_SITES = re.compile(
    r"porn|hentai|rule34|nsfw|adult|nude|naked|realbooru|scatbooru|fap|hdoujin|hitomi"
    r"|8muses|agnph|erome|girlsreleased|hotleak|imhentai|leakgallery|luscious|motherless"
    r"|nudostar|okporn|paheal|redgifs|sexcom|sxypix|vipergirls|xasiat|xhamster|xvideos"
    r"|coomer|fansly|onlyhaven|urlgalleries|yourlesbians|furry34|e621|idolcomplex"
)
ADULT_RATING = r"e|explicit|q|questionable|adult|mature|ecchi|nsfw|r-?18g?"

# The response, if there was one, lacks what the extractor looks for.
NO_FIND = (LookupError, AttributeError, TypeError, ValueError, ArithmeticError)
OUT_OF_REACH = [
    (r"NameResolution|failed to resolve|SSLError|certificate|ProxyErr", Cause.NETWORK),
    (r"timed ?out|timeout", Cause.TIMED_OUT),
    (r"connection|RemoteDisconnected|IncompleteRead|unreachable", Cause.NETWORK),
]
WORDS = [
    (r"Insufficient privileges", Cause.PRIVATE),
    (r"geo.?(?:restrict|block)|your (?:country|region|location)", Cause.REGION),
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
    return [
        Engine(
            "gallery-dl", version, warm, supports, download, False, single, (NO_BOTS,)
        )
    ]


def version() -> str:
    from gallery_dl import version as module

    return str(module.__version__)


# After some calls Python adapts a function to what it is called with: children that
# share that are quicker, and change less memory.
REHEARSALS = 10


def warm() -> None:
    """Import all extractors, compile their patterns, and rehearse a download."""
    import sqlite3  # noqa: F401 - the engine's cache

    leave_out()
    from gallery_dl import extractor, job  # noqa: F401
    from gallery_dl.downloader import http, ytdl  # noqa: F401
    from yt_dlp import YoutubeDL  # noqa: F401

    _table()
    again = bool(SharedContext.blank)
    _share_contexts()  # once
    for _ in range(1 if again else REHEARSALS):
        _rehearse()
    # As many as a download needs, which takes a child half a millisecond each.
    blank = [SharedContext(ssl.PROTOCOL_TLS_CLIENT) for _ in range(4)]
    SharedContext.blank = blank


def _rehearse() -> None:
    """Download a picture from a socket of our own, so that what the libraries make at
    their first request is made once for all children."""
    from urllib3.connection import HTTPConnection

    picture = b"\xff\xd8\xff" + bytes(13)
    answer = (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
        b"Content-Length: 16\r\nContent-Type: image/jpeg\r\n\r\n"
    )
    connect = HTTPConnection._new_conn
    ours, theirs = socket.socketpair()
    with ours, theirs, tempfile.TemporaryDirectory() as folder:
        theirs.sendall(answer + picture)
        HTTPConnection._new_conn = lambda self: ours  # type: ignore[method-assign]
        try:
            place = Path(folder)
            url = "http://boss-bot.invalid/a.jpg"
            download(Request(url, place, "a", cache_dir=place), _Deaf())
        finally:
            HTTPConnection._new_conn = connect  # type: ignore[method-assign]


class _Deaf:
    """Hears the reports of a rehearsal."""

    def info(self, **facts: Any) -> None: ...
    def progress(self, progress: Progress) -> None: ...
    def file(self, path: Path, alt: str = "") -> None: ...
    def item_failed(self, failure: JobFailed) -> None: ...


def _share_contexts() -> None:
    """Read the certificate authorities for the TLS settings that most extractors have:
    their own ones, and those of the browsers that some pretend to be."""
    if SharedContext.blank:
        return
    from requests.utils import DEFAULT_CA_BUNDLE_PATH
    from urllib3.util import ssl_

    def kind(extractor: Any) -> tuple[Any, ...]:
        return extractor.browser, extractor.ciphers, extractor.tls12

    share_authorities()
    ssl_.SSLContext = SharedContext  # type: ignore[assignment]
    file = os.environ.get("REQUESTS_CA_BUNDLE") or DEFAULT_CA_BUNDLE_PATH
    *_unused, extractors = _table()
    for usual, _ in Counter(map(kind, extractors)).most_common(4):
        same = (one.from_url(one.example) for one in extractors if kind(one) == usual)
        extractor = next(filter(None, same))
        extractor._init_session()
        context = extractor.session.get_adapter("https://").ssl_context
        with socket.socket() as unused:  # treated like a connection
            ssl_.ssl_wrap_socket(
                unused,
                ca_certs=file,
                server_hostname="boss-bot.invalid",
                ssl_context=context or ssl_.create_urllib3_context(),
            )


def supports(url: str) -> bool:
    return _find(url) is not None


def single(url: str) -> bool:
    """Whether it is one post: many patterns take any name on a site for a profile, and
    any link for a file that ends like one."""
    found = _find(url)
    if found is None or found.category == "directlink":
        return False
    return not POSTS.isdisjoint(found.subcategory.split("-"))


def _find(url: str) -> Any:
    """The extractor for a link, or None for a site that the engine does not support."""
    kind, match = _match(url)
    found = kind(match) if kind else None
    return None if found is None or found.category in NO_SITES else found


@functools.lru_cache(maxsize=1)  # a child asks several times for its link
def _match(url: str) -> tuple[Any, Any]:
    """The extractor's class for a link, and the match; None if there is none."""
    if LINK.match(url):
        candidates, matches, extractors = _table()
        for number in candidates(url):
            if found := matches[number](url):
                return extractors[number], found
    return None, None


Table = tuple[Callable[[str], list[int]], list[Callable[[str], Any]], list[Any]]


def _table() -> Table:
    """What finds the patterns that a link may match, the matches of all patterns in the
    engine's order, and side by side the extractors. Made once, and kept with the
    library: a child that touches every extractor copies much more memory."""
    from gallery_dl import extractor

    if not hasattr(extractor, "_boss_bot_tables"):
        with noting_needs() as needs:
            classes = list(extractor._list_classes())
        patterns = [one.pattern for one in classes]
        matches = [one.match for one in patterns]
        extractor._boss_bot_tables = finder(patterns, needs), matches, classes
    return cast(Table, extractor._boss_bot_tables)


def download(request: Request, report: Report) -> None:
    _configure(request)
    _choose_variants(request, report)
    post = Post(request, report)
    with _collecting_log(post.log):
        found = _find(request.url)
        if found is None:
            raise JobFailed(Cause.UNSUPPORTED, "no extractor of its own")
        try:
            _job_class(post)(found).run()
        except Enough as enough:
            post.more = True
            if enough.failure:
                post.failures.append(enough.failure)
        except Exception as error:  # the engine does not catch a failed set-up
            if not post.failures:
                post.failed(error, post.log)
    post.finish()


def _choose_variants(request: Request, report: Report) -> None:
    """Choose the videos of Twitter and Instagram as any other; the engine always takes
    one of the largest."""
    from gallery_dl.extractor.instagram import InstagramExtractor
    from gallery_dl.extractor.twitter import TwitterExtractor

    want = wanted(request)
    extract = inspect.unwrap(TwitterExtractor._extract_media)
    parse = inspect.unwrap(getattr(InstagramExtractor, "_parse_post", lambda *_: {}))

    @functools.wraps(extract)
    def chosen(self: Any, tweet: Any, entities: Any, files: Any) -> Any:
        for media in entities:
            with contextlib.suppress(*NO_FIND):  # the engine will say so
                info = media["video_info"]
                info["variants"] = [best_variant(info, want, report.info)]
        return extract(self, tweet, entities, files)

    @functools.wraps(parse)
    def parsed(self: Any, post: dict[str, Any]) -> Any:
        pictures: dict[str, list[str]] = {}
        for item in [post, *(post.get("carousel_media") or ())]:
            with contextlib.suppress(*NO_FIND):
                pictures |= smaller_pictures(item["image_versions2"]["candidates"])
            joined = want.ffmpeg and item.get("video_dash_manifest")
            with contextlib.suppress(*NO_FIND):
                session = None if joined else self.session
                item["video_versions"] = [best_version(item, want, session)]
        data = parse(self, post)
        for file in data["_files"]:
            if not file.get("video_url"):
                file["_fallback"] = pictures.get(file.get("display_url"), ())
        return data

    TwitterExtractor._extract_media = chosen
    InstagramExtractor._parse_post = parsed


def best_variant(
    info: dict[str, Any], want: Wanted, tell: Callable[..., None]
) -> dict[str, Any]:
    """The variant to fetch of a video on Twitter, whose links contain the sizes."""
    formats = []
    for variant in info["variants"]:
        url = variant["url"]
        size = re.search(r"/(\d{1,5})x(\d{1,5})/", url)
        form = {"variant": variant, "tbr": (number(variant.get("bitrate")) or 0) / 1000}
        form |= (
            dict(zip(("width", "height"), size.groups(), strict=True)) if size else {}
        )
        codec = re.search(r"/(hevc|hvc1|av1|av01|vp9)/", url)
        form |= {"vcodec": codec[1] if codec else "h264", "acodec": "aac", "ext": "mp4"}
        # The engine cannot fetch a list of segments, but for a last resort.
        formats.append(form | ({"preference": -100} if ".m3u8" in url else {}))
    length_s = (number(info.get("duration_millis")) or 0) / 1000
    (best,) = next(choose(rising(formats), want, length_s), ())
    tell(**shrunk([best], formats, want, length_s))
    return cast(dict[str, Any], best["variant"])


def best_version(item: dict[str, Any], want: Wanted, session: Any) -> dict[str, Any]:
    """The version to fetch of a video on Instagram, where picture and sound are one;
    the site is asked for sizes with ``session``, unless that is None."""

    def ask(form: dict[str, Any]) -> float | None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            answer = session.head(form["version"]["url"], timeout=ASK_S)
            return number(answer.headers.get("Content-Length")) if answer.ok else None
        return None

    formats = [
        {
            "vcodec": "h264",
            "acodec": "aac",
            "ext": "mp4",
            "version": version,
            "width": version.get("width"),
            "height": version.get("height"),
            "tbr": (number(version.get("bandwidth")) or 0) / 1000,
        }
        for version in item["video_versions"]
    ]
    length_s = number(item.get("video_duration"))
    (best,) = next(choose(rising(formats), want, length_s, ask), ())
    return cast(dict[str, Any], best["version"])


def rising(formats: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Formats as `choose` wants them, the largest last."""
    return sorted(formats, key=lambda one: (side_of(one) or 0, one["tbr"]))


def smaller_pictures(candidates: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """The links of the smaller ones by the link of the largest picture, which is the
    first; those of its shape, from large to small."""
    first, *others = candidates
    size = first["width"] / first["height"]
    shape = [c for c in others if abs(c["width"] / c["height"] / size - 1) < 0.02]
    shape.sort(key=lambda one: -one["width"])
    return {first["url"]: [one["url"] for one in shape]}


def previews_of(url: str, known: dict[str, Any]) -> list[str]:
    """The links of the smaller ones that Reddit has of a picture, from large to small;
    of an animation as a video."""
    found = list[str]()
    with contextlib.suppress(*NO_FIND):
        name = re.sub(r".*/|\..*", "", url)
        if not url.startswith("https://i.redd.it/") or not name:
            return []
        for media_id, one in (known.get("media_metadata") or {}).items():
            if media_id == name:
                found += [one["s"]["mp4"]] if one["s"].get("mp4") else []
                found += [small["u"] for small in reversed(one.get("p") or ())]
        for one in () if found else known["preview"]["images"][:1]:
            video = ((one.get("variants") or {}).get("mp4") or {}).get("source")
            sizes = [video] if video else [one["source"], *one["resolutions"][::-1]]
            found += [size["url"] for size in sizes]
    return found


class SizeCheck:
    """Looks at the answer for a file, and sends the engine on to a smaller variant of it
    when it is too large to post. Where none fits, the largest is fetched after all that
    may be."""

    def __init__(self, request: Request, others: Sequence[Any], check: Any) -> None:
        self.request = request
        self.check: Callable[[Any], Any] | None = check
        self.left = [one for one in others if str(one).startswith("http")]
        self.sizes: dict[str, float] = {}  # of files that are too large, by link
        self.final = ""  # the link of a file that is fetched though it does not fit

    def __call__(self, response: Any) -> Any:
        """True to fetch this, a link to ask for that instead; what the site's own check
        says if that is against it."""
        checked = self.check(response) if self.check else True
        size = number(response.headers.get("Content-Length"))
        url = str((response.history or [response])[0].url)
        if checked is not True or not size or size <= self.request.target_bytes:
            return checked
        if url == self.final:
            return True
        self.sizes[url] = size
        if self.left:
            response.close()
            return self.left.pop(0)
        most = self.request.max_file_bytes or size
        allowed = (one for one, size in self.sizes.items() if size <= most)
        self.final = next(allowed, url)
        if self.final == url:
            return True
        response.close()
        return self.final


class Post:
    """The state of the download. The engine also takes it for its ``output``."""

    def __init__(self, request: Request, report: Report) -> None:
        self.request, self.report = request, report
        self.log: list[str] = []  # the engine's warnings and errors
        self.failures: list[JobFailed] = []
        self.unsupported: list[str] = []  # links in the post without an extractor
        self.wait_s: float | None = None  # that the last 429 or 503 asked for
        self.number = self.saved = self.posts = self.children = 0
        self.path: Path | None = None  # of the current file, once it is complete
        self.name = self.alt = ""  # of the current file
        self.count: int | None = None  # of the post's files, if the site gives it
        self.text = ""
        self.more = False

    def next_file(self, name: str, alt: str = "") -> None:
        if self.number >= self.request.max_items:
            raise Enough
        self.number += 1
        self.name, self.alt, self.path = name, alt, None

    def describe(self, known: dict[str, Any]) -> None:
        """Report the facts of the first post, from the engine's keywords."""
        self.posts += 1
        if self.posts > MAX_EMPTY_POSTS * self.request.max_items:
            raise Enough
        listed = (known.get("gallery_data") or {}).get("items")  # Reddit's galleries
        count = known.get("count") or (len(listed) if listed else None)
        whole = self.number == 0 and isinstance(count, int) and count > 0
        self.count = count if whole else None
        adult = is_adult(known)
        if adult is not None and (adult or self.posts == 1):  # one post is enough
            self.report.info(adult=adult)
        if self.posts > 1:
            return
        facts = {fact: _text(known, names.split()) for fact, names in FACTS.items()}
        if re.fullmatch(r"\[[\w ]+\]", facts["text"]):  # "[deleted]" is not a text
            self.log.append(facts.pop("text"))
        self.text = facts.get("text", "")
        self.report.info(**{k: v for k, v in facts.items() if v}, items=self.count)

    def failed(self, error: BaseException | None, log: Sequence[str]) -> None:
        self.failures.append(failure(self.request, error, log, self.wait_s))

    def finish(self) -> None:
        """Report how many items there are and which ones failed; raise JobFailed when
        there is neither a file nor text."""
        if not self.saved:
            self._explain()
        else:
            for one in self.failures:
                self.report.item_failed(one)
        items = max(self.number, self.count or 0) if not self.more else self.count
        self.report.info(items=items, more=self.more)

    def _explain(self) -> None:
        """Raise the reason why there is no file, unless the post is only text."""
        if self.failures:
            raise self.failures[0]
        said = "\n".join(self.log)
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
        self.progress(None, 0, 0)  # from here on, a download can stall

    def success(self, path: str) -> None:
        self.path = self.request.folder / Path(path).name
        self.saved += 1
        self.report.file(self.path, **({"alt": self.alt} if self.alt else {}))

    def progress(self, total: int | None, done: int, speed: int) -> None:
        if total and done > total:  # the response was compressed
            total = None
        report_progress(
            self.request,
            self.report,
            Progress(self.name, done, total, speed or None, self.number, self.count),
        )


def _job_class(post: Post) -> Any:
    """The engine's job class, with our file names and limits; the engine uses it for
    the galleries inside a gallery too."""
    from gallery_dl.exception import ControlException, ExtractionError
    from gallery_dl.job import DownloadJob
    from gallery_dl.text import remove_html

    count_request = request_counter(post.request)

    def on_response(response: Any, **_: Any) -> None:
        count_request()
        read = response.iter_content

        def in_large_pieces(size: int = 1, *rest: Any) -> Any:
            if size == PIECE_BYTES:
                left = min(response.raw.length_remaining or 0, 2**40)
                enough = int(left / post.request.timeout_s * PIECE_S)
                size = max(size, min(enough, MAX_PIECE_BYTES))
            return read(size, *rest)

        response.iter_content = in_large_pieces
        if response.status_code in (429, 503):
            post.wait_s = wait_asked_s(response.headers)
            # The engine would ask again at once.
            if response.status_code == 503 and post.wait_s and not post.saved:
                said = f"'503 {response.reason}' for '{response.url}'"
                raise Enough(JobFailed(Cause.NETWORK, said, "", post.wait_s))

    def wait(
        seconds: Any = None, until: Any = None, adjust: float = 1.0, reason: Any = ""
    ) -> None:
        if isinstance(until, datetime):  # without a zone it means UTC
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
            if self.depth == 1:  # the links in a gallery do not count
                self.extractor.request_location = self._telling(
                    extractor.request_location
                )
            self.site: str = parent.site if parent else extractor.category
            if extractor.category != self.site:  # a link to elsewhere goes as a guest
                self.extractor._init_cookies = lambda: None

        def _telling(self, find: Callable[..., str]) -> Callable[..., str]:
            def found(*arguments: Any, **how: Any) -> str:
                location = find(*arguments, **how)
                post.report.info(leads_to=location)
                return location

            return found

        def _init(self) -> None:
            super()._init()
            if self.extractor.session:
                self.extractor.session.hooks["response"].append(on_response)

        def initialize(self, kwdict: Any = None) -> None:
            super().initialize(kwdict)
            self.pathfmt.build_filename = self._name

        def _name(self, kwdict: dict[str, Any]) -> str:
            # The extension comes from the site. For yt-dlp it is empty, and only the
            # dot remains; yt-dlp adds its own.
            extension = re.sub(r"[^a-z0-9]", "", str(kwdict["extension"]).lower())[:10]
            return f"{post.request.prefix}_{post.number:04d}.{extension}"

        def dispatch(self, messages: Any) -> Any:
            logged = len(post.log)
            try:
                return super().dispatch(messages)
            except Exception as error:  # the engine would only log it
                if isinstance(error, ExtractionError) or not isinstance(
                    error, ControlException
                ):
                    post.failed(error, post.log[logged:])
                raise

        def handle_directory(self, kwdict: dict[str, Any]) -> None:
            super().handle_directory(kwdict)
            post.describe(kwdict)

        def handle_url(self, url: str, kwdict: dict[str, Any]) -> None:
            if url.startswith("text:"):
                if not post.text:
                    post.text = remove_html(url[5:])
                    post.report.info(text=post.text)
                return
            post.next_file(str(kwdict.get("filename") or ""), alt_of(kwdict))
            logged = len(post.log)
            check = kwdict.get("_http_validate")  # a post's files share the keywords
            check = check.check if isinstance(check, SizeCheck) else check
            others = list(islice(kwdict.get("_fallback") or (), MAX_VARIANTS))
            others = others or previews_of(url, kwdict)[:MAX_VARIANTS]
            if post.request.target_bytes and others:
                check = SizeCheck(post.request, others, check)
            kwdict |= {"_fallback": others, "_http_validate": check}
            if url.startswith("ytdl:"):
                guard_yt_dlp(post.request, post.report.info)
            if url.startswith(("http://", "https://", "ytdl:http")):
                super().handle_url(url, kwdict)
            if post.path is None:
                post.failed(None, post.log[logged:])
                own = f"{post.request.prefix}_{post.number:04d}.*"
                for left in post.request.folder.glob(own):
                    left.unlink()

        def handle_skip(self) -> None:
            pass  # the file is too large or missing; the log shows which

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
    log: Sequence[str],
    wait_s: float | None = None,
) -> JobFailed:
    """The failure that an error and the log stand for. The platform's own table of the
    site's phrases comes first, then HTTP statuses and the error's class, then phrases of
    the engine and its libraries."""
    from gallery_dl import exception
    from requests import exceptions as requests

    if isinstance(error, JobFailed):
        return error
    said = [*log, f"{type(error).__name__}: {error}"] if error else list(log)
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
        message = NO_BOTS
    if not cause and statuses:
        cause = first_cause(statuses[-1], STATUS_CAUSES)
    cause = cause or next((c for kind, c in classes if isinstance(error, kind)), None)
    if not cause and isinstance(error, NO_FIND):
        cause = first_cause(detail, OUT_OF_REACH) or Cause.ENGINE_OUTDATED
    cause = cause or first_cause(detail, WORDS)
    if not cause:
        known = isinstance(error, exception.AuthorizationError)
        cause = Cause.LOGIN if known else Cause.INTERNAL if error else Cause.NO_MEDIA
    return JobFailed(cause, detail, message, retry_after_s(cause, detail, wait_s))


def _text(known: dict[str, Any], names: Sequence[str]) -> str:
    """The first of these keywords that has a value, as plain text."""
    from gallery_dl.text import remove_html, unescape

    for name in names:
        value = known.get(name)
        if isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, dict):
            value = next((value[key] for key in NAMES.split() if value.get(key)), None)
        if isinstance(value, datetime) and value.year > 1:  # 1: unknown
            return value.replace(tzinfo=value.tzinfo or UTC).isoformat()
        if isinstance(value, str) and value:
            return str(unescape(remove_html(value)) if HTML.search(value) else value)
    return ""


def alt_of(known: dict[str, Any]) -> str:
    """The description of a file, from the keywords of sites for it; "" for none."""
    alt: Any = None
    if known.get("category") in ("twitter", "bluesky"):
        alt = known.get("description")
    for name, key in (("media", "description"), ("file", "comment")):
        if isinstance(inside := known.get(name), dict):  # Mastodon, Misskey
            alt = alt or inside.get(key)
    with contextlib.suppress(*NO_FIND):  # Reddit's galleries
        for item in known["gallery_data"]["items"]:
            if item["media_id"] == known["filename"]:
                alt = alt or item.get("caption")
    return alt if isinstance(alt, str) else ""


def is_adult(known: dict[str, Any]) -> bool | None:
    """Whether the site marks a post as not for minors; None when it gives no rating."""
    marks = [known[name] for name in ADULT.split() if known.get(name) is not None]
    if marks:
        return any(str(mark).lower() not in ("false", "0", "sfw", "") for mark in marks)
    rating = known.get("rating")
    if ADULT_SITES.search(str(known.get("category"))) and not rating:
        return True
    if not isinstance(rating, str) or not re.match("[A-Za-z]", rating):  # stars
        return None
    if known.get("category") == "newgrounds":  # where "e" is for everyone
        return rating in ("m", "a")
    return bool(re.fullmatch(ADULT_RATING, rating, re.IGNORECASE))


@contextlib.contextmanager
def _collecting_log(log: list[str]) -> Iterator[None]:
    """Collect the engine's warnings and errors; everything it logs is printed."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            print(f"[{record.name}] {text}", file=sys.stderr)
            if record.levelno >= logging.WARNING and text:
                log.append(text)

    root, level = logging.getLogger(), logging.root.level
    collector = Collector(logging.INFO)
    root.addHandler(collector)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(collector)
        root.setLevel(level)


def _configure(request: Request) -> None:
    """Set up the engine: our preferences, then the platform's options, then what no
    option may change."""
    from gallery_dl import config

    share_authorities()
    config.clear()
    ours = {"retries": 1, "timeout": 20, "sleep-retries": 0.5, "ratelimit": "abort"}
    for name, value in {**ours, "sleep-429": 0}.items():
        config.set(("extractor",), name, value)
    for option, value in request.engine_options.items():
        *path, name = option.split(".")
        if path and path[0] in ("extractor", "downloader"):  # others are yt-dlp's
            config.set(path, name, value)

    # A value at the top level overrides every option of a site.
    fixed: dict[str, Any] = {
        "base-directory": f"{unexpanded(request.folder)}{os.sep}",
        "directory": [],
        "filename": "{extension}",  # never used; an f-string could run code
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
        "cookies": unexpanded(request.cookies_file) if request.cookies_file else None,
        "cookies-update": True,
        # yt-dlp takes over videos whose picture and sound are separate:
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
    if "ffmpeg" not in request.programs:  # to join picture and sound
        config.set(("extractor", "instagram"), "videos", "merged")
    cache = unexpanded(request.cache_dir / "gallery-dl.sqlite3")
    config.set(("cache",), "file", cache)


def _yt_dlp_options(request: Request) -> dict[str, Any]:
    return {**preferred_options(request), **fixed_options(request)}
