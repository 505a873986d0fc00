"""Posts on Twitter/X: photos, GIFs, videos and words, downloaded by gallery-dl."""

import re
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from pydantic import Field, SecretStr

from bossbot import Cause, Platform, PlatformConfig, Refused, hookimpl

# The site, and the sites that exist to show its posts in Discord.
SITES = r"(?:(?:www|mobile|m)\.)?(?:x|twitter)\.com"
MIRRORS = r"(?:\w+\.)?(?:[fv]xtwitter|fixupx|fixvx|twittpr)\.com"
PATTERN = rf"https?://(?:(?:{SITES}|{MIRRORS})/|pbs\.twimg\.com/media/)"
POST = re.compile(r"/(\w+|i/web)/status(?:es)?/(\d+)(/quotes)?", re.ASCII)
# Pages that show the host's own account, were it logged in.
OWN_PAGES = re.compile(
    r"/(?:(?:home|explore|notifications|messages|lists|settings|compose|bookmarks"
    r"|i/(?:bookmarks|history|timeline|chat|lists|communities))?$"
    r"|(?:home|notifications|messages|settings|i/(?:bookmarks|history|timeline))/"
    r"|\w+/likes)",
    re.IGNORECASE,
)
# Broadcasts, spaces and old players are no posts: yt-dlp knows them.
PLAYERS = r"https://x\.com/i/(?:broadcasts|events|spaces|videos|cards)/"
QUERY = ("q", "f", "user_id")  # what a search or a user's number needs

FAILURES = [
    (r"NSFW|Age-restricted", Cause.AGE),
    (r"protected|blocked your account", Cause.PRIVATE),
    (r"withheld in|Geoblocked", Cause.REGION),
    (r"Rate.limit exceeded", Cause.RATE_LIMITED),
    (r"Could not authenticate you|temporarily locked", Cause.LOGIN),
    (r"authenticated cookies|'twid' cookie", Cause.LOGIN),
    (r"'Unavailable'|Tweet unavailable|Media unavailable", Cause.GONE),
    (r"No status found|has been suspended|no longer exists", Cause.GONE),
    (r"Space not found|replay is disabled", Cause.GONE),
]


class Config(PlatformConfig):
    """[plugins.twitter] in config.toml."""

    auth_token: SecretStr | None = Field(
        None, description="cookie of a logged-in account; opens age-restricted posts"
    )
    thread: bool = Field(
        False, description="fetch all posts of the author's thread; needs a login"
    )
    quoted: bool = Field(False, description="fetch the quoted post too")


@hookimpl
def register_platforms(config: Config) -> list[Platform]:
    options: dict[str, Any] = {
        # A post without files still has words to show.
        "extractor.twitter.tweet.text-tweets": True,
        "extractor.twitter.quoted": config.quoted,
        # Videos behind a card with a button; not the picture of a linked page.
        "extractor.twitter.cards": True,
        "extractor.twitter.cards-blacklist": ["summary", "summary_large_image"],
        "extractor.twitter.retries-api": 2,  # the default is 9
    }
    # Guests are shown single posts only: without a login, each would fail.
    if config.thread and (config.auth_token or config.cookies_file):
        author = "locals().get('quote_by', author['name']) == user['name']"
        options["extractor.twitter.tweet.conversations"] = True
        options["extractor.twitter.tweet.post-filter"] = author
    return [
        Platform(
            name="twitter",
            pattern=PATTERN,
            example="https://x.com/nasa/status/1",
            engine="gallery-dl",
            routes=[(PLAYERS, "yt-dlp")],
            normalise=normalise,
            options={**options, **config.options},
            cookies={"auth_token": config.auth_token},
            cookies_domain=".x.com",
            cookies_file=config.cookies_file,
            # Guests are shown single posts, but no list of them.
            login_probe="https://x.com/NASA/media",
            proxy=config.proxy,
            sleep_request_s=config.sleep_request_s,
            failures=FAILURES,
        )
    ]


def normalise(url: str) -> str:
    """The link on x.com; a post's without the number of its photo."""
    parts = urlsplit(url)
    if parts.hostname == "pbs.twimg.com":
        return url
    path = re.sub(r"/+", "/", unquote(parts.path)).rstrip("/") or "/"
    if OWN_PAGES.match(path):
        raise Refused("Everyone sees something else there. Paste the link of a post.")
    if post := POST.match(path):
        user, number, quotes = post.groups("")
        return f"https://x.com/{user.removesuffix('/web')}/status/{number}{quotes}"
    query = urlencode([p for p in parse_qsl(parts.query) if p[0] in QUERY])
    path = re.sub(r"/+", "/", parts.path).rstrip("/")
    return f"https://x.com{path}" + (f"?{query}" if query else "")
