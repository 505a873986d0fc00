"""Posts on Reddit: galleries, videos, text and linked media, by gallery-dl."""

import re
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from pydantic import Field, SecretStr

from bossbot import (
    Cause,
    Platform,
    PluginConfig,
    Refused,
    _,
    hookimpl,
)

# The site with all its subdomains, and sites that embed its posts in Discord.
PATTERN = (
    r"https?://(?:(?:\w+\.)?reddit(?:media)?\.com|(?:www\.)?(?:rxddit|vxreddit)\.com"
    r"|(?:(?:www|i|v|preview)\.)?redd\.it)/"
)
POST = re.compile(
    r"(?:/(?:r|u|user)/[^/]+)?/(?:comments|gallery|link|poll|tb)/([a-z0-9]+)",
    re.IGNORECASE,
)
# On its own, or in a text post: /link/{post}/video/{video}/player.
VIDEO = re.compile(r"(?:(?:/r/[^/]+)?/(?:link|comments)/\w+)?/video/(\w+)", re.ASCII)
# The picture's address in the query of /media.
PICTURE = re.compile(r"url=(https://(?:i|preview)\.redd\.it/[\w.-]+)", re.ASCII)
NAME = re.compile(r"/(\w+)", re.ASCII)  # the whole path on redd.it and v.redd.it
# Pages that would show the account the bot is logged in with.
OWN_PAGES = re.compile(
    r"/(?:(?:best|hot|new|top|rising|controversial|submit)?$"
    r"|(?:me|message|chat|notifications|prefs|settings|subreddits|saved)(?:/|$)"
    r"|r/[^/]*\b(?:friends|mod)\b"
    r"|(?:u|user)/(?:me(?:/|$)|[^/]+/(?:saved|hidden|upvoted|downvoted|gilded)))",
    re.IGNORECASE,
)
QUERY = ("q", "t", "sort", "restrict_sr", "after", "f")  # of searches and listings

FAILURES = [
    # Reddit has blocked the bot's address, and a login helps.
    (r"pardner|blocked by network security|network policy", Cause.LOGIN),
    (r"unable to access the Reddit API|authentication is required", Cause.LOGIN),
    (r"quarantined", Cause.LOGIN),
    (r"rate limit exceeded|Too Many Requests", Cause.RATE_LIMITED),
    (r"Insufficient privileges|private subreddit", Cause.PRIVATE),
    (r"Suspended User|reason given: banned", Cause.GONE),
    (r"gallery \w+: (?:deleted|missing)|^\[(?:removed|deleted)\]$", Cause.GONE),
]


class Config(PluginConfig):
    """Settings in [plugins.reddit]. The site blocks many servers, unless they have a
    cookie or an app from https://www.reddit.com/prefs/apps."""

    reddit_session: SecretStr | None = Field(
        None, description="cookie of a logged-in account"
    )
    client_id: str | None = Field(None, description="the app's id")
    user_agent: str = Field(
        "Python:boss-bot:v1", description="the app's name; better with (by /u/YOU)"
    )
    refresh_token: SecretStr | None = Field(
        None, description="from `gallery-dl oauth:reddit`; for posts only you can see"
    )


@hookimpl
def register_platforms(config: Config) -> list[Platform]:
    options: dict[str, Any] = {
        "extractor.reddit.comments": 0,
        # Text is posted as it is; links in it are not followed.
        "extractor.reddit.selftext": False,
        # v.redd.it has separate picture and sound; yt-dlp joins them.
        "extractor.reddit.videos": "dash",
    }
    if config.client_id:
        options["extractor.reddit.client-id"] = config.client_id
        options["extractor.reddit.user-agent"] = config.user_agent
    if config.refresh_token:
        token = config.refresh_token.get_secret_value()
        options["extractor.reddit.refresh-token"] = token
    return [
        Platform(
            name="reddit",
            title="Reddit",
            pattern=PATTERN,
            example="https://www.reddit.com/r/aww/comments/90bu6w/",
            engine="gallery-dl",
            routes=[(r"https://v\.redd\.it/", "yt-dlp")],
            normalise=normalise,
            short=r"https://www\.reddit\.com/\w+/[^/]+/s/",
            options=options,
            cookies={"reddit_session": config.reddit_session},
            cookies_domain=".reddit.com",
            login_probe="https://www.reddit.com/user/me/saved",
            failures=FAILURES,
        )
    ]


def normalise(url: str) -> str:
    """The link on www.reddit.com; for a post without its title and comment."""
    parts = urlsplit(url)
    path = re.sub(r"/+", "/", unquote(parts.path)).rstrip("/") or "/"
    host = parts.hostname or ""
    if host in ("i.redd.it", "preview.redd.it"):
        return url
    if video := NAME.match(path) if host == "v.redd.it" else VIDEO.match(path):
        # The list of its streams, which everyone may read, unlike its post.
        return f"https://v.redd.it/{video[1]}/DASHPlaylist.mpd"
    if post := NAME.match(path) if host.endswith("redd.it") else POST.match(path):
        return f"https://www.reddit.com/comments/{post[1].lower()}"
    if picture := PICTURE.match(unquote(parts.query)) if path == "/media" else None:
        return picture[1]
    if OWN_PAGES.match(path):
        raise Refused(
            _(
                "That page looks different for every account. "
                "Paste the link to a single post."
            )
        )
    query = urlencode([p for p in parse_qsl(parts.query) if p[0] in QUERY])
    path = re.sub(r"/+", "/", parts.path)
    return f"https://www.reddit.com{path}" + (f"?{query}" if query else "")
