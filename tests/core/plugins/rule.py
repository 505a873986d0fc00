"""Answers every link as the server's settings say, and lets it pass."""

from bossbot import Engine, Job, PluginConfig, hookimpl


class GuildConfig(PluginConfig):
    greeting: str = "Hello"
    loud: bool = False


@hookimpl
def register_engines() -> list[Engine]:
    return [Engine("e", lambda: "1", lambda: None, lambda url: True, print)]


@hookimpl
async def check_job(job: Job, guild: GuildConfig) -> None: ...


@hookimpl
async def answer_job(job: Job, guild: GuildConfig) -> str:
    return f"{guild.greeting}{'!' * guild.loud}"
