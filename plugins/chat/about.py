"""/ping and /about: the bot's response time, version and uptime."""

# mypy: disable-error-code="arg-type"
# discord.py's types do not know hybrid commands of cogs.

import time
from typing import Any

import discord
from bossbot_plugins._answers import reply
from bossbot_plugins._commands import guard
from discord.ext import commands
from pydantic import Field

import bossbot
from bossbot import (
    App,
    BossBot,
    PluginConfig,
    _,
    format_time,
    hookimpl,
    now,
)

BLUE = discord.Colour(0x5865F2)
SITES = (
    (
        "gallery-dl",
        "https://github.com/mikf/gallery-dl/blob/master/docs/supportedsites.md",
    ),
    ("yt-dlp", "https://github.com/yt-dlp/yt-dlp/blob/master/supportedsites.md"),
)


class Config(PluginConfig):
    """[plugins.about] in config.toml."""

    docs_url: str = Field(
        "", pattern="^(https?://.*)?$", description="where members can read more"
    )


@hookimpl
def register_commands(bot: BossBot, config: Config) -> list[commands.Cog]:
    return [About(bot.app, config)]


class About(commands.Cog):
    """About this bot."""

    def __init__(self, app: App, config: Config) -> None:
        self.app, self.config = app, config

    @guard("ping", group="help")
    @commands.hybrid_command()
    async def ping(self, ctx: commands.Context[Any]) -> None:
        """Measure my response time."""
        began_s = time.perf_counter()
        message = await reply(ctx, _("Pong!"))
        answer_ms = (time.perf_counter() - began_s) * 1000
        text = _("Pong! Answer: {answer}").format(answer=f"{answer_ms:.0f} ms")
        gateway_ms = self.app.bot.latency * 1000
        if gateway_ms < float("inf"):  # else no heartbeat has come back yet
            gateway = _("gateway: {gateway}").format(gateway=f"{gateway_ms:.0f} ms")
            text = f"{text} · {gateway}"
        await message.edit(content=text)

    @guard("about", group="help")
    @commands.hybrid_command()
    async def about(self, ctx: commands.Context[Any]) -> None:
        """Show my version, my engines and my uptime."""
        await ctx.defer(ephemeral=True)  # the engines' versions take a moment
        versions = await self.app.runner.versions()
        embed = discord.Embed(
            title=f"Boss-Bot {bossbot.__version__}",
            description=_(
                "Paste a link, and I post the photos, videos or sound behind it. "
                "{help} lists my commands."
            ).format(help="`/help`"),
            colour=BLUE,
        )
        told = [f"{name} {version}" for name, (version, _age) in versions.items()]
        embed.add_field(name=_("Engines"), value="\n".join(told) or "-")
        up_s = now() - self.app.started_at
        embed.add_field(name=_("Running for"), value=format_time(up_s))
        embed.add_field(name=_("Servers"), value=str(len(self.app.bot.guilds)))
        links = [f"[{name}]({url})" for name, url in SITES if name in versions]
        if links:
            embed.add_field(name=_("Sites"), value=" · ".join(links), inline=False)
        if self.config.docs_url:
            embed.add_field(name=_("Read more"), value=self.config.docs_url)
        await reply(ctx, embed=embed)
