"""Tools for the test."""

from typing import Literal

import discord
from bossbot_plugins._commands import guard
from discord import app_commands
from discord.ext import commands

from bossbot import hookimpl


class Tools(commands.Cog):
    @guard("tools fix", group="queue", needs=("manage_messages",))
    @commands.hybrid_command(aliases=["mend"])
    @app_commands.describe(size="how large", count="how many")
    async def fix(self, ctx, size: Literal["small", "large"], id: str, count: int = 1):
        """Fix something *now*.

        What is not broken
        stays as it is.
        """

    @guard("tools fix", group="queue", needs=("manage_messages",))
    @commands.command(name="tfx", hidden=True)
    async def tfx(self, ctx):
        """Fix something."""

    @commands.hybrid_group(name="box")
    async def box(self, ctx):
        """Boxes."""

    @box.command()
    async def open(self, ctx, name: str = ""):
        """Open a box."""

    @commands.command()
    @commands.is_owner()
    async def secret(self, ctx):
        """For the owner."""

    @commands.command()
    @commands.check(lambda ctx: 1 / 0)
    async def broken(self, ctx):
        """Breaks."""


@app_commands.command()
async def slashed(interaction, url: str, limit: int = 1):
    """Only a slash command."""


@app_commands.context_menu(name="Fix it")
async def menu(interaction, message: discord.Message):
    """Fix what is behind a message."""


menu.extras["action"] = "tools fix"


@app_commands.context_menu(name="Look")
async def look(interaction, message: discord.Message):
    """Look at a message."""


@hookimpl
def register_commands(bot):
    return [Tools(), slashed, menu, look]
