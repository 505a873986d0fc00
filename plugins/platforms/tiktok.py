"""Posts on TikTok: videos by yt-dlp, slideshows of photos by gallery-dl."""

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
    r"https?://(?:(?:(?:www|m|vm|vt)\.)?tiktokv?\.com"
    r"|(?:\w+\.)?(?:vxtiktok|tnktok|tiktxk|tfxktok)\.com)/"
)
POST = re.compile(r"/(@[\w.-]*)/(video|photo)/(\d+)", re.ASCII)
# Other links with a video's number, from old apps and embedded players.
NUMBER = re.compile(r"/(?:share/video|embed(?:/v\d)?|player/v1|v)/(\d+)", re.ASCII)
# Pages that would show the account the bot is logged in with.
OWN_PAGES = re.compile(
    r"/(?:(?:foryou|following|friends|explore|live|login|upload)?$"
    r"|(?:messages|inbox|setting|notifications)(?:/|$)"
    r"|@[^/]*/(?:saved|liked|likes|favorites)(?:/|$))",
    re.IGNORECASE,
)
# yt-dlp does not support photos, and lists only the videos of a profile.
PHOTOS = (
    r"https://www\.tiktok\.com/"
    r"(?:@[^/]*/(?:photo|avatar|posts|reposts|stories)|following$)"
)

FAILURES = [
    (r"comfortable for some audiences", Cause.AGE),
    (r"permission to view this post|Login required to access", Cause.PRIVATE),
    (r"account is either private|error code 102(?:16|22)", Cause.PRIVATE),
    (r"requiring login|redirect to login page|need cookies", Cause.LOGIN),
    # Status 10204, in yt-dlp's and gallery-dl's words.
    (r"IP address is blocked|Requested \w+ not available", Cause.REGION),
    # gallery-dl calls 10231 a region lock, but deleted posts have it too.
    (r"status code 102\d\d|Region locked", Cause.GONE),
    (r"could not be found|livestream has ended", Cause.GONE),
    (r"JS challenge|JavaScript challenge", Cause.ENGINE_OUTDATED),
    (r"rehydration data|data for rehydration", Cause.ENGINE_OUTDATED),
]


class Config(PluginConfig):
    """Settings in [plugins.tiktok]."""

    sessionid: SecretStr | None = Field(
        None, description="cookie of a logged-in account"
    )
    music: bool = Field(True, description="also fetch the music of a slideshow")


@hookimpl
def register_platforms(config: Config) -> list[Platform]:
    return [
        Platform(
            name="tiktok",
            title="TikTok",
            pattern=PATTERN,
            example="https://www.tiktok.com/@tiktok/video/7106594312292453675",
            engine="yt-dlp",
            routes=[(PHOTOS, "gallery-dl")],
            normalise=normalise,
            # Whoever is named in it, the number is the post's, also of a slideshow.
            identity=lambda url: re.sub(
                r"/@[\w.-]*/(?:video|photo)/", "/@/video/", url
            ),
            short=r"https://(?:v[mt]\.tiktok\.com|www\.tiktok\.com/t)/",
            options={"extractor.tiktok.audio": config.music},
            cookies={"sessionid": config.sessionid},
            cookies_domain=".tiktok.com",
            login_probe="https://www.tiktok.com/following",
            failures=FAILURES,
        )
    ]


def normalise(url: str) -> str:
    """The link on www.tiktok.com, without the sharer; a short link stays short."""
    parts = urlsplit(url)
    path = re.sub(r"/+", "/", unquote(parts.path)).rstrip("/") or "/"
    if OWN_PAGES.match(path):
        raise Refused(
            _(
                "That page looks different for every account. "
                "Paste the link to a single video."
            )
        )
    if post := POST.match(path):
        return f"https://www.tiktok.com/{post[1]}/{post[2]}/{post[3]}"
    if number := NUMBER.match(path):
        return f"https://www.tiktok.com/@/video/{number[1]}"
    short = (parts.hostname or "").split(".")[0]
    if short in ("vm", "vt"):
        return f"https://{short}.tiktok.com{path}/"
    # yt-dlp finds broadcasts only under this name.
    host = "m" if path.startswith("/share/live/") else "www"
    return f"https://{host}.tiktok.com{re.sub(r'/+', '/', parts.path)}"
