"""Platforms and engines whose links overlap."""

from bossbot_plugins._toy_engine import engine

from bossbot import Engine, Platform, Refused, hookimpl


def tidy(url: str) -> str:
    if "/feed" in url:
        raise Refused("Not the owner's own feed.")
    return url.partition("?")[0].replace("//m.", "//")


@hookimpl
def register_platforms() -> list[Platform]:
    both, example = r"https://both\.example/", "https://both.example/"
    return [
        Platform(
            "shop",
            r"https?://(?:m\.)?shop\.example/",
            "https://shop.example/1",
            "first",
            routes=[(r".*/video/", "second"), (r".*/v", "first")],
            normalise=tidy,
        ),
        Platform("early", both, example, "first"),
        Platform("later", both, example, "second"),
    ]


@hookimpl
def register_engines() -> list[Engine]:
    return [engine("second"), engine("first")]
