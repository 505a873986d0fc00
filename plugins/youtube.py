"""Videos, shorts, clips and playlists on YouTube, downloaded by yt-dlp."""

import re
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from pydantic import Field

from bossbot import Cause, Platform, PlatformConfig, Refused, hookimpl

PATTERN = (
    r"https?://(?:(?:(?:www|m|music|gaming|consent)\.)?youtube(?:-nocookie|kids)?\.com"
    r"|(?:www\.)?youtu\.be)/"
)
VIDEO = re.compile(r"/(?:shorts|live|embed|v|e|w)/(?!videoseries|live_stream)([\w-]{11})")
# Pages that show the host's own account, were it logged in.
OWN_PAGES = re.compile(
    r"/(?:shorts|history|library|profile|account\w*|purchases|paid_memberships)?$"
    r"|/feed/(?!trending|sfv_audio_pivot)|/browse/(?:FE|VLWL|VLL[LM])",
    re.IGNORECASE,
)
OWN_LISTS = r"WL|LM|LL|LL[\w-]*|RDMM"  # watch later, liked music, liked videos, my mix
TRACKING = r"si|pp|feature|app|ab_channel|themeRefresh|cbrd|ucbcb|utm_\w+|t|index"

FAILURES = [
    (r"confirm your age|age.restricted|inappropriate", Cause.AGE),
    # The apostrophe is a curly one, sometimes.
    (r"confirm you.re not a bot|captcha challenge", Cause.LOGIN),
    (r"[Pp]rivate video|members.only|channel's members|Join this channel",
     Cause.PRIVATE),
    (r"requires payment|[Pp]urchase|Premium members|Sign in", Cause.LOGIN),
    (r"in your country|geo.restrict", Cause.REGION),
    (r"try again later|rate-limited by YouTube", Cause.RATE_LIMITED),
    (r"looks truncated", Cause.INVALID_URL),
    (r"DRM protected", Cause.UNSUPPORTED),
    (r"event will begin|Premieres in|is offline|not currently live", Cause.NO_MEDIA),
    (r"has been removed|been terminated|no longer available|[Vv]ideo (?:is )?unavailable"
     r"|isn't available|does not exist|no longer exists", Cause.GONE),
    (r"player response|Cannot identify player|challenge solving failed"
     r"|Signature extraction failed|Only images are available", Cause.ENGINE_OUTDATED),
]  # fmt: skip


class Config(PlatformConfig):
    """[plugins.youtube] in config.toml. A login is a whole ``cookies_file``."""

    player_clients: list[str] = Field(
        [], description="the apps yt-dlp claims to be, for example tv; empty: its choice"
    )


@hookimpl
def register_platforms(config: Config) -> list[Platform]:
    clients = {"player_client": config.player_clients} if config.player_clients else {}
    return [
        Platform(
            name="youtube",
            pattern=PATTERN,
            example="https://www.youtube.com/watch?v=YE7VzlLtp-4",
            engine="yt-dlp",
            normalise=normalise,
            options={
                # Who means the video has no list in the link any more.
                "noplaylist": False,
                "extractor_args": {"youtube": clients},
                **config.options,
            },
            cookies_file=config.cookies_file,
            proxy=config.proxy,
            sleep_request_s=config.sleep_request_s,
            failures=FAILURES,
        )
    ]


def normalise(url: str) -> str:
    """The link on www.youtube.com (or music.): a video's without the list around it,
    a playlist's without the video at its start."""
    parts = urlsplit(url)
    host = "music" if parts.hostname == "music.youtube.com" else "www"
    path = re.sub(r"/+", "/", unquote(parts.path)).rstrip("/") or "/"
    video = VIDEO.match(path) or re.search(r"[?&;]v=([\w-]{11})(?![\w-])", f"?{unquote(parts.query)}")
    if (parts.hostname or "").endswith("youtu.be"):
        video = re.match(r"/([\w-]{11})(?![\w-])", path) or video
    if parts.hostname == "consent.youtube.com":
        return url
    if video:
        return f"https://{host}.youtube.com/watch?v={video[1]}"
    query = parse_qsl(parts.query)
    playlist = dict(query).get("list", "")
    if OWN_PAGES.match(path) or re.fullmatch(OWN_LISTS, playlist):
        raise Refused("Everyone sees something else there. Paste the link of a video.")
    if playlist:
        return f"https://{host}.youtube.com/playlist?list={playlist}"
    kept = urlencode([p for p in query if not re.fullmatch(TRACKING, p[0])])
    path = re.sub(r"/+", "/", parts.path)
    return f"https://{host}.youtube.com{path}" + (f"?{kept}" if kept else "")
