"""Checks permissions: Discord's own, and the roles, members and channels that a server
has set."""

from collections.abc import Iterable
from typing import Any, Literal

from bossbot_plugins._commands import lacking, permission_titles
from pydantic import Field

from bossbot import (
    Action,
    ChannelId,
    Job,
    PlatformName,
    PluginConfig,
    Priority,
    Refused,
    RoleId,
    UserId,
    _,
    hookimpl,
)

Roles = list[RoleId]
Channels = list[ChannelId]

# Whoever has one of these is a moderator, whom a list of roles or channels leaves out.
MODERATES = ("manage_messages", "manage_guild")
# Groups for which a server's roles are those that may; for the others, those that only may.
GRANTED = ("queue", "settings")


class GuildConfig(PluginConfig):
    """[permissions] of a server."""

    download_roles: Roles = Field([], description="roles that may download; none: all")
    stats_roles: Roles = Field([], description="roles that may see /stats; none: all")
    search_roles: Roles = Field(
        [], description="roles that may use /search and /ask; none: all"
    )
    queue_roles: Roles = Field([], description="roles that may manage the queue")
    settings_roles: Roles = Field([], description="roles that may change the settings")
    allowed_channels: Channels = Field(
        [], description="channels where the bot may be used; none: all"
    )
    denied_channels: Channels = Field(
        [], description="channels where the bot may not be used"
    )
    denied_users: list[UserId] = Field(
        [], description="members who may not use the bot"
    )
    platforms: list[PlatformName] = Field(
        [], description="sites to download from; none: all"
    )
    role_priority: dict[RoleId, Literal["low", "normal", "high"]] = Field(
        {}, description="priority of links, by role; the highest role counts"
    )


@hookimpl(tryfirst=True)
async def check_action(action: Action, guild: GuildConfig) -> None:
    """See docs/plugins.md."""
    roles = {role.id for role in getattr(action.user, "roles", ())}
    ranks = [
        Priority[guild.role_priority[n].upper()] for n in roles & {*guild.role_priority}
    ]
    action.priority = max(ranks, default=action.priority)
    if action.owner:
        return
    if action.group == "owner":
        raise Refused(_("Only the bot's owner may do that."))
    of_own_data = (
        action.group == "privacy" and not action.needs
    )  # nobody is denied that
    if action.user.id in guild.denied_users and not of_own_data:
        raise Refused(_("You may not use this bot on this server."))
    named = set(getattr(guild, f"{action.group}_roles", ()))
    if action.group in GRANTED and roles & named:
        return
    if missing := lacking(action.needs, action.channel, action.permissions):
        text = _("You may not do that here. You need {permissions}.")
        raise Refused(text.format(permissions=permission_titles(missing)))
    if any(getattr(action.permissions, name) for name in MODERATES):
        return
    if action.group not in GRANTED and named and not roles & named:
        mentions = ", ".join(f"<@&{number}>" for number in sorted(named))
        text = _("You may not do that here. You need one of the roles {roles}.")
        raise Refused(text.format(roles=mentions))
    places = set(ids_of(action.channel))
    if places & set(guild.denied_channels):
        raise Refused(_("You may not use this bot in this channel."))
    if guild.allowed_channels and not places & set(guild.allowed_channels):
        mentions = ", ".join(f"<#{number}>" for number in guild.allowed_channels)
        text = _("You may not use this bot in this channel. Go to {channels}.")
        raise Refused(text.format(channels=mentions))


@hookimpl(tryfirst=True)
async def check_job(job: Job, guild: GuildConfig) -> None:
    """See docs/plugins.md."""
    if guild.platforms and job.platform not in guild.platforms:
        names = ", ".join(guild.platforms)
        text = _("This server only downloads from {platforms}.")
        raise Refused(text.format(platforms=names))


def ids_of(channel: Any) -> Iterable[int]:
    """A channel's id, and that of the channel that a thread is in."""
    yield channel.id
    if parent := getattr(channel, "parent_id", None):
        yield parent
