"""A site, and an engine for it that downloads nothing."""

from bossbot import Engine, Platform, hookimpl


@hookimpl
def register_engines() -> list[Engine]:
    return [Engine("e", lambda: "1", lambda: None, lambda url: False, print)]


@hookimpl
def register_platforms() -> list[Platform]:
    return [Platform("site", "https://site.example/", "https://site.example/", "e")]
