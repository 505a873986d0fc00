"""One more slash command."""

from typing import Any

import discord
from discord import app_commands

from bossbot import BossBot, hookimpl


@app_commands.command(description="Says hello.")
async def hello(interaction: discord.Interaction) -> None: ...


@hookimpl
def register_commands(bot: BossBot) -> list[Any]:
    return [hello]
