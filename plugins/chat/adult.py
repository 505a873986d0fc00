"""Adult media goes freely to age-restricted channels; elsewhere the server decides."""

import contextlib
from typing import Any, Literal

import discord
from bossbot_plugins._refusals import UNREACHABLE
from pydantic import Field

from bossbot import App, BossBot, Job, MediaFile, PluginConfig, Refused, _, hookimpl


class GuildConfig(PluginConfig):
    """[adult] of a server."""

    adult: Literal["refuse", "spoiler", "allow"] = Field(
        "refuse", description="adult media in channels that are not age-restricted"
    )


# The rule holds for everybody, the bot's owner included: three times, since neither what
# a post holds nor what a channel is for is known for good.


@hookimpl
async def check_job(job: Job, guild: GuildConfig, app: App) -> None:
    """Refuses a site that is all adult before anything is downloaded."""
    await apply(job, guild, app)


@hookimpl(tryfirst=True)  # before work is spent on it
async def process_files(job: Job, guild: GuildConfig, app: App) -> None:
    """Decides by the facts from the engine, before any text is written."""
    await apply(job, guild, app)


@hookimpl
async def check_upload(
    job: Job, files: list[MediaFile], guild: GuildConfig, app: App
) -> None:
    """Decides again for each message, since the channel may have lost its mark."""
    await apply(job, guild, app)


async def apply(job: Job, guild: GuildConfig, app: App) -> None:
    """Refuse a job that is adult, or make it a spoiler, where that is the rule."""
    if guild.adult == "allow" or not job.channel_id or not is_adult(app, job):
        return
    if await is_restricted(app.bot, job.channel_id):
        return
    if guild.adult == "spoiler":
        job.options["spoiler"] = True
        return
    if not job.guild_id:
        raise Refused(_("That is adult media, which I do not post in direct messages."))
    raise Refused(
        _("That is adult media, which I only post in age-restricted channels here.")
    )


def is_adult(app: App, job: Job) -> bool:
    """Whether the engine or the platform says so."""
    platform = app.plugins.registered("platforms").get(job.platform)
    return bool(job.facts.get("adult") or (platform and platform.adult))


async def is_restricted(bot: BossBot, channel_id: int) -> bool:
    """Whether a channel, or the one that a thread is in, is age-restricted now; no
    direct message is. Asks Discord where there is no gateway; False when it does not
    answer."""
    with contextlib.suppress(*UNREACHABLE):
        channel: Any = bot.get_channel(channel_id)
        channel = channel or await bot.fetch_channel(channel_id)
        if isinstance(channel, discord.Thread):
            parent = channel.parent or await bot.fetch_channel(channel.parent_id)
            channel = parent
        return bool(getattr(channel, "nsfw", False))
    return False
