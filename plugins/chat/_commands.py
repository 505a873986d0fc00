"""Shared by all commands, buttons and menus: who may use them, the language of the
answers (check_action sets it), and the limits."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

import discord
from discord.ext import commands

from bossbot import (
    N_,
    Action,
    App,
    BossBot,
    Refused,
    _,
)

MEDIA_NEEDS = ("send_messages", "attach_files")
BOT_NEEDS = ("view_channel", *MEDIA_NEEDS, "read_message_history")

Asked = commands.Context[Any] | discord.Interaction
C = TypeVar("C", bound=commands.Command[Any, Any, Any])


# Discord's words for the permissions that matter here.
PERMISSIONS = {
    "view_channel": N_("View Channel"),
    "send_messages": N_("Send Messages"),
    "send_messages_in_threads": N_("Send Messages in Threads"),
    "create_public_threads": N_("Create Public Threads"),
    "add_reactions": N_("Add Reactions"),
    "embed_links": N_("Embed Links"),
    "attach_files": N_("Attach Files"),
    "read_message_history": N_("Read Message History"),
    "manage_messages": N_("Manage Messages"),
    "manage_guild": N_("Manage Server"),
}


class Denied(commands.CheckFailure):
    """A command was refused; the text is for the member."""


def guard(
    name: str, *, group: str, needs: Sequence[str] = ("send_messages",)
) -> Callable[[C], C]:
    """Guard a command by all ``check_action`` hooks: put it above the decorator that
    makes the command, and above those of its parameters. Arguments as in ``Action``."""

    def apply(command: C) -> C:
        async def may_use(ctx: commands.Context[Any]) -> bool:
            await admit(ctx, name, group=group, needs=needs, dry=True)
            return True

        async def begin(*arguments: Any) -> None:  # the cog comes before the context
            await admit(arguments[-1], name, group=group, needs=needs)

        command.add_check(may_use)
        command.before_invoke(begin)
        vars(command.callback)["action_name"] = name  # a cog copies the command only
        return command

    return apply


def action_name(command: Any) -> str:
    """The name of a command's action; "" if it has no ``guard``. A menu has it in its
    ``extras``, as "action"."""
    named = getattr(command.callback, "action_name", "")
    return str(named or command.extras.get("action", ""))


def signature(command: commands.Command[Any, Any, Any]) -> str:
    """The arguments of a prefix command: "<size> [count]"."""
    return command.usage or re.sub(r'"|=[^]|]*(?=\])', "", command.signature)


async def admit(
    asked: Asked,
    name: str,
    *,
    group: str,
    needs: Sequence[str] = ("send_messages",),
    dry: bool = False,
) -> Action:
    """Let a member do something, or refuse; arguments as in ``Action``. Call it at the
    start of a button's or a menu's callback; commands have ``guard``. With ``dry``, a
    click does not count towards limits, for the second half of something that has
    counted.

    Raises:
        Denied: with the reason, for the member.
    """
    bot = bot_of(asked)
    try:
        action = await action_of(bot, asked, name, group=group, needs=needs, dry=dry)
        await check(bot.app, action)
    except Refused as error:
        raise Denied(str(error)) from error
    if not dry:
        _kept_in(asked)["action"] = action
    return action


def admitted(asked: Asked) -> Action | None:
    """The action that ``admit`` or ``guard`` let a member do; None before."""
    action: Action | None = _kept_in(asked).get("action")
    return action


async def refused(asked: Asked) -> None:
    """Undo an admission, since the command itself refused, so that it counts towards no
    limit. For code that answers errors."""
    if action := _kept_in(asked).pop("action", None):
        await bot_of(asked).app.plugins.call("action_refused", action=action)


def bot_of(asked: Asked) -> BossBot:
    bot: Any = asked.bot if isinstance(asked, commands.Context) else asked.client
    return cast(BossBot, bot)


def interaction_of(asked: Asked) -> discord.Interaction | None:
    """None for a prefix command."""
    return asked if isinstance(asked, discord.Interaction) else asked.interaction


def _kept_in(asked: Asked) -> dict[Any, Any]:
    """The object that keeps an admission: it lives as long as the interaction or
    context."""
    interaction = interaction_of(asked)
    return interaction.extras if interaction else vars(asked)


async def check(app: App, action: Action) -> None:
    """Ask all ``check_action`` hooks; raises Refused. Without the plugin for
    permissions, nobody may do anything."""
    permissions = app.plugins.all.get("permissions")
    if permissions is None or permissions.off:
        raise Refused(
            _(
                "Nobody can use commands now, since the plugin permissions is off. "
                "The bot's owner can find the reason in the log."
            )
        )
    await app.plugins.call("check_action", action=action)


def user_of(asked: Asked) -> discord.Member | discord.User:
    """The member who asks; for a menu or a click, the message has another author."""
    interaction = interaction_of(asked)
    if interaction:
        return interaction.user
    assert isinstance(asked, commands.Context)
    return asked.author


async def action_of(
    bot: BossBot,
    asked: Asked,
    name: str,
    *,
    group: str,
    needs: Sequence[str] = ("send_messages",),
    dry: bool = False,
) -> Action:
    """The action that a member wants to do, from a command's context or an
    interaction."""
    interaction = interaction_of(asked)
    user = user_of(asked)
    channel: Any = asked.channel
    if interaction:  # Discord says what the member may do there, everything included
        permissions = interaction.permissions
    elif isinstance(user, discord.Member):
        permissions = channel.permissions_for(user)
    else:
        permissions = discord.Permissions.none()
    guild_id = asked.guild.id if asked.guild else 0
    if not guild_id:
        permissions = discord.Permissions._dm_permissions()
    return Action(
        name=name,
        group=group,
        guild_id=guild_id,
        channel=channel,
        user=user,
        permissions=permissions,
        needs=needs,
        owner=await bot.is_owner(user),
        dry=dry,
        request=str((interaction or asked.message).id),  # type: ignore[union-attr]
        guild_settings=bot.app.guilds.tables(guild_id),
    )


def permission_title(name: str) -> str:
    """A permission in Discord's words: "Manage Server" of "manage_guild"."""
    words = name.replace("guild", "server").split("_")
    title = " ".join(word if word == "in" else word.capitalize() for word in words)
    return _(PERMISSIONS.get(name, title))


def permission_titles(names: Iterable[str]) -> str:
    return ", ".join(map(permission_title, names))


def lacking(
    names: Iterable[str], channel: Any, granted: discord.Permissions
) -> list[str]:
    """The permissions that are missing in a channel; in a thread, sending needs another
    one."""
    in_thread = isinstance(channel, discord.Thread)
    wanted = (
        "send_messages_in_threads" if in_thread and name == "send_messages" else name
        for name in names
    )
    return [name for name in wanted if not getattr(granted, name)]


def lacked_by_bot(names: Iterable[str], channel: Any) -> list[str]:
    """The permissions that the bot lacks in a channel."""
    guild = getattr(channel, "guild", None)
    if guild is None or guild.me is None:
        return []  # a direct message
    try:
        granted = channel.permissions_for(guild.me)
    except discord.ClientException:  # a thread of a channel that the bot cannot see
        return ["view_channel"]
    return lacking(names, channel, granted)


def cannot_post(channel: Any) -> str:
    """Why the bot cannot post files in a channel; "" when it can."""
    if not (missing := lacked_by_bot(BOT_NEEDS, channel)):
        return ""
    text = _("I cannot post files here. Ask an admin to give me: {permissions}.")
    return text.format(permissions=permission_titles(missing))
