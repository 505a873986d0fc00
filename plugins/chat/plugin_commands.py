"""/plugins: the bot's owner sees the plugins, loads one again, and syncs the commands."""

# mypy: disable-error-code="arg-type"
# discord.py's types do not know hybrid commands of cogs.

from typing import Any

import discord
from bossbot_plugins._answers import reply
from bossbot_plugins._commands import admit, guard
from discord import app_commands
from discord.ext import commands

from bossbot import (
    App,
    BossBot,
    PluginError,
    Refused,
    _,
    escape,
    hookimpl,
    ngettext,
)

Context = commands.Context[Any]
MAX_CHOICES = 25  # Discord, 2026-11


@hookimpl
def register_commands(bot: BossBot) -> list[commands.Cog]:
    return [Plugins(bot)]


class Plugins(commands.Cog):
    """For the bot's owner."""

    def __init__(self, bot: BossBot) -> None:
        self.bot = bot
        self.app: App = bot.app

    @guard("plugins list", group="owner", needs=())
    @commands.hybrid_group(
        invoke_without_command=True, ignore_extra=False, case_insensitive=True
    )
    @app_commands.default_permissions()  # Discord shows it to administrators only
    async def plugins(self, ctx: Context) -> None:
        """See the plugins, and load one again."""
        await self.show_list(ctx)

    @guard("plugins list", group="owner", needs=())
    @plugins.command(name="list")
    async def list_(self, ctx: Context) -> None:
        """List the plugins, and why some are off."""
        await self.show_list(ctx)

    async def show_list(self, ctx: Context) -> None:
        every = list(self.app.plugins.all.values())
        off = [plugin for plugin in every if plugin.off]
        embed = discord.Embed(
            title=_("Plugins: {on} on, {off} off").format(
                on=len(every) - len(off), off=len(off)
            ),
            description="\n".join(
                f"**{escape(p.stem)}**: {escape(p.off, 300)}" for p in off
            ),
        )
        kinds = sorted({p.kind for p in every}, key=lambda kind: (kind == "own", kind))
        for kind in kinds:
            names = [f"`{p.stem}`" for p in every if p.kind == kind and not p.off]
            title = _("your own") if kind == "own" else kind
            embed.add_field(name=title, value=" ".join(names) or "-", inline=False)
        await reply(ctx, embed=embed)

    @guard("plugins reload", group="owner", needs=())
    @plugins.command(extras={"example": "download"})
    @app_commands.describe(name="the plugin, or its file without .py")
    async def reload(self, ctx: Context, name: str) -> None:
        """Load a plugin again from its file; if that fails, the old one stays."""
        await ctx.defer(ephemeral=True)
        known = {stem.lower(): stem for stem in self.app.plugins.all}
        stem = name.removesuffix(".py")
        stem = known.get(stem.lower(), stem)  # a phone begins with a capital letter
        try:
            loaded = await self.app.reload(stem)
        except PluginError as error:
            raise Refused(escape(str(error), 500)) from error
        shown = f"`{loaded.stem}`"
        if not loaded.off:
            text = _("{name} is loaded again.").format(name=shown)
            if loaded.parts:
                text += " " + _(
                    "It is a part of the bot, so the change takes effect after a "
                    "restart."
                )
            await reply(ctx, text)
            return
        text = _("{name} is off: {reason}")
        if not self.app.plugins.all[loaded.stem].off:
            text = _("The new {name} does not work, and the old one stays: {reason}")
        await reply(ctx, text.format(name=shown, reason=escape(loaded.off, 1000)))

    @reload.autocomplete("name")
    async def names(
        self, interaction: discord.Interaction, typed: str
    ) -> list[app_commands.Choice[str]]:
        await admit(interaction, "plugins reload", group="owner", needs=(), dry=True)
        found = [stem for stem in self.app.plugins.all if typed.lower() in stem]
        return [app_commands.Choice(name=s, value=s) for s in found[:MAX_CHOICES]]

    @guard("plugins sync", group="owner", needs=())
    @plugins.command()
    async def sync(self, ctx: Context) -> None:
        """Send all slash commands to Discord again."""
        await ctx.defer(ephemeral=True)
        if not await self.app.client.sync(again=True):
            raise Refused(
                _("Discord does not accept the commands. The log has the reason.")
            )
        count = len(self.bot.tree.get_commands())
        text = ngettext(
            "Discord has {count} command now.",
            "Discord has {count} commands now.",
            count,
        )
        await reply(ctx, text.format(count=count))
