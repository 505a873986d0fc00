"""The channels that a member may read, by Discord's rules: the archive searches only
these."""

import asyncio
from collections.abc import Collection
from typing import Any

import discord
from bossbot_plugins._commands import Asked, user_of
from bossbot_plugins._refusals import UNREACHABLE
from loguru import logger

MAX_ASKED = 10  # private threads of which Discord is asked who has joined them
ASK_S = 2.0


def readable_channels(
    guild: discord.Guild,
    member: discord.Member,
    here: Any,
    *,
    public: bool = False,
    joined: Collection[int] = (),
) -> list[int]:
    """The channels and private threads of a guild that a member who asks in ``here``
    may read; public threads belong to their channel. ``joined`` are the ids of private
    threads that the member is in. A ``public`` answer may quote only posts that all its
    readers may read: those in ``here`` and in channels that are open to @everyone.

    By the gateway's cache, and the roles that Discord has sent with the question.
    """
    adult = is_adult(here)
    places = (here.id, getattr(here, "parent_id", 0))
    everybody = guild.default_role
    found = []
    for channel in (*guild.channels, *guild.threads):
        inside = channel.id in joined or channel.id == here.id
        if not may_read(channel, member, adult=adult, joined=inside):
            continue
        asked = not public or channel.id in places
        if asked or may_read(channel, everybody, adult=adult):
            found.append(channel.id)
    return found


def may_read(
    channel: Any, who: Any, *, adult: bool = False, joined: bool = False
) -> bool:
    """Whether a member or a role may read a channel; of threads, only a private one that
    it has ``joined`` or manages. Age-restricted ones only from such a place, ``adult``."""
    thread = isinstance(channel, discord.Thread)
    if isinstance(channel, discord.CategoryChannel):
        return False
    if thread and not channel.is_private():
        return False  # its channel stands for it
    if is_adult(channel) and not adult:
        return False
    try:
        may = channel.permissions_for(who)
    except discord.ClientException:  # a thread of a channel that the bot cannot see
        return False
    voice = isinstance(channel, (discord.VoiceChannel, discord.StageChannel))
    return bool(
        may.view_channel
        and may.read_message_history
        and (may.connect or not voice)
        and (joined or may.manage_threads or not thread)
    )


def is_adult(channel: Any) -> bool:
    """Whether a channel is age-restricted, or the one that a thread is in, if that is
    known."""
    return bool(getattr(channel, "is_nsfw", bool)())


async def channels_for(asked: Asked, *, public: bool = False) -> list[int]:
    """The channels of ``Query.channels`` for the member of a command or click, as they
    are now: ask again for each answer. A direct message sees only itself."""
    guild, here, member = asked.guild, asked.channel, user_of(asked)
    if here is None:
        return []
    if guild is None:
        return [here.id]
    if not isinstance(member, discord.Member):
        return []
    joined = await _joined(guild, member, here)
    return readable_channels(guild, member, here, public=public, joined=joined)


async def _joined(guild: discord.Guild, member: discord.Member, here: Any) -> set[int]:
    """The private threads that a member is in, of those of which that matters. The
    gateway does not send that to the bot; Discord is asked."""
    adult = is_adult(here)
    unsure = [
        thread
        for thread in guild.threads
        if thread.id != here.id
        and thread.is_private()
        and may_read(thread, member, adult=adult, joined=True)
        and not may_read(thread, member, adult=adult)
    ]
    unsure = sorted(unsure, key=lambda thread: thread.id)[-MAX_ASKED:]

    async def is_in(thread: discord.Thread) -> int:
        try:
            await thread.fetch_member(member.id)
            return thread.id
        except discord.NotFound:
            return 0
        except UNREACHABLE as error:
            logger.info("the members of a private thread cannot be read: {!r}", error)
            return 0

    try:
        async with asyncio.timeout(ASK_S):
            return {*await asyncio.gather(*map(is_in, unsure))} - {0}
    except TimeoutError:
        return set()
