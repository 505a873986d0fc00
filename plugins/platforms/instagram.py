"""Posts, reels and stories on Instagram, downloaded by gallery-dl with a login."""

import re
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr

from bossbot import (
    Cause,
    Platform,
    PluginConfig,
    Refused,
    _,
    hookimpl,
)

# The site, and sites that embed its posts in Discord.
PATTERN = (
    r"https?://(?:(?:(?:www|m)\.)?(?:instagram\.com|instagr\.am)"
    r"|(?:\w+\.)?(?:dd|ee|kk|vx)instagram\.com)/"
)
POST = re.compile(r"(?:/(?!share/)[^/]+)?/(p|tv|reels?)/([\w-]+)", re.ASCII)
# Pages that would show the account the bot is logged in with.
OWN_PAGES = re.compile(
    r"/(?:(?:explore|reels?|stories)?$"
    r"|(?:accounts|direct|notifications|your_activity|archive|emails|stories/me)(?:/|$)"
    r"|[^/]+/saved(?:/|$))",
    re.IGNORECASE,
)

FAILURES = [
    (r"posts are private|Not authorized to view|who follow this", Cause.PRIVATE),
    # From gallery-dl for a post that the account may not see.
    (r"'400 Bad Request' for '\S+/api/v1/media/", Cause.PRIVATE),
    (r"redirect to (?:login|challenge|home) page", Cause.LOGIN),
    (r"(?:checkpoint|challenge|login)_required", Cause.LOGIN),
    (r"redirected to the login|empty media response", Cause.LOGIN),
    (r"Restricted Video", Cause.AGE),
    (r"wait a few minutes|feedback_required|'429 ", Cause.RATE_LIMITED),
    (r"Media not found|'404 Not Found' for '\S+/api/", Cause.GONE),
]


class Config(PluginConfig):
    """Settings in [plugins.instagram]. The site shows almost nothing without a login."""

    sessionid: SecretStr | None = Field(
        None, description="cookie of a logged-in account"
    )


@hookimpl
def register_platforms(config: Config) -> list[Platform]:
    return [
        Platform(
            name="instagram",
            title="Instagram",
            pattern=PATTERN,
            example="https://www.instagram.com/p/BQ0eAlwhDrw/",
            engine="gallery-dl",
            normalise=normalise,
            identity=lambda url: re.sub(r"\.com/(?:tv|reel)/", ".com/p/", url),
            short=r"https://www\.instagram\.com/share/",
            options={
                # Leave out the still pictures of videos and the covers.
                "extractor.instagram.previews": False,
                "extractor.instagram.highlights.covers": False,
            },
            cookies={"sessionid": config.sessionid},
            cookies_domain=".instagram.com",
            login_probe="https://www.instagram.com/p/BQ0eAlwhDrw/",
            failures=FAILURES,
        )
    ]


def normalise(url: str) -> str:
    """The link on www.instagram.com, without the sharer and the photo's number."""
    parts = urlsplit(url)
    path = re.sub(r"/+", "/", unquote(parts.path)).rstrip("/") or "/"
    if OWN_PAGES.match(path):
        raise Refused(
            _(
                "That page looks different for every account. "
                "Paste the link to a single post."
            )
        )
    if (post := POST.match(path)) and post[2] != "audio":  # that is a sound
        kind = post[1].removesuffix("s")
        return f"https://www.instagram.com/{kind}/{post[2]}/"
    path = re.sub(r"/+", "/", parts.path).rstrip("/")
    story = re.search(r"\bstory_media_id=\d+", parts.query)
    return f"https://www.instagram.com{path}" + (f"?{story[0]}" if story else "")
