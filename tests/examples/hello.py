"""The command $hello, also /hello: greets, and counts the links that are waiting."""

from typing import Any

from discord.ext import commands

from bossbot import BossBot, Status, escape, hookimpl


@hookimpl
def register_commands(bot: BossBot) -> list[commands.Command[Any, Any, Any]]:
    @commands.hybrid_command()
    async def hello(ctx: commands.Context[Any]) -> None:
        """Say hello, and count the links that are waiting here."""
        guild_id = ctx.guild.id if ctx.guild else 0
        waiting = await bot.app.queue.list(guild_id, statuses=[Status.QUEUED])
        name = escape(ctx.author.display_name)
        await ctx.send(f"Hello, {name}! Links waiting: {len(waiting)}.")

    return [hello]
