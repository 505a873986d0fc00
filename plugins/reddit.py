"""Posts on Reddit: galleries, videos, words and what they link to, by gallery-dl."""

import re
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from pydantic import Field, SecretStr

from bossbot import Cause, Platform, PlatformConfig, Refused, hookimpl

# old., new., np. and the rest are one site; rxddit and vxreddit show it in Discord.
PATTERN = (
    r"https?://(?:(?:\w+\.)?reddit\.com|(?:www\.)?(?:rxddit|vxreddit)\.com"
    r"|(?:(?:www|i|v|preview)\.)?redd\.it)/"
)
POST = re.compile(r"(?:/(?:r|u|user)/[^/]+)?/(?:comments|gallery)/(\w+)")
VIDEO = re.compile(r"/video/(\w+)")
# Pages that show the host's own account, were it logged in.
OWN_PAGES = re.compile(
    r"/(?:(?:best|hot|new|top|rising|controversial|submit)?$"
    r"|(?:me|message|chat|notifications|prefs|settings|subreddits|saved)(?:/|$)"
    r"|r/[^/]*\b(?:friends|mod)\b"
    r"|(?:u|user)/(?:me(?:/|$)|[^/]+/(?:saved|hidden|upvoted|downvoted|gilded)))",
    re.IGNORECASE,
)
QUERY = ("q", "t", "sort", "restrict_sr", "after", "f")  # of searches and listings

FAILURES = [
    (r"pardner|blocked by network security|blocked due to a network policy"
     r"|unable to access the Reddit API|authentication is required", Cause.LOGIN),
    (r"rate limit exceeded|Too Many Requests", Cause.RATE_LIMITED),
    (r"Quarantined|quarantined", Cause.LOGIN),
    (r"Insufficient privileges|[Pp]rivate subreddit|reason given: private",
     Cause.PRIVATE),
    (r"Suspended User|gallery \w+: (?:deleted|missing)|reason given: banned"
     r"|^\[(?:removed|deleted)\]$", Cause.GONE),
]  # fmt: skip


class Config(PlatformConfig):
    """[plugins.reddit] in config.toml. Reddit turns many servers away that show
    neither a cookie nor an app of https://www.reddit.com/prefs/apps."""

    reddit_session: SecretStr | None = Field(
        None, description="cookie of a logged-in account"
    )
    client_id: str | None = Field(None, description="the app's id")
    user_agent: str | None = Field(
        None, description='"Python:NAME:v1.0 (by /u/YOU)", as the app\'s rules ask'
    )
    refresh_token: SecretStr | None = Field(
        None, description="from `gallery-dl oauth:reddit`; opens what you may see"
    )


@hookimpl
def register_platforms(config: Config) -> list[Platform]:
    options = {
        "extractor.reddit.comments": 0,
        # Words are shown as they are; links in them are not followed.
        "extractor.reddit.selftext": False,
        # v.redd.it keeps picture and sound apart; yt-dlp joins them.
        "extractor.reddit.videos": "dash",
    }
    if config.client_id:
        token = config.refresh_token
        options |= {
            "extractor.reddit.client-id": config.client_id,
            "extractor.reddit.user-agent": config.user_agent or "Python:bossbot:v1.0",
            # "cache", the default, would look for another program's token.
            "extractor.reddit.refresh-token": token.get_secret_value() if token else "",
        }
    return [
        Platform(
            name="reddit",
            pattern=PATTERN,
            example="https://www.reddit.com/r/aww/comments/90bu6w/",
            engine="gallery-dl",
            routes=[(r"https://v\.redd\.it/", "yt-dlp")],
            normalise=normalise,
            options={**options, **config.options},
            cookies={"reddit_session": config.reddit_session},
            cookies_domain=".reddit.com",
            cookies_file=config.cookies_file,
            proxy=config.proxy,
            sleep_request_s=config.sleep_request_s,
            failures=FAILURES,
        )
    ]


def normalise(url: str) -> str:
    """The link on www.reddit.com; a post's without its title and comment."""
    parts = urlsplit(url)
    path = re.sub(r"/+", "/", unquote(parts.path)).rstrip("/") or "/"
    match parts.hostname:
        case "i.redd.it" | "preview.redd.it":
            return url
        case "v.redd.it":
            return video(path.split("/")[1])
        case "redd.it" | "www.redd.it" if path != "/":
            return f"https://www.reddit.com/comments/{path.split('/')[1]}"
    if OWN_PAGES.match(path):
        raise Refused("Everyone sees something else there. Paste the link of a post.")
    if post := POST.match(path):
        return f"https://www.reddit.com/comments/{post[1].lower()}"
    if found := VIDEO.match(path):
        return video(found[1])
    query = urlencode([p for p in parse_qsl(parts.query) if p[0] in QUERY])
    path = re.sub(r"/+", "/", parts.path)
    return f"https://www.reddit.com{path}" + (f"?{query}" if query else "")


def video(name: str) -> str:
    """A video's list of pictures and sounds: open to all, unlike its post."""
    return f"https://v.redd.it/{name}/DASHPlaylist.mpd"
