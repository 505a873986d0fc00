"""Videos, shorts, clips and playlists on YouTube, downloaded by yt-dlp."""

import re
from typing import Annotated, Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from pydantic import BeforeValidator, Field

from bossbot import (
    Cause,
    Platform,
    PluginConfig,
    Refused,
    _,
    hookimpl,
)

PATTERN = (
    r"https?://(?:(?:(?:www|m|music|gaming|consent)\.)?youtube(?:-nocookie|kids)?\.com"
    r"|(?:www\.)?youtu\.be)/"
)
# A video's id: in the path, or in the query of /watch and old links.
IN_PATH = re.compile(
    r"/(?:shorts|live|embed|v|e|w)/(?!videoseries|live_stream)([\w-]{11})", re.ASCII
)
IN_QUERY = re.compile(r"(?:^|[?&;])v=([\w-]{11})", re.ASCII)
LIST = re.compile(r"(?:^|[?&;])list=([\w-]+)", re.ASCII)
# Pages that would show the account the bot is logged in with, or lead there.
OWN_PAGES = re.compile(
    r"/(?:v/|feed|shorts|history|library|subscriptions|profile|purchases"
    r"|account\w*|paid_memberships|redirect|attribution_link|signin|logout)?$"
    r"|/feed/(?!trending|sfv_audio_pivot)|/browse/(?:FE|VLWL|VLL[LM])",
    re.IGNORECASE,
)
# Watch later, liked music, liked videos, my mix; yt-dlp takes them from any query.
OWN_LISTS = re.compile(r"\blist=(?:WL|LM|LL[\w-]*|RDMM)(?![\w-])")
# For a search, a channel's tab or an embedded broadcast.
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
    """A list, also when it comes as one text from the environment: "tv,web"."""
    return re.findall(r"\w+", value) if isinstance(value, str) else value


class Config(PluginConfig):
    """Settings in [plugins.youtube]. The only login is a whole ``cookies_file``."""

    player_clients: Annotated[list[str], BeforeValidator(split)] = Field(
        [],
        description="the apps that yt-dlp imitates, such as tv; empty: its own choice",
    )


@hookimpl
def register_platforms(config: Config) -> list[Platform]:
    clients = {"player_client": config.player_clients} if config.player_clients else {}
    return [
        Platform(
            name="youtube",
            title="YouTube",
            pattern=PATTERN,
            example="https://www.youtube.com/watch?v=YE7VzlLtp-4",
            engine="yt-dlp",
            normalise=normalise,
            identity=lambda url: url.replace("//music.", "//www.", 1),
            options={
                # A link to a video in a list has lost its list by now.
                "noplaylist": False,
                "extractor_args": {"youtube": clients},
            },
            # The account's liked videos, a list that exists only with a login.
            login_probe="https://www.youtube.com/playlist?list=LL",
            failures=FAILURES,
        )
    ]


def normalise(url: str) -> str:
    """The link on www.youtube.com (or music.): to a video without the list around it,
    or to a playlist without its first video."""
    parts = urlsplit(url)
    host = "music" if parts.hostname == "music.youtube.com" else "www"
    path = re.sub(r"/+", "/", unquote(parts.path)).rstrip("/") or "/"
    if parts.hostname == "consent.youtube.com":  # asks for consent, then redirects
        goal = dict(parse_qsl(parts.query)).get("continue", "")
        return normalise(goal if re.match(PATTERN, goal) else "https://youtu.be/")
    if (parts.hostname or "").endswith("youtu.be"):
        path = f"/v{path}"
    query = unquote(parts.query)
    if video := IN_PATH.match(path) or IN_QUERY.search(query):
        return f"https://{host}.youtube.com/watch?v={video[1]}"
    if OWN_PAGES.match(path) or OWN_LISTS.search(query):
        raise Refused(
            _(
                "That page looks different for every account. "
                "Paste the link to a single video."
            )
        )
    if playlist := LIST.search(query):
        return f"https://{host}.youtube.com/playlist?list={playlist[1]}"
    kept = urlencode([p for p in parse_qsl(parts.query) if re.fullmatch(QUERY, p[0])])
    path = re.sub(r"/+", "/", parts.path)
    return f"https://{host}.youtube.com{path}" + (f"?{kept}" if kept else "")
