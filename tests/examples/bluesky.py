"""Posts on Bluesky: photos and videos, downloaded by gallery-dl."""

from bossbot import Platform, hookimpl


@hookimpl
def register_platforms() -> list[Platform]:
    return [
        Platform(
            name="bluesky",
            pattern=r"https://bsky\.app/profile/[^/]+/post/",
            example="https://bsky.app/profile/nasa.gov/post/3kabc",
            engine="gallery-dl",
        )
    ]
