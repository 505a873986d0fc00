"""Videos, shorts, clips and playlists on YouTube, downloaded by yt-dlp."""

import re
from typing import Annotated, Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from pydantic import BeforeValidator, Field

from bossbot import Cause, Platform, PlatformConfig, Refused, hookimpl

PATTERN = (
    r"https?://(?:(?:(?:www|m|music|gaming|consent)\.)?youtube(?:-nocookie|kids)?\.com"
    r"|(?:www\.)?youtu\.be)/"
)
# A video's id in the path, or in a query as /watch and old links have it.
IN_PATH = re.compile(
    r"/(?:shorts|live|embed|v|e|w)/(?!videoseries|live_stream)([\w-]{11})", re.ASCII
)
IN_QUERY = re.compile(r"(?:^|[?&;])v=([\w-]{11})", re.ASCII)
LIST = re.compile(r"(?:^|[?&;])list=([\w-]+)", re.ASCII)
# Pages that show the host's own account, were it logged in, or lead there.
OWN_PAGES = re.compile(
    r"/(?:v/|feed|shorts|history|library|subscriptions|profile|purchases"
    r"|account\w*|paid_memberships|redirect|attribution_link|signin|logout)?$"
    r"|/feed/(?!trending|sfv_audio_pivot)|/browse/(?:FE|VLWL|VLL[LM])",
    re.IGNORECASE,
)
# Watch later, liked music, liked videos, my mix; yt-dlp finds them in any query.
OWN_LISTS = re.compile(r"\blist=(?:WL|LM|LL[\w-]*|RDMM)(?![\w-])")
# What a search, a channel's tab or an embedded broadcast needs.
QUERY = r"v|q|query|search_query|sp|view|sort|flow|shelf_id|bp|channel"

FAILURES = [
    (r"confirm your age|age.restricted|inappropriate", Cause.AGE),
    (r"confirm you.re not a bot|captcha challenge", Cause.LOGIN),
    (r"private video|members.only|channel's members", Cause.PRIVATE),
    (r"requires payment|Premium members|Sign in", Cause.LOGIN),
    (r"in your country|geo.restrict", Cause.REGION),
    (r"try again later|rate-limited by YouTube", Cause.RATE_LIMITED),
    (r"looks truncated|forget to quote", Cause.INVALID_URL),
    (r"DRM protected", Cause.UNSUPPORTED),
    (r"event will begin|Premieres in|is offline|not currently live", Cause.NO_MEDIA),
    (r"has been removed|been terminated|no longer (?:available|exists)", Cause.GONE),
    (r"video (?:is )?unavailable|isn't available|does not exist", Cause.GONE),
    (r"player response|Cannot identify player", Cause.ENGINE_OUTDATED),
    (r"challenge solving failed|Only images are", Cause.ENGINE_OUTDATED),
]


def split(value: Any) -> Any:
    """A list that is set in the environment is one text: "tv,web"."""
    return re.findall(r"\w+", value) if isinstance(value, str) else value


class Config(PlatformConfig):
    """[plugins.youtube] in config.toml. A login is a whole ``cookies_file``."""

    player_clients: Annotated[list[str], BeforeValidator(split)] = Field(
        [],
        description="the apps yt-dlp claims to be, for example tv; empty: its choice",
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
            # The account's liked videos; for anyone else there is no such list.
            login_probe="https://www.youtube.com/playlist?list=LL",
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
    if parts.hostname == "consent.youtube.com":  # it asks once, then leads on
        goal = dict(parse_qsl(parts.query)).get("continue", "")
        return normalise(goal if re.match(PATTERN, goal) else "https://youtu.be/")
    if (parts.hostname or "").endswith("youtu.be"):
        path = f"/v{path}"
    query = unquote(parts.query)
    if video := IN_PATH.match(path) or IN_QUERY.search(query):
        return f"https://{host}.youtube.com/watch?v={video[1]}"
    if OWN_PAGES.match(path) or OWN_LISTS.search(query):
        raise Refused("Everyone sees something else there. Paste the link of a video.")
    if playlist := LIST.search(query):
        return f"https://{host}.youtube.com/playlist?list={playlist[1]}"
    kept = urlencode([p for p in parse_qsl(parts.query) if re.fullmatch(QUERY, p[0])])
    path = re.sub(r"/+", "/", parts.path)
    return f"https://{host}.youtube.com{path}" + (f"?{kept}" if kept else "")
