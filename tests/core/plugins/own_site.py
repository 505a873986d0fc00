"""A site with a setting of its own."""

from bossbot import Platform, PluginConfig, hookimpl


class Config(PluginConfig):
    token: str = ""


@hookimpl
def register_platforms(config: Config) -> list[Platform]:
    url = "https://own.example/"
    return [Platform("own", url, url, "e", {"a": config.token, "b": 1})]
