"""Asks for what there is when it registers its site and its commands."""

from bossbot import (
    App,
    Platform,
    PlatformConfig,
    PluginConfig,
    Settings,
    Subcommand,
    hookimpl,
)


@hookimpl
def register_platforms(
    app: App, settings: Settings, config: PluginConfig
) -> list[Platform]:
    assert app.settings is settings
    assert isinstance(config, PlatformConfig) and config.proxy
    url = "https://zebra.example/"
    return [Platform("zebra", url, url, "e")]


@hookimpl
def register_subcommands(app: App) -> list[Subcommand]:
    assert "zebra" in app.plugins.registered("platforms")
    return []
