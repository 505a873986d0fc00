"""The connection to Discord: login, gateway, commands, answers."""

import asyncio
import contextlib
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, Self, cast, get_args, get_origin

import aiohttp
import discord
from bossbot_plugins._catalogues import CommandTexts, fingerprint
from bossbot_plugins._errors import answer_error, answers_errors, suggest
from bossbot_plugins._figures import counter, gauge
from bossbot_plugins._nonce import nonce
from bossbot_plugins._refusals import UNREACHABLE
from bossbot_plugins._shared import shared_queue
from discord.ext import commands
from loguru import logger
from pydantic import Field

import bossbot
from bossbot import (
    HERE,
    App,
    BossBot,
    BossbotError,
    Client,
    Finding,
    Job,
    Part,
    Plugin,
    PluginConfig,
    Settings,
    StartError,
    hookimpl,
    now,
)

INTENTS_REMEDY = (
    "Discord refuses the Message Content Intent, which $ commands need. Switch on "
    "'Message Content Intent' at https://discord.com/developers/applications under "
    "your application > Bot, or set BOSS_BOT_PLUGINS__DISCORD_CLIENT__MESSAGE_CONTENT="
    "false in .env to use only slash commands."
)
NO_TOKEN = (
    "The token is missing. Create an application at "
    "https://discord.com/developers/applications, copy its bot's token and write "
    f"BOSS_BOT_DISCORD_TOKEN=... into {HERE / '.env'}."
)
TOKEN_REMEDY = (
    "Discord does not accept the token. Make a new one at "
    "https://discord.com/developers/applications under your application > Bot > "
    "Reset Token, and paste it into `python bossbot.py setup`."
)
INTERACTION_S = 870  # Discord, 2026-11: its token dies after 15 minutes


class Config(PluginConfig):
    """[plugins.discord_client] in config.toml."""

    command_prefix: str = Field(
        "$",
        pattern=r"\S",
        max_length=10,
        description="first characters of a command in a message",
    )
    message_content: bool = Field(
        True, description="read $ commands; false: slash commands only"
    )
    shards: bool = Field(False, description="true for a bot on more than 2,500 servers")


@hookimpl
def register_parts(config: Config) -> dict[str, Callable[[App], Part]]:
    return {"client": partial(DiscordClient, config=config)}


@hookimpl
def register_metrics(registry: Any, app: App) -> None:
    client: Any = app.client
    if not hasattr(client, "answers"):  # it is the owner's
        return

    def add(
        kind: Any, name: str, text: str, read: Callable[[], Any], *labels: str
    ) -> None:
        registry.register(kind(f"bossbot_discord_{name}", text, labels, read))

    def latency() -> dict[tuple[()], float]:
        found = client.bot.latency
        return {(): found} if math.isfinite(found) else {}

    add(gauge, "connected", "1 while the gateway is connected", client.connected)
    add(gauge, "gateway_latency_seconds", "Of the last heartbeat", latency)
    text = "Connections to the gateway after the first one"
    add(counter, "reconnects", text, client.reconnects.copy, "resumed")
    add(
        counter, "requests", "Answers of Discord", client.answers.copy, "method", "code"
    )
    text = "How long Discord asked to wait"
    add(counter, "rate_limit_wait_seconds", text, lambda: client.rate_limit_s)


@hookimpl
async def check_machine(settings: Settings, config: Config) -> list[Finding]:
    """Whether Discord accepts the token and grants the intent."""
    findings = []
    if not config.message_content:
        findings.append(
            Finding(
                "message_content is false",
                f"{config.command_prefix} commands work only where the bot is mentioned",
                "Switch on the intent at https://discord.com/developers/applications "
                "under Bot, and set message_content = true.",
            )
        )
    if not settings.discord_token:
        return findings
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
    cost = "the bot cannot connect"
    async with discord.Client(intents=discord.Intents(guilds=True)) as client:
        try:
            await client.login(settings.discord_token.get_secret_value())
            flags = (await client.application_info()).flags
        except discord.LoginFailure:
            what = "Discord does not accept the token"
            return [*findings, Finding(what, cost, TOKEN_REMEDY, True)]
        except UNREACHABLE as error:
            what = f"Discord cannot be reached ({error})"
            return [*findings, Finding(what, cost, "Check the network.")]
    granted = flags.gateway_message_content or flags.gateway_message_content_limited
    if config.message_content and not granted:
        what = "the Message Content Intent is missing"
        findings.append(Finding(what, cost, INTENTS_REMEDY, True))
    return findings


# Also a mark that cannot be seen.
NAME_AND_MARK = re.compile(
    r"(?P<name>[A-Za-z]+?)((?=https?://)|[<|(\[`\"*_~:,\u200b-\u200f\u2060\ufeff])"
)


class AnyCase(str):
    """A word that a $ command takes: whatever is written becomes small letters."""

    def __new__(cls, word: str) -> Self:
        return super().__new__(cls, word.lower())


class Bot(commands.Bot):
    """discord.py's bot, with the app, and answers to wrong commands."""

    def __init__(self, app: App, config: Config, **options: Any) -> None:
        intents = discord.Intents(
            guilds=True, guild_messages=True, guild_reactions=True, dm_messages=True
        )
        intents.message_content = config.message_content
        super().__init__(
            **{
                "command_prefix": commands.when_mentioned_or(config.command_prefix),
                "case_insensitive": True,
                "help_command": None,  # it is a plugin
                "strip_after_prefix": True,
                "intents": intents,
                "allowed_mentions": discord.AllowedMentions.none(),
                "chunk_guilds_at_startup": False,
                "max_messages": None,
                "guild_ready_timeout": 0.5,
                "max_ratelimit_timeout": 60,  # else an upload's time runs out in it
                **options,
            }
        )
        self.app = app
        self.tree.error(answer_error)

    async def get_context(self, origin: Any, /, *, cls: Any = commands.Context) -> Any:
        """The context of a message or interaction. What follows a command's name needs
        no space before it if it begins with a mark, or is a link: "$download<link>"."""
        context = await super().get_context(origin, cls=cls)
        word = context.invoked_with or ""
        glued = NAME_AND_MARK.match(word)
        if glued and context.prefix and not context.command:
            command = self.all_commands.get(glued["name"])
            if command:
                context.view.index -= len(word) - glued.end("name")
                context.invoked_with, context.command = glued["name"], command
        return context

    def add_command(self, command: commands.Command[Any, ..., Any], /) -> None:
        """Add a command; the words that it takes may be written with capitals."""
        super().add_command(command)
        group = command.walk_commands() if isinstance(command, commands.Group) else ()
        for one in (command, *group):
            for name, parameter in one.params.items():
                words = get_args(kind := parameter.annotation)
                small = all(word == str(word).lower() for word in words)
                if get_origin(kind) is Literal and small:
                    any_case = cast(Any, Literal)[tuple(map(AnyCase, words))]
                    one.params[name] = parameter.replace(annotation=any_case)

    async def on_ready(self) -> None:
        count = len(self.guilds)
        plural = "s" * (count != 1)
        logger.info("connected as {} to {} server{}", self.user, count, plural)

    async def on_command_error(
        self, context: commands.Context[Any], error: commands.CommandError, /
    ) -> None:
        """Answer errors, unless the command does so itself."""
        command, cog = context.command, context.cog
        if isinstance(error, commands.CommandNotFound):
            await suggest(context)
        elif not (command and command.has_error_handler()) and not (
            cog and cog.has_error_handler()
        ):
            await answer_error(context, error)


class ShardedBot(Bot, commands.AutoShardedBot):
    """The same bot, for more than 2,500 servers."""


class DiscordClient(Client):
    """The ``Client`` by discord.py."""

    options: dict[str, Any] = {}  # more options of discord.py's bot  # noqa: RUF012

    def __init__(self, app: App, config: Config) -> None:
        super().__init__(app)
        self.config = config
        discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
        kind = ShardedBot if self.config.shards else Bot
        self.answers = Counter[tuple[str, str]]()  # of Discord, by method and code
        self.reconnects = Counter(true=0, false=0)  # by whether the session went on
        self._was_ready = False
        self.rate_limit_s = 0.0  # that Discord has asked to wait
        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(self._asks)
        trace.on_request_end.append(self._answered)
        options = {"http_trace": trace, **self.options}
        self.bot = cast(BossBot, kind(app, self.config, **options))
        self.bot.add_listener(self._remember, "on_interaction")
        self.bot.add_listener(self._resumed, "on_resumed")
        self.bot.add_listener(self._ready, "on_ready")
        self._interactions: dict[int, tuple[float, discord.Interaction]] = {}
        self._installed: dict[str, contextlib.AsyncExitStack] = {}
        self._complete = False  # whether the commands of all plugins are there
        self._syncing = asyncio.Lock()
        answer_errors_of_views()

    async def start(self) -> None:
        """Log in."""
        if not (token := self.app.settings.discord_token):
            raise StartError(NO_TOKEN)
        try:
            await self.bot.login(token.get_secret_value())
            # It asks who that is, once: the first command need not wait for it.
            await self.bot.is_owner(cast(Any, self.bot.user))
        except discord.LoginFailure as error:
            raise StartError(TOKEN_REMEDY) from error
        except UNREACHABLE as error:
            raise unreachable(error) from error

    async def stop(self) -> None:
        """Disconnect."""
        await self.bot.close()
        # discord.py leaves this task, which would fail without the loop it drops.
        if waiting := getattr(self.bot._connection, "_ready_task", None):
            waiting.cancel()

    async def health(self) -> str:
        """See ``Part``."""
        return "" if self.connected() else "not connected to Discord's gateway"

    async def _asks(self, session: Any, context: Any, begun: Any) -> None:
        queue = shared_queue(self.app)
        if queue and "Authorization" in begun.headers:  # others are in no limit
            await queue.take_turn(begun.method != "PATCH")  # an edit

    async def _answered(self, session: Any, context: Any, ended: Any) -> None:
        status = ended.response.status
        if status < 200:  # the gateway
            return
        code = str(status) if status in (413, 429) else f"{status // 100}xx"
        self.answers[ended.method, code] += 1
        if status == 429:
            names = ("X-RateLimit-Reset-After", "Retry-After")
            waits = (ended.response.headers.get(name) for name in names)
            with contextlib.suppress(ValueError):
                self.rate_limit_s += float(next(filter(None, waits), 0))

    async def _resumed(self) -> None:
        self.reconnects["true"] += 1

    async def _ready(self) -> None:
        self.reconnects["false"] += self._was_ready
        self._was_ready = True

    def connected(self) -> bool:
        """Whether every connection to the gateway is there and was accepted."""
        bot: Any = self.bot
        shards = getattr(bot, "shards", None)
        if shards is None:
            socket = getattr(bot, "ws", None)
            there = bool(socket and socket.open)
        else:
            there = bool(shards) and not any(s.is_closed() for s in shards.values())
        return there and bool(bot.is_ready())

    async def run(self) -> None:
        """See ``Client``."""
        for plugin in list(self.app.plugins.all.values()):
            if not plugin.off:
                await self.install(plugin)
        self._complete = True
        await self.sync()
        try:
            await self.bot.connect()
        except discord.PrivilegedIntentsRequired as error:
            raise StartError(INTENTS_REMEDY) from error
        except UNREACHABLE as error:
            remedies = {4004: TOKEN_REMEDY, 4014: INTENTS_REMEDY}
            if remedy := remedies.get(getattr(error, "code", 0)):
                raise StartError(remedy) from error
            raise unreachable(error) from error

    async def sync(self, again: bool = False) -> bool:
        """See ``Client``. A command that Discord refuses is left out, and the others are
        not."""
        if not self._complete:  # then ``run`` is about to do it
            return True
        tree, facts = self.bot.tree, self.app.facts
        async with self._syncing:
            while True:
                known = tree.get_commands()
                said = [
                    self.bot.application_id,
                    *(one.to_dict(tree) for one in known),
                    *fingerprint(bossbot.catalogues),
                ]
                text = json.dumps(said, sort_keys=True)
                digest = hashlib.sha256(text.encode()).hexdigest()
                if not again and await facts.get("commands") == digest:
                    return True
                try:
                    await tree.set_translator(CommandTexts(bossbot.catalogues))
                    await tree.sync()
                    await facts.set("commands", digest)
                    return True
                # What Discord has goes on working; the next start tries again.
                except UNREACHABLE as error:
                    logger.error(
                        "Discord does not accept the slash commands: {}", error
                    )
                    refused = self._refused(error, known)
                    if not refused or len(refused) == len(known):
                        return False
                    for command in refused:
                        tree.remove_command(command.name, type=kind_of(command))

    def _refused(self, error: Exception, known: list[Any]) -> list[Any]:
        """The commands that Discord names in its refusal, by their places."""
        named = getattr(error, "_errors", None) or {}
        places = [int(place) for place in named if place.isdecimal()]
        return [known[place] for place in places if place < len(known)]

    async def install(self, plugin: Plugin) -> None:
        """See ``Client``."""
        plugins, bot = self.app.plugins, self.bot
        if "register_commands" not in plugin.impls:
            return
        before = set(bot.tree.get_commands())
        try:
            async with contextlib.AsyncExitStack() as undo:
                things: list[Any] = []
                for impl in plugins.impls("register_commands", plugin.stem):
                    things += plugins.invoke(impl, plugin, bot=bot) or []
                for thing in things:
                    if isinstance(thing, commands.Cog):
                        await bot.add_cog(thing)
                        undo.push_async_callback(bot.remove_cog, thing.qualified_name)
                    elif isinstance(thing, commands.Command):
                        bot.add_command(thing)
                        undo.callback(bot.remove_command, thing.name)
                    elif isinstance(thing, type):
                        answer_errors_of_item(thing)
                        bot.add_dynamic_items(thing)
                        undo.callback(bot.remove_dynamic_items, thing)
                    else:
                        bot.tree.add_command(thing)
                        kind = kind_of(thing)
                        undo.callback(bot.tree.remove_command, thing.name, type=kind)
                for command in set(bot.tree.get_commands()) - before:
                    command.to_dict(bot.tree)  # else no command could be synced
                    answer_errors_of_choices(command)
                self._installed[plugin.stem] = undo.pop_all()
        except (Exception, SystemExit) as error:  # the boundary of a plugin
            plugins.switch_off(plugin.stem, error)

    async def uninstall(self, stem: str) -> None:
        """See ``Client``."""
        if installed := self._installed.pop(stem, None):
            await installed.aclose()

    # Answers

    async def _remember(self, interaction: discord.Interaction) -> None:
        """Keep a command's interaction as long as it can be answered."""
        if interaction.type is not discord.InteractionType.application_command:
            return
        old = [n for n, (at, _) in self._interactions.items() if now() > at]
        for number in old:
            del self._interactions[number]
        self._interactions[interaction.id] = (now() + INTERACTION_S, interaction)

    async def answer(
        self, job: Job, text: str, view: discord.ui.View | None = None
    ) -> int:
        """See ``Client``."""
        shown: dict[str, Any] = {"view": view} if view else {}
        number = job.request_key.partition(":")[0]
        if not job.message_id and number.isdecimal():
            _, interaction = self._interactions.get(int(number), (0, None))
            if interaction:
                with contextlib.suppress(*UNREACHABLE):
                    followup = interaction.followup
                    return int((await followup.send(text, wait=True, **shown)).id)
        channel = self.bot.get_partial_messageable(job.channel_id)
        # With a nonce, a second try makes no second message; the posts count from 1.
        options: dict[str, Any] = {"nonce": nonce(job, 0), **shown}
        if job.message_id:
            options["reference"] = discord.MessageReference(
                message_id=job.message_id,
                channel_id=job.channel_id,
                fail_if_not_exists=False,
            )
            options["mention_author"] = False
        sent = await channel.send(text, **options)
        if sent.content.strip() != text.strip():  # a run that ended has sent it before
            await sent.edit(content=text, view=view)
        return int(sent.id)


def kind_of(command: Any) -> discord.AppCommandType:
    """Whether it is a slash command or an entry of a menu."""
    kind: discord.AppCommandType = getattr(
        command, "type", discord.AppCommandType.chat_input
    )
    return kind


# discord.py only logs what these raise.


def answer_errors_of_views() -> None:
    """Have buttons, menus and forms answer their errors, unless they do so otherwise."""

    async def on_error(
        self: Any, interaction: discord.Interaction, error: Exception, *_: Any
    ) -> None:
        await answer_error(interaction, error)

    for kind in (discord.ui.View, discord.ui.LayoutView, discord.ui.Modal):
        kind.on_error = on_error  # type: ignore[method-assign]


def answer_errors_of_item(kind: type[discord.ui.DynamicItem[Any]]) -> None:
    """The same for a dynamic item."""
    for name in ("callback", "interaction_check"):
        setattr(kind, name, answers_errors(getattr(kind, name)))
    kind.from_custom_id = answers_errors(kind.from_custom_id, again=True)  # type: ignore[method-assign]


def answer_errors_of_choices(command: Any) -> None:
    """The same for the autocompletes of a command, which then offers nothing."""
    inner = command.walk_commands() if hasattr(command, "walk_commands") else ()
    for one in (command, *inner):
        for parameter in getattr(one, "_params", {}).values():
            if parameter.autocomplete:
                parameter.autocomplete = answers_errors(parameter.autocomplete)


def unreachable(error: Exception) -> BossbotError:
    """Whether a restart may help."""
    return BossbotError(f"Discord cannot be reached ({error}). Check the network.")
