"""Refuses every link that it would answer."""

from bossbot import Job, PluginConfig, Refused, hookimpl


class GuildConfig(PluginConfig):
    word: str = ""


@hookimpl
async def check_job(job: Job) -> None:
    raise Refused("not today")


@hookimpl
async def answer_job(job: Job) -> str:
    return "good"
