"""The Discord client, and ``run``, the command that connects it."""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, cast

import aiohttp
import discord
from discord import app_commands
from discord.ext import commands
from loguru import logger

from bossbot import (
    HERE,
    SENTENCES,
    BossBot,
    BossbotError,
    Cause,
    Finding,
    Pipeline,
    Plugin,
    Settings,
    StartError,
    Subcommand,
    escape,
    hookimpl,
)

INTENTS_REMEDY = (
    "Discord refuses the message content intent, which $ commands need. Switch on "
    "'Message Content Intent' at https://discord.com/developers/applications under "
    "your application > Bot, or set BOSS_BOT_MESSAGE_CONTENT=false in .env to go on "
    "with slash commands alone."
)
NO_TOKEN = (
    "No token. Make an application at https://discord.com/developers/applications, copy "
    f"its bot's token and write BOSS_BOT_DISCORD_TOKEN=... into {HERE / '.env'}."
)
TOKEN_REMEDY = (
    "Discord refuses the token. Make a new one at "
    "https://discord.com/developers/applications under your application > Bot > "
    "Reset Token, and give it to `python bossbot.py setup`."
)
UNREACHABLE = (discord.DiscordException, OSError, aiohttp.ClientError)


@hookimpl
def register_subcommands() -> list[Subcommand]:
    return [Subcommand("run", "connect to Discord; the default", run)]


@hookimpl
async def check_host(settings: Settings) -> list[Finding]:
    """Whether Discord takes the token and grants the intent."""
    if not settings.discord_token:
        return []
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
    cost = "the bot cannot connect"
    async with discord.Client(intents=discord.Intents(guilds=True)) as client:
        try:
            await client.login(settings.discord_token.get_secret_value())
            flags = (await client.application_info()).flags
        except discord.LoginFailure:
            return [Finding("Discord refuses the token", cost, TOKEN_REMEDY, True)]
        except UNREACHABLE as error:
            what = f"Discord cannot be reached ({error})"
            return [Finding(what, cost, "Check the network.")]
    granted = flags.gateway_message_content or flags.gateway_message_content_limited
    if granted or not settings.message_content:
        return []
    return [Finding("no Message Content Intent", cost, INTENTS_REMEDY, True)]


class Client(commands.Bot):
    """The bot on Discord, which starts and stops the pipeline."""

    def __init__(self, pipeline: Pipeline, **options: Any) -> None:
        settings = pipeline.settings
        intents = discord.Intents(guilds=True, guild_messages=True, dm_messages=True)
        intents.message_content = settings.message_content
        super().__init__(
            **{
                "command_prefix": commands.when_mentioned_or(settings.command_prefix),
                "intents": intents,
                "allowed_mentions": discord.AllowedMentions.none(),
                "chunk_guilds_at_startup": False,
                "max_messages": None,
                "guild_ready_timeout": 0.5,
                "max_ratelimit_timeout": 60,  # else an upload's time runs out in it
                **options,
            }
        )
        self.pipeline = pipeline
        self._closing = False
        self._starting: asyncio.Task[None] | None = None
        self._greeting: asyncio.Task[None] | None = None

    async def setup_hook(self) -> None:
        """Start the pipeline, install the plugins' commands, sync what changed."""
        if self._closing:  # told so before it could begin
            raise asyncio.CancelledError
        self._starting = asyncio.create_task(self._set_up())
        await self._starting
        self._greeting = asyncio.create_task(self._greet())

    async def _set_up(self) -> None:
        try:
            await self.pipeline.start(cast(BossBot, self))
        except OSError as error:  # not to be taken for the network's
            data = self.pipeline.settings.data_dir
            raise StartError(f"{data} cannot be used: {error}") from error
        plugins = self.pipeline.plugins
        for plugin, things in plugins.call_with_owner("register_commands", bot=self):
            await self._install(plugin, things)
        self.tree.error(self._on_app_command_error)
        payload = [command.to_dict(self.tree) for command in self.tree.get_commands()]
        digest = hashlib.sha256(
            json.dumps([self.application_id, payload], sort_keys=True).encode()
        ).hexdigest()
        if await self.pipeline.db.fact("commands") != digest:
            try:
                await self.tree.sync()
                await self.pipeline.db.fact("commands", digest)
            # The commands that Discord knows go on working; the next start tries again.
            except UNREACHABLE as error:
                logger.error("Discord does not take the slash commands: {}", error)

    async def _install(self, plugin: Plugin, things: Sequence[Any]) -> None:
        """Add a plugin's commands; all of them, or none and the plugin is off."""
        try:
            async with contextlib.AsyncExitStack() as undo:
                for thing in things:
                    if isinstance(thing, commands.Cog):
                        await self.add_cog(thing)
                        undo.push_async_callback(self.remove_cog, thing.qualified_name)
                    elif isinstance(thing, commands.Command):
                        self.add_command(thing)
                        undo.callback(self.remove_command, thing.name)
                    elif isinstance(thing, type):
                        self.add_dynamic_items(thing)
                        undo.callback(self.remove_dynamic_items, thing)
                    else:
                        self.tree.add_command(thing)
                        kind = getattr(thing, "type", discord.AppCommandType.chat_input)
                        undo.callback(self.tree.remove_command, thing.name, type=kind)
                undo.pop_all()
        except Exception as error:  # the boundary of a plugin
            logger.error("{} is off: {}", plugin.stem, error)
            self.pipeline.plugins.switch_off(plugin.stem, str(error))

    async def _greet(self) -> None:
        await self.wait_until_ready()
        logger.info("connected as {} to {} servers", self.user, len(self.guilds))
        await self.pipeline.plugins.call("bot_started", bot=self)

    async def close(self) -> None:
        """Stop cleanly: see ``Pipeline.stop``."""
        if self._closing:
            return
        self._closing = True
        if self._greeting:
            self._greeting.cancel()
        if self._starting and not self._starting.done():  # half a start is none
            self._starting.cancel()
            await asyncio.wait([self._starting], timeout=20)
        await self.pipeline.plugins.call("bot_stopping", bot=self)
        await self.pipeline.stop()
        await super().close()

    async def on_command_error(
        self, context: commands.Context[Any], error: commands.CommandError, /
    ) -> None:
        """Answer a wrong use; log what is our own mistake."""
        if isinstance(error, commands.CommandNotFound):
            return
        cause = getattr(error, "original", error)
        if isinstance(cause, app_commands.CommandInvokeError):
            cause = cause.original
        text = SENTENCES[Cause.INTERNAL]
        if isinstance(cause, (commands.CommandError, BossbotError)):
            text = escape(str(cause), 1000)
        else:
            logger.opt(exception=cause).error("a command failed")
        with contextlib.suppress(discord.DiscordException, OSError):
            await context.send(text)

    async def _on_app_command_error(
        self, interaction: discord.Interaction, error: app_commands.AppCommandError
    ) -> None:
        context = await commands.Context.from_interaction(cast(Any, interaction))
        await self.on_command_error(context, cast(Any, error))


class ShardedClient(Client, commands.AutoShardedBot):
    """The same, for more than 2,500 servers."""


def make_bot(pipeline: Pipeline, **options: Any) -> BossBot:
    """A client that is not connected yet; options go to ``commands.Bot``."""
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
    kind = ShardedClient if pipeline.settings.shards else Client
    return cast(BossBot, kind(pipeline, **options))


async def run(pipeline: Pipeline, args: argparse.Namespace) -> int:
    """Connect and stay until stopped; returns the exit code.

    Raises:
        StartError: Discord or this machine does not let the bot go on.
    """
    token = pipeline.settings.discord_token
    if not token:
        raise StartError(NO_TOKEN)
    loop = asyncio.get_running_loop()
    bot = make_bot(pipeline)
    closing: list[asyncio.Task[None]] = []
    times = 0

    def stop() -> None:
        logger.info("stopping")
        closing.append(asyncio.create_task(bot.close()))

    def asked(*_: Any) -> None:  # not by the loop, which a plugin may block
        nonlocal times
        times += 1
        if times > 1:
            os._exit(1)
        loop.call_soon_threadsafe(stop)
        with contextlib.suppress(AttributeError, OSError):  # it may be closed
            os.write(sys.stderr.fileno(), b"once more to stop at once\n")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, asked)
    try:
        async with bot:
            await bot.start(token.get_secret_value())
    except discord.LoginFailure as error:
        raise StartError(TOKEN_REMEDY) from error
    except discord.PrivilegedIntentsRequired as error:
        raise StartError(INTENTS_REMEDY) from error
    except (*UNREACHABLE, RuntimeError, asyncio.CancelledError) as error:
        if closing:  # what close() cut off
            return 0
        if isinstance(error, asyncio.CancelledError):
            raise
        remedies = {4004: TOKEN_REMEDY, 4014: INTENTS_REMEDY}
        if remedy := remedies.get(getattr(error, "code", 0)):
            raise StartError(remedy) from error
        if isinstance(error, RuntimeError):
            raise
        # What a restart may mend.
        reason = f"Discord cannot be reached ({error}). Check the network."
        raise BossbotError(reason) from error
    finally:
        if closing:
            await asyncio.wait(closing)
    return 0
