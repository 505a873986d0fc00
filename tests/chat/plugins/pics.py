"""A site with one picture."""

from bossbot import Platform, hookimpl


@hookimpl
def register_platforms() -> list[Platform]:
    link = "https://toy.example/file=image-1.jpg"
    return [Platform("Pics", link, link, "toy")]
