"""Answers with what a hook may ask for."""

from bossbot import App, Job, PluginConfig, Settings, hookimpl


class Config(PluginConfig):
    size: int = 1


class GuildConfig(PluginConfig):
    colour: str = "red"


@hookimpl
async def answer_job(
    guild: GuildConfig, settings: Settings, config: Config, app: App, job: Job
) -> list[object]:
    kind = type(app).__name__
    return [job.id, guild.colour, config.size, settings.max_items, kind]
