"""The guard around yt-dlp, for both engines: gallery-dl hands some videos over to it."""

import contextlib
import errno
import functools
import importlib.metadata
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from bossbot_plugins._failures import request_counter
from bossbot_plugins._formats import (
    mark_sounds,
    mark_streams,
    selector,
    sounds_of,
    tidy,
)
from bossbot_plugins._programs import JS_RUNTIMES

from bossbot import Request

# The containers that ffmpeg may open. A playlist is not among them: it could name other
# files.
MEDIA = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,aac,mp3,ogg,flac,wav,flv"
MAX_FRAGMENTS = 5000  # of one file; 2.7 hours in pieces of two seconds
YT_DLP_NAMES = {"qjs": "quickjs"}  # of the runtimes that it calls by another name

# Our choice, which a platform's options may change: first what plays everywhere, then
# the best of it.
PREFERRED_OPTIONS: dict[str, Any] = {
    "format_sort": ["vcodec:h264", "lang", "quality", "res", "fps", "acodec:aac"],
    "fragment_retries": 2,
    "extractor_retries": 1,
}


def preferred_options(request: Request) -> dict[str, Any]:
    """Our choice, within the requested quality: the largest picture that is not larger,
    or else the smallest one."""
    quality = str(request.options.get("quality", ""))
    if not quality.isdecimal():
        return PREFERRED_OPTIONS
    bounded = [f"res:{quality}", *PREFERRED_OPTIONS["format_sort"]]
    return {**PREFERRED_OPTIONS, "format_sort": bounded}


def fixed_options(request: Request) -> dict[str, Any]:
    """The options of yt-dlp that nothing may change."""
    programs = request.programs
    return {
        "max_filesize": request.max_file_bytes or None,
        "sleep_interval_requests": request.sleep_request_s,
        "cachedir": unexpanded(request.cache_dir),
        "noprogress": True,
        "skip_unavailable_fragments": False,
        "cookiesfrombrowser": None,
        "usenetrc": False,
        "netrc_cmd": None,
        "enable_file_urls": False,
        "nocheckcertificate": False,
        # The system's certificate authorities, if the owner has set their place.
        "compat_opts": {"no-certifi"} if "SSL_CERT_FILE" in os.environ else set(),
        "impersonate": None,
        "external_downloader": {"default": "native"},
        "hls_prefer_native": True,
        "js_runtimes": {
            YT_DLP_NAMES.get(name, name): {"path": programs[name]}
            for name in JS_RUNTIMES
            if name in programs
        },
        "remote_components": set(),
        # A path that does not exist keeps yt-dlp from searching PATH.
        "ffmpeg_location": programs.get("ffmpeg", f"{request.folder}/no-ffmpeg"),
    }


def unexpanded(path: Path) -> str:
    """A path for the engines, which read $NAME in it as a variable: from the working
    directory on, so that no folder of the owner's is named."""
    return os.path.relpath(os.path.realpath(path), os.getcwd())


def guard_yt_dlp(
    request: Request, info: Callable[..., None] = lambda **facts: None
) -> None:
    """Confine yt-dlp in this process to what the request allows, and have it choose
    formats as `_formats` does, unless an option names them; a second call replaces the
    first. ``info`` gets what there is to report of a video: see ``Report``.

    yt-dlp then starts only the helper programs: ffmpeg and ffprobe on local media files,
    and a JavaScript runtime with the memory it needs. It loads no plugins, and makes no
    connection that the sandbox cannot check.
    """
    from yt_dlp import YoutubeDL
    from yt_dlp.downloader.common import FileDownloader
    from yt_dlp.downloader.external import FFmpegFD
    from yt_dlp.downloader.fragment import FragmentFD
    from yt_dlp.extractor.common import InfoExtractor
    from yt_dlp.globals import plugin_dirs
    from yt_dlp.networking.common import _REQUEST_HANDLERS
    from yt_dlp.postprocessor.common import PostProcessor
    from yt_dlp.postprocessor.ffmpeg import FFmpegPostProcessor
    from yt_dlp.utils import ExtractorError, Popen

    programs = {name: os.path.realpath(p) for name, p in request.programs.items()}
    runtimes = {programs[name] for name in JS_RUNTIMES if name in programs}
    whitelists = ["-protocol_whitelist", "file", "-format_whitelist", MEDIA]
    # Without a guard from an earlier call.
    start = inspect.unwrap(Popen.__init__)
    run_ffmpeg = inspect.unwrap(FFmpegPostProcessor.real_run_ffmpeg)
    parse_hls = inspect.unwrap(InfoExtractor._parse_m3u8_formats_and_subtitles)
    parse_mpd = inspect.unwrap(InfoExtractor._parse_mpd_periods)
    process_video = inspect.unwrap(YoutubeDL.process_video_result)
    process_info = inspect.unwrap(YoutubeDL.process_info)
    urlopen = inspect.unwrap(YoutubeDL.urlopen)
    prepare = inspect.unwrap(FragmentFD._prepare_frag_download)
    count_request = request_counter(request)

    @functools.wraps(start)
    def guarded_start(self: Any, argv: Any, *rest: Any, **how: Any) -> None:
        program = os.path.realpath(argv[0])
        if program not in programs.values():  # yt-dlp probes for several by name
            raise FileNotFoundError(errno.ENOENT, "not for downloads", argv[0])
        if program == programs.get("ffprobe"):
            argv = [argv[0], *whitelists, *argv[1:]]
        with _all_memory(program in runtimes):
            start(self, argv, *rest, **how)

    @functools.wraps(run_ffmpeg)
    def guarded_ffmpeg(self: Any, inputs: Any, outputs: Any, **how: Any) -> Any:
        guarded = ["-nostdin", *whitelists]
        inputs = [(path, [*guarded, *options]) for path, options in inputs]
        # A format listed as a picture may be only sound: then there is none to map.
        outputs = [
            (path, [re.sub(r"^\d+:v:0$", r"\g<0>?", option) for option in options])
            for path, options in outputs
        ]
        return run_ffmpeg(self, inputs, outputs, **how)

    def refuse(self: Any, *_: Any) -> bool:
        self.report_error("unsupported: only ffmpeg could fetch it")
        return False

    @functools.wraps(parse_hls)
    def parse(self: Any, playlist: str, *rest: Any, **how: Any) -> Any:
        formats, subtitles = parse_hls(self, with_codecs(playlist), *rest, **how)
        mark_sounds(playlist, formats)
        return formats, subtitles

    @functools.wraps(parse_mpd)
    def parse_dash(
        self: Any, mpd: Any, mpd_id: Any = None, *rest: Any, **how: Any
    ) -> Any:
        periods = list(parse_mpd(self, mpd, mpd_id, *rest, **how))
        mark_streams(mpd, [f for one in periods for f in one["formats"]], mpd_id)
        return periods

    @functools.wraps(process_video)
    def choose(self: Any, video: dict[str, Any], *rest: Any, **how: Any) -> Any:
        tidy(video, video.get("formats"))
        live = any(one.get("is_live") for one in video.get("formats") or ())
        video["is_live"] = video.get("is_live") or live
        if video["is_live"] and not self.params.get("match_filter"):  # it says so
            raise ExtractorError("unsupported: it is live", expected=True)
        if not self.params.get("format"):
            self.format_selector = selector(self, request, video, info)
        return process_video(self, video, *rest, **how)

    @functools.wraps(process_info)
    def process(self: Any, video: dict[str, Any]) -> Any:
        processed = process_info(self, video)
        if video.get("acodec") == "none":
            others = video.get("formats") or ()
            if any(one.get("acodec") != "none" for one in others):
                info(mute=True)
        return processed

    @functools.wraps(urlopen)
    def counted(self: Any, request: Any) -> Any:
        count_request()
        return urlopen(self, request)

    @functools.wraps(prepare)
    def bounded(self: Any, context: dict[str, Any]) -> Any:
        if (context.get("total_frags") or 0) > MAX_FRAGMENTS:
            raise OSError(errno.EFBIG, "File too large")
        return prepare(self, context)

    YoutubeDL.urlopen = counted
    FragmentFD._prepare_frag_download = bounded
    InfoExtractor._parse_m3u8_formats_and_subtitles = parse
    InfoExtractor._parse_mpd_periods = parse_dash
    YoutubeDL.process_video_result = choose
    YoutubeDL.process_info = process
    plugin_dirs.value = []
    _REQUEST_HANDLERS.pop("CurlCFFI", None)  # connects in C, past the audit hook
    # Nobody sees these, and they take longer than to fetch a piece.
    for kind in (FileDownloader, PostProcessor):
        kind.report_progress = lambda self, status: None
    FFmpegFD.available = classmethod(lambda cls, path=None: False)
    FFmpegFD.real_download = refuse
    Popen.__init__ = guarded_start
    FFmpegPostProcessor.real_run_ffmpeg = guarded_ffmpeg
    # It would run ffprobe, only to help an ffmpeg older than 2017.
    FFmpegPostProcessor.get_audio_codec = lambda self, path: None


def with_codecs(playlist: str) -> str:
    """An HLS master in which each variant with its sound in a list apart has CODECS.
    yt-dlp takes one without for complete, and would fetch the picture only."""
    from yt_dlp.utils import parse_m3u8_attributes

    apart = {one.get("GROUP-ID") for one in sounds_of(playlist)}

    def changed(line: str) -> str:
        if not line.startswith("#EXT-X-STREAM-INF:"):
            return line
        known = parse_m3u8_attributes(line)
        if known.get("CODECS") or known.get("AUDIO") not in apart:
            return line
        return f'{line.rstrip(",")},CODECS="avc1"'

    return "\n".join(map(changed, playlist.splitlines())) if apart else playlist


@contextlib.contextmanager
def _all_memory(wanted: bool) -> Iterator[None]:
    """Raise the soft memory limit to the hard one while a program starts."""
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


@functools.cache
def leave_out() -> None:
    """Keep from the memory of all children what libraries import but downloads do not
    need, or rarely; before the libraries are imported."""
    for name in (
        "mutagen",  # 2 MB, to write tags
        "cffi",  # 1 MB; Cryptodome does without, as fast
    ):
        sys.modules.setdefault(name, cast(Any, None))
    name = "charset_normalizer"  # 2 MB, for pages that do not name their encoding
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        late: Any = ModuleType(name)
        late.__version__ = importlib.metadata.version(name)  # requests asks for it

        def find(attribute: str) -> Any:
            if attribute.startswith("__"):
                raise AttributeError(attribute)
            if sys.modules.get(name) is late:
                del sys.modules[name]
            return getattr(importlib.import_module(name), attribute)

        late.__getattr__ = find
        sys.modules.setdefault(name, late)


def share_authorities() -> None:
    """Make requests and ssl trust the same certificate authorities, if the owner has
    set a file of them for either."""
    names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
    if file := next(filter(None, map(os.environ.get, names)), None):
        for name in names:
            os.environ.setdefault(name, file)
