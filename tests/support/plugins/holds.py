"""Fails every download with the cause that is set; if none is, it starts none until
there is the file "gate" in the data folder."""

from bossbot import App, Cause, PluginConfig, Refused, hookimpl


class Config(PluginConfig):
    cause: str = ""


@hookimpl
async def check_claim(app: App, config: Config) -> None:
    if not config.cause and not (app.settings.data_dir / "gate").exists():
        raise Refused("It is film time.")


@hookimpl
async def check_attempt(config: Config) -> None:
    if config.cause:
        raise Refused("Not today.", cause=Cause[config.cause])
