"""Posts, reels and stories on Instagram, downloaded by gallery-dl with a login."""

import re
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr

from bossbot import Cause, Platform, PlatformConfig, Refused, hookimpl

# The site, and the sites that exist to show its posts in Discord.
PATTERN = (
    r"https?://(?:(?:(?:www|m)\.)?(?:instagram\.com|instagr\.am)"
    r"|(?:\w+\.)?(?:dd|ee|kk|vx)instagram\.com)/"
)
POST = re.compile(r"(?:/(?!share/)[^/]+)?/(p|tv|reels?)/([\w-]+)", re.ASCII)
# Pages that show the host's own account, were it logged in.
OWN_PAGES = re.compile(
    r"/(?:(?:explore|reels?|stories)?$"
    r"|(?:accounts|direct|notifications|your_activity|archive|emails|stories/me)(?:/|$)"
    r"|[^/]+/saved(?:/|$))",
    re.IGNORECASE,
)

FAILURES = [
    (r"posts are private|Not authorized to view|who follow this", Cause.PRIVATE),
    # All that gallery-dl says of a post that this account may not see.
    (r"'400 Bad Request' for '\S+/api/v1/media/", Cause.PRIVATE),
    (r"redirect to (?:login|challenge|home) page", Cause.LOGIN),
    (r"(?:checkpoint|challenge|login)_required", Cause.LOGIN),
    (r"redirected to the login|empty media response", Cause.LOGIN),
    (r"Restricted Video", Cause.AGE),
    (r"wait a few minutes|feedback_required|'429 ", Cause.RATE_LIMITED),
    (r"Media not found|'404 Not Found' for '\S+/api/", Cause.GONE),
]


class Config(PlatformConfig):
    """[plugins.instagram] in config.toml. Instagram shows guests next to nothing."""

    sessionid: SecretStr | None = Field(
        None, description="cookie of a logged-in account"
    )


@hookimpl
def register_platforms(config: Config) -> list[Platform]:
    return [
        Platform(
            name="instagram",
            pattern=PATTERN,
            example="https://www.instagram.com/p/BQ0eAlwhDrw/",
            engine="gallery-dl",
            normalise=normalise,
            options={
                # Not the pictures that show before a video plays.
                "extractor.instagram.previews": False,
                "extractor.instagram.highlights.covers": False,
                **config.options,
            },
            cookies={"sessionid": config.sessionid},
            cookies_domain=".instagram.com",
            cookies_file=config.cookies_file,
            login_probe="https://www.instagram.com/p/BQ0eAlwhDrw/",
            proxy=config.proxy,
            sleep_request_s=config.sleep_request_s,
            failures=FAILURES,
        )
    ]


def normalise(url: str) -> str:
    """The link on www.instagram.com, without who shared it and which photo."""
    parts = urlsplit(url)
    path = re.sub(r"/+", "/", unquote(parts.path)).rstrip("/") or "/"
    if OWN_PAGES.match(path):
        raise Refused("Everyone sees something else there. Paste the link of a post.")
    if (post := POST.match(path)) and post[2] != "audio":  # /reels/audio/ is a sound
        kind = post[1].removesuffix("s")
        return f"https://www.instagram.com/{kind}/{post[2]}/"
    path = re.sub(r"/+", "/", parts.path).rstrip("/")
    story = re.search(r"\bstory_media_id=\d+", parts.query)
    return f"https://www.instagram.com{path}" + (f"?{story[0]}" if story else "")
