"""Posts on Twitter/X: photos, GIFs, videos and text, downloaded by gallery-dl."""

import re
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from pydantic import Field, SecretStr

from bossbot import (
    Cause,
    Platform,
    PlatformConfig,
    Refused,
    _,
    hookimpl,
)

# The site, and sites that embed its posts in Discord.
SITES = r"(?:(?:www|mobile|m)\.)?(?:x|twitter)\.com"
MIRRORS = r"(?:\w+\.)?(?:[fv]xtwitter|fixupx|fixvx|twittpr)\.com"
PATTERN = rf"https?://(?:(?:{SITES}|{MIRRORS})/|pbs\.twimg\.com/media/)"
POST = re.compile(r"/(\w+|i/web)/status(?:es)?/(\d+)(/quotes)?", re.ASCII)
# Pages that would show the account the bot is logged in with.
OWN_PAGES = re.compile(
    r"/(?:(?:home|explore|notifications|messages|lists|settings|compose|bookmarks"
    r"|i/(?:bookmarks|history|timeline|chat|lists|communities))?$"
    r"|(?:home|notifications|messages|settings|i/(?:bookmarks|history|timeline))/"
    r"|\w+/likes)",
    re.IGNORECASE,
)
# Broadcasts, spaces and old players, which only yt-dlp supports.
PLAYERS = r"https://x\.com/i/(?:broadcasts|events|spaces|videos|cards)/"
QUERY = ("q", "f", "user_id")  # for a search or a user's number

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
    """Settings in [plugins.twitter]."""

    auth_token: SecretStr | None = Field(
        None, description="cookie of a logged-in account; for age-restricted posts"
    )
    thread: bool = Field(
        False, description="always fetch the author's whole thread; needs a login"
    )
    quoted: bool = Field(False, description="also fetch the quoted post")


@hookimpl
def register_platforms(config: Config) -> list[Platform]:
    options: dict[str, Any] = {
        # Also posts that have only text.
        "extractor.twitter.tweet.text-tweets": True,
        "extractor.twitter.quoted": config.quoted,
        # Videos on cards with a button, but no previews of linked pages.
        "extractor.twitter.cards": True,
        "extractor.twitter.cards-blacklist": ["summary", "summary_large_image"],
        "extractor.twitter.retries-api": 2,  # the default is 9
    }
    thread: dict[str, Any] = {}
    # Without a login the site shows only single posts, and every thread would fail.
    if config.auth_token or config.cookies_file:
        author = "locals().get('quote_by', author['name']) == user['name']"
        thread = {
            "extractor.twitter.tweet.conversations": True,
            "extractor.twitter.tweet.post-filter": author,
        }
    return [
        Platform(
            name="twitter",
            title="Twitter/X",
            pattern=PATTERN,
            example="https://x.com/nasa/status/1",
            engine="gallery-dl",
            routes=[(PLAYERS, "yt-dlp")],
            normalise=normalise,
            # Whoever is named in it, the number is the post's.
            identity=lambda url: re.sub(r"x\.com/\w+/status/", "x.com/i/status/", url),
            options={**options, **(thread if config.thread else {})},
            thread_options=thread,
            cookies={"auth_token": config.auth_token},
            cookies_domain=".x.com",
            # Without a login there is no list of posts.
            login_probe="https://x.com/NASA/media",
            failures=FAILURES,
        )
    ]


def normalise(url: str) -> str:
    """The link on x.com; for a post without the photo's number."""
    parts = urlsplit(url)
    if parts.hostname == "pbs.twimg.com":
        return url
    path = re.sub(r"/+", "/", unquote(parts.path)).rstrip("/") or "/"
    if OWN_PAGES.match(path):
        raise Refused(
            _(
                "That page looks different for every account. "
                "Paste the link to a single post."
            )
        )
    if post := POST.match(path):
        user, number, quotes = post.groups("")
        return f"https://x.com/{user.removesuffix('/web')}/status/{number}{quotes}"
    query = urlencode([p for p in parse_qsl(parts.query) if p[0] in QUERY])
    path = re.sub(r"/+", "/", parts.path).rstrip("/")
    return f"https://x.com{path}" + (f"?{query}" if query else "")
