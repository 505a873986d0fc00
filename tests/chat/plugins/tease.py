"""Commands, buttons and menus that fail in every way."""

import errno
from typing import Literal

import discord
from bossbot_plugins._commands import Denied
from discord import app_commands
from discord.ext import commands

from bossbot import BossbotError, Cause, JobFailed, Refused, hookimpl


class Button(discord.ui.DynamicItem[discord.ui.Button], template="tease:(.*)"):
    def __init__(self, label="Dynamic"):
        custom_id = f"tease:{label}"
        super().__init__(discord.ui.Button(label=label, custom_id=custom_id))

    @classmethod
    async def from_custom_id(cls, interaction, item, match):
        if item.label == "Lost":
            raise KeyError("lost")
        return cls()

    async def callback(self, interaction):
        raise KeyError("token=dynamic")


class View(discord.ui.View):
    @discord.ui.button(label="Plain")
    async def plain(self, interaction, button):
        raise KeyError("plain")

    @discord.ui.button(label="Denied")
    async def denied(self, interaction, button):
        raise Denied("You may not click that.")


@app_commands.context_menu(name="Tease")
async def tease_menu(interaction, message: discord.Message):
    raise KeyError("menu")


class Tease(commands.Cog):
    @commands.hybrid_command()
    async def fail(self, ctx, how: str = ""):
        match how:
            case "defer":
                await ctx.defer(ephemeral=True)
            case "denied":
                raise Denied("You may not, *really*.")
            case "refused":
                raise Refused("No, <@&1>.")
            case "failed":
                raise JobFailed(Cause.GONE, "detail")
            case "unsafe":
                raise BossbotError("**bold** @everyone")
            case "disk":
                raise OSError(errno.ENOSPC, "No space left on device")
            case "slow":
                raise TimeoutError
            case "lost":
                raise ConnectionResetError("reset")
        raise KeyError(how)

    @fail.autocomplete("how")
    async def hows(self, interaction, typed):
        raise KeyError("hows")

    @commands.hybrid_command()
    async def pick(self, ctx, size: Literal["small", "large"], count: int = 1):
        await ctx.send("picked")

    @pick.autocomplete("count")
    async def counts(self, interaction, typed):
        raise KeyError("choices")

    @commands.command()
    async def where(
        self, ctx, place: discord.TextChannel, times: commands.Range[int, 1, 3] = 1
    ):
        await ctx.send("found")

    @commands.command()
    async def bare(self, ctx):
        await ctx.send(embed=discord.Embed(title="bare"))

    @commands.command(ignore_extra=False)
    async def strict(self, ctx):
        await ctx.send("done")

    @commands.command()
    @commands.has_permissions(manage_guild=True)
    async def manage(self, ctx):
        await ctx.send("done")

    @commands.command()
    @commands.is_owner()
    async def own(self, ctx):
        await ctx.send("done")

    @commands.hybrid_command()
    async def buttons(self, ctx):
        view = View()
        view.add_item(Button())
        view.add_item(Button("Lost"))
        await ctx.send("Click.", view=view)


@hookimpl
def register_commands(bot):
    return [Tease(), tease_menu, Button]
