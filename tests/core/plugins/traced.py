"""Hooks that differ in what they ask for and in how they end."""

from bossbot import App, Job, PluginConfig, Refused, hookimpl


class GuildConfig(PluginConfig): ...


@hookimpl
async def check_job(job: Job, guild: GuildConfig, app: App) -> None: ...


@hookimpl
def answer_job(job: Job) -> str:
    return "an answer that stays out of the log"


@hookimpl
async def job_changed() -> None:
    raise LookupError


@hookimpl
async def check_claim() -> None:
    raise Refused("no")
