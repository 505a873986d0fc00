"""Tidies up the message of a request, if the server wants that: hides the previews of
its links at once, and deletes it when all of its files are there."""

import discord
from bossbot_plugins._jobs import MODERATOR, RETRYABLE, UNFINISHED, is_quiet
from bossbot_plugins._lacking import forget_lack, tell_lack
from bossbot_plugins._refusals import UNREACHABLE
from loguru import logger
from pydantic import Field

from bossbot import (
    App,
    Job,
    PluginConfig,
    Status,
    hookimpl,
)

UNKNOWN_MESSAGE = 10008  # Discord: it is gone already
MAX_REMEMBERED = 1000  # requests


class GuildConfig(PluginConfig):
    """[request] of a server."""

    delete_request: bool = Field(
        False, description="delete a request once all of its files are there"
    )
    suppress_preview: bool = Field(
        False, description="hide Discord's previews of a request's links"
    )


_suppressed: dict[int, None] = {}  # requests of several links are looked at once


@hookimpl
async def job_changed(job: Job, guild: GuildConfig, app: App) -> None:
    if not (job.message_id and job.guild_id and app.has_gateway):
        return
    if guild.suppress_preview and job.status in UNFINISHED:
        await suppress(app, job)
    if guild.delete_request and job.status is Status.COMPLETED and not is_quiet(job):
        await delete(app, job)


async def suppress(app: App, job: Job) -> None:
    if job.message_id in _suppressed:
        return
    _suppressed[job.message_id] = None
    for old in list(_suppressed)[:-MAX_REMEMBERED]:
        del _suppressed[old]
    # Of other people's messages only the flags can be edited, and discord.py sends more.
    route = discord.http.Route(
        "PATCH",
        "/channels/{channel_id}/messages/{message_id}",
        channel_id=job.channel_id,
        message_id=job.message_id,
    )
    flags = discord.MessageFlags(suppress_embeds=True)
    try:
        await app.bot.http.request(route, json={"flags": flags.value})
    except UNREACHABLE as error:
        if not isinstance(error, (discord.Forbidden, discord.NotFound)):
            _suppressed.pop(job.message_id, None)  # the next change tries again
        await explain(app, job, "suppress_preview", error)
    else:
        await forget_lack(app, job, "suppress_preview")


async def delete(app: App, job: Job) -> None:
    """Delete the request of a job, unless more files or a failure will follow."""
    others = await app.queue.list(job.guild_id, UNFINISHED)
    others += await app.queue.list(job.guild_id, RETRYABLE, since=job.created_at)
    if any(other.message_id == job.message_id for other in others):
        return
    channel = app.bot.get_partial_messageable(job.channel_id, guild_id=job.guild_id)
    try:
        await channel.get_partial_message(job.message_id).delete()
    except UNREACHABLE as error:
        await explain(app, job, "delete_request", error)
    else:
        await forget_lack(app, job, "delete_request")


async def explain(app: App, job: Job, setting: str, error: Exception) -> None:
    """Say which permission is missing, once in a server until it has been there."""
    if getattr(error, "code", 0) == UNKNOWN_MESSAGE:
        return
    log = logger.bind(job=job.id, guild=job.guild_id)
    log.info("{} could not be done: {!r}", setting, error)
    if not isinstance(error, discord.Forbidden):
        return
    if text := await tell_lack(app, job, setting, MODERATOR):
        channel = app.bot.get_partial_messageable(job.channel_id, guild_id=job.guild_id)
        try:
            await channel.send(text)
        except UNREACHABLE as failed:
            log.info("the member could not be told: {}", failed)
