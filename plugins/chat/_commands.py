"""What all commands, buttons and menus have in common: who may use them."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import discord
from discord.ext import commands

from bossbot import Action, App, BossBot, Refused

Asked = commands.Context[Any] | discord.Interaction
C = TypeVar("C", bound=commands.Command[Any, Any, Any])


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
        return command

    return apply


async def admit(
    asked: Asked,
    name: str,
    *,
    group: str,
    needs: Sequence[str] = ("send_messages",),
    dry: bool = False,
) -> Action:
    """Let a member do something, or refuse; arguments as in ``Action``. Call it at the
    start of a button's or a menu's callback; commands have ``guard``.

    Raises:
        Denied: with the reason, for the member.
    """
    bot: BossBot = asked.bot if isinstance(asked, commands.Context) else asked.client  # type: ignore[assignment]
    action = await action_of(bot, asked, name, group=group, needs=needs, dry=dry)
    try:
        await check(bot.app, action)
    except Refused as error:
        raise Denied(str(error)) from error
    return action


async def check(app: App, action: Action) -> None:
    """Ask all ``check_action`` hooks; raises Refused. Without the plugin that knows who
    may do what, nobody may do anything."""
    permissions = app.plugins.all.get("permissions")
    if permissions is None or permissions.off:
        raise Refused(
            "Nobody can use commands now, since the plugin permissions is off. The bot's "
            "owner finds the reason in the log."
        )
    await app.plugins.call("check_action", action=action)


async def action_of(
    bot: BossBot,
    asked: Asked,
    name: str,
    *,
    group: str,
    needs: Sequence[str] = ("send_messages",),
    dry: bool = False,
) -> Action:
    """What a member is about to do, from a command's context or an interaction."""
    interaction = asked if isinstance(asked, discord.Interaction) else asked.interaction
    user = asked.user if isinstance(asked, discord.Interaction) else asked.author
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
        guild_settings=bot.app.guilds.tables(guild_id),
    )


def permission_title(name: str) -> str:
    """A permission in Discord's words: "Manage Server" of "manage_guild"."""
    words = name.replace("guild", "server").split("_")
    return " ".join(word if word == "in" else word.capitalize() for word in words)
