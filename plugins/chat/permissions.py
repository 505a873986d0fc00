"""Who may do what: Discord's own permissions, and the roles, members and channels that a
server names."""

from collections.abc import Iterable
from typing import Annotated, Any

import discord
from bossbot_plugins._commands import permission_title
from pydantic import Field

from bossbot import Action, Job, PluginConfig, Refused, hookimpl

Ids = list[Annotated[int, Field(gt=0)]]

# Whoever has one of these is a moderator, whom a list of roles or channels leaves out.
MODERATES = ("manage_messages", "manage_guild")
# Groups for which a server's roles are those that may; for the others, those that only may.
GRANTED = ("queue", "settings")


class GuildConfig(PluginConfig):
    """[permissions] of a server."""

    download_roles: Ids = Field([], description="roles that may download; none: all")
    stats_roles: Ids = Field([], description="roles that may see /stats; none: all")
    queue_roles: Ids = Field([], description="roles that may manage the queue")
    settings_roles: Ids = Field([], description="roles that may change the settings")
    allowed_channels: Ids = Field([], description="channels to be used in; none: all")
    denied_channels: Ids = Field([], description="channels not to be used in")
    denied_users: Ids = Field([], description="members who may not use the bot")
    platforms: list[str] = Field([], description="sites to download from; none: all")


@hookimpl(tryfirst=True)
async def check_action(action: Action, guild: GuildConfig) -> None:
    """See docs/plugins.md."""
    if action.owner:
        return
    if action.group == "owner":
        raise Refused("Only the bot's owner may do that.")
    if action.user.id in guild.denied_users:
        raise Refused("You may not use this bot on this server.")
    roles = {role.id for role in getattr(action.user, "roles", ())}
    named = set(getattr(guild, f"{action.group}_roles", ()))
    if action.group in GRANTED and roles & named:
        return
    granted = needed(action)
    if missing := [name for name, yes in granted.items() if not yes]:
        raise Refused(f"You may not do that here: it takes {', '.join(missing)}.")
    if any(getattr(action.permissions, name) for name in MODERATES):
        return
    if action.group not in GRANTED and named and not roles & named:
        mentions = ", ".join(f"<@&{number}>" for number in sorted(named))
        raise Refused(
            f"You may not do that here: it takes one of the roles {mentions}."
        )
    places = set(ids_of(action.channel))
    if places & set(guild.denied_channels):
        raise Refused("You may not use this bot in this channel.")
    if guild.allowed_channels and not places & set(guild.allowed_channels):
        mentions = ", ".join(f"<#{number}>" for number in guild.allowed_channels)
        raise Refused(f"You may not use this bot in this channel. Go to {mentions}.")


@hookimpl(tryfirst=True)
async def check_job(job: Job, guild: GuildConfig) -> None:
    """See docs/plugins.md."""
    if guild.platforms and job.platform not in guild.platforms:
        names = ", ".join(guild.platforms)
        raise Refused(f"This server only downloads from {names}.")


def needed(action: Action) -> dict[str, bool]:
    """The permissions that an action takes, in Discord's words, and whether the member
    has them."""
    found = {}
    for name in action.needs:
        if name == "send_messages" and isinstance(action.channel, discord.Thread):
            name = "send_messages_in_threads"
        found[permission_title(name)] = bool(getattr(action.permissions, name))
    return found


def ids_of(channel: Any) -> Iterable[int]:
    """A channel's id, and that of the channel that a thread is in."""
    yield channel.id
    if parent := getattr(channel, "parent_id", None):
        yield parent
