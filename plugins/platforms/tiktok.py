"""TikTok: videos are downloaded by yt-dlp, slideshows of photos by gallery-dl."""

import re
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr

from bossbot import Cause, Platform, PlatformConfig, Refused, hookimpl

# The site, and the sites that exist to show its posts in Discord.
PATTERN = (
    r"https?://(?:(?:(?:www|m|vm|vt)\.)?tiktokv?\.com"
    r"|(?:\w+\.)?(?:vxtiktok|tnktok|tiktxk|tfxktok)\.com)/"
)
POST = re.compile(r"/(@[\w.-]*)/(video|photo)/(\d+)", re.ASCII)
# Other ways to write a video's number, from old apps and from players in pages.
NUMBER = re.compile(r"/(?:share/video|embed(?:/v\d)?|player/v1|v)/(\d+)", re.ASCII)
# Pages that show the host's own account, were it logged in.
OWN_PAGES = re.compile(
    r"/(?:(?:foryou|following|friends|explore|live|login|upload)?$"
    r"|(?:messages|inbox|setting|notifications)(?:/|$)"
    r"|@[^/]*/(?:saved|liked|likes|favorites)(?:/|$))",
    re.IGNORECASE,
)
# yt-dlp knows no photos, and of a profile only its videos.
PHOTOS = (
    r"https://www\.tiktok\.com/"
    r"(?:@[^/]*/(?:photo|avatar|posts|reposts|stories)|following$)"
)

FAILURES = [
    (r"comfortable for some audiences", Cause.AGE),
    (r"permission to view this post|Login required to access", Cause.PRIVATE),
    (r"account is either private|error code 102(?:16|22)", Cause.PRIVATE),
    (r"requiring login|redirect to login page|need cookies", Cause.LOGIN),
    # Status 10204, as yt-dlp and as gallery-dl word it.
    (r"IP address is blocked|Requested \w+ not available", Cause.REGION),
    # gallery-dl takes 10231 for a region lock; deleted posts answer so.
    (r"status code 102\d\d|Region locked", Cause.GONE),
    (r"could not be found|livestream has ended", Cause.GONE),
    (r"JS challenge|JavaScript challenge", Cause.ENGINE_OUTDATED),
    (r"rehydration data|data for rehydration", Cause.ENGINE_OUTDATED),
]


class Config(PlatformConfig):
    """[plugins.tiktok] in config.toml."""

    sessionid: SecretStr | None = Field(
        None, description="cookie of a logged-in account"
    )
    music: bool = Field(True, description="fetch the music of a slideshow too")


@hookimpl
def register_platforms(config: Config) -> list[Platform]:
    return [
        Platform(
            name="tiktok",
            pattern=PATTERN,
            example="https://www.tiktok.com/@tiktok/video/7106594312292453675",
            engine="yt-dlp",
            routes=[(PHOTOS, "gallery-dl")],
            normalise=normalise,
            options={"extractor.tiktok.audio": config.music, **config.options},
            cookies={"sessionid": config.sessionid},
            cookies_domain=".tiktok.com",
            cookies_file=config.cookies_file,
            login_probe="https://www.tiktok.com/following",
            proxy=config.proxy,
            sleep_request_s=config.sleep_request_s,
            failures=FAILURES,
        )
    ]


def normalise(url: str) -> str:
    """The link on www.tiktok.com, or a short one as it is, without who shared it."""
    parts = urlsplit(url)
    path = re.sub(r"/+", "/", unquote(parts.path)).rstrip("/") or "/"
    if OWN_PAGES.match(path):
        raise Refused("Everyone sees something else there. Paste the link of a video.")
    if post := POST.match(path):
        return f"https://www.tiktok.com/{post[1]}/{post[2]}/{post[3]}"
    if number := NUMBER.match(path):
        return f"https://www.tiktok.com/@/video/{number[1]}"
    short = (parts.hostname or "").split(".")[0]
    if short in ("vm", "vt"):
        return f"https://{short}.tiktok.com{path}/"
    # Broadcasts are yt-dlp's under this name alone.
    host = "m" if path.startswith("/share/live/") else "www"
    return f"https://{host}.tiktok.com{re.sub(r'/+', '/', parts.path)}"
