"""Links without a command: where a server wants it, the bot reacts to the message, and
downloads its links when somebody clicks the reaction, or at once.
"""

import asyncio
import contextlib
import hashlib
import re
from collections import Counter
from collections.abc import Awaitable, Iterable
from typing import Annotated, Any, Literal
from weakref import WeakValueDictionary

import discord
from bossbot_plugins._answers import Answer, packed
from bossbot_plugins._commands import (
    BOT_NEEDS,
    MEDIA_NEEDS,
    check,
    lacked_by_bot,
    permission_titles,
)
from bossbot_plugins._jobs import is_quiet, post_link, split_key
from bossbot_plugins._links import Found, find_spoilers, known_by, text_of
from bossbot_plugins._refusals import UNREACHABLE
from discord.ext import commands
from loguru import logger
from pydantic import Field, field_validator

from bossbot import (
    TERMINAL_STATUSES,
    Action,
    App,
    BossBot,
    Job,
    JobFailed,
    PluginConfig,
    Refused,
    Status,
    _,
    hookimpl,
    now,
)

READY, FAILED = "\N{INBOX TRAY}", "\N{CROSS MARK}"
MAX_LINKS = 25  # of one message
MAX_BUSY = 100  # messages and clicks of a server that are looked at; others pass
MAX_ASKED = 20  # links in one question to the engines
MAX_WAITING = 200  # links that wait for one; others count as unknown
MAX_KNOWN = 2000  # answers that are remembered
PAUSE_S = 0.5  # between two questions
KEPT_DAYS = 90  # clicks on older messages do nothing
UNTOLD_S = 86400.0  # an older failure is not shown any more
NEEDS = (*BOT_NEEDS, "add_reactions")
BLOCKED = 90001  # Discord: the author has blocked the bot
# "<https://...>" asks for no preview, and so for no download either.
ANGLES = re.compile(r"<[a-z]+://[^\s<>]*>", re.IGNORECASE)

Mode = Literal["off", "react", "on"]
# A channel's id; 0 is for all that have no mode of their own.
Place = Annotated[int, Field(ge=0), "channel"]


class GuildConfig(PluginConfig):
    """[auto_links] of a server."""

    auto_links: dict[Place, Mode] = Field(
        {0: "off"},
        description="links without a command; react: a click on the bot's reaction "
        "downloads them; on: at once",
    )

    @field_validator("auto_links", mode="before")
    @classmethod
    def _of_a_word(cls, value: Any) -> Any:
        return {0: value} if isinstance(value, str) else value

    def lacks(self, guild: discord.Guild) -> dict[int, list[str]]:
        """The permissions that the bot lacks for this, by channel."""
        modes = self.auto_links
        channels = {one.id: one for one in (*guild.text_channels, *guild.threads)}
        wanted = [
            one
            for number, one in channels.items()
            if modes.get(number, modes.get(0, "off")) != "off"
            if number in modes or not isinstance(one, discord.Thread)
        ]
        missing = {one.id: lacked_by_bot(NEEDS, one) for one in wanted}
        return {number: names for number, names in missing.items() if names}


@hookimpl
def register_tables() -> list[str]:
    return [
        """
        -- The links that were taken from messages: whoever clicks again, they are once.
        CREATE TABLE auto_links (
            message_id INTEGER NOT NULL, link TEXT NOT NULL,  -- its hash
            PRIMARY KEY (message_id, link)
        ) WITHOUT ROWID;
        """
    ]


@hookimpl
def register_commands(bot: BossBot) -> list[commands.Cog]:
    return [Links(bot)]


@hookimpl
async def run(app: App) -> None:
    """Show the failures that the last run could not, and forget old messages."""
    if app.has_gateway:
        async for job in app.queue.untold():
            if is_quiet(job) and job.status in TERMINAL_STATUSES:
                await tell(app, job)
    while True:
        oldest = oldest_id()
        await app.database.all("DELETE FROM auto_links WHERE message_id < ?", oldest)
        await asyncio.sleep(86400)


@hookimpl
async def job_changed(job: Job, app: App) -> None:
    if is_quiet(job) and job.status in TERMINAL_STATUSES and app.has_gateway:
        await tell(app, job)


def oldest_id() -> int:
    """The smallest id of a message that still counts."""
    return (int((now() - KEPT_DAYS * 86400) * 1000) - 1420070400000) << 22


# ── Which links ────────────────────────────────────────────────────────────────────


def is_a_member_s(message: discord.Message) -> bool:
    """Whether a member has written a message in a server; not a bot, a webhook, or
    Discord itself."""
    kinds = (discord.MessageType.default, discord.MessageType.reply)
    of_program = message.author.bot or message.webhook_id
    return bool(message.guild) and not of_program and message.type in kinds


def without_code(text: str) -> str:
    """A text without code, and without links that are to have no preview."""
    for mark in ("```", "`"):
        parts = text.split(mark)
        if len(parts) % 2 == 0:  # the last one is never closed
            parts[-2:] = [mark.join(parts[-2:])]
        text = " ".join(parts[::2])
    return ANGLES.sub(" ", text)


class Engines:
    """Knows which links an engine has an extractor of its own for. It asks for several at
    a time, one question after the other, and remembers the answers."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.known: dict[str, bool] = {}
        self.waiting: dict[str, asyncio.Future[bool]] = {}
        self.asking: asyncio.Task[None] | None = None

    async def know(self, url: str) -> bool:
        if url in self.known:
            return self.known[url]
        if url not in self.waiting:
            if len(self.waiting) >= MAX_WAITING:
                return False
            self.waiting[url] = asyncio.get_running_loop().create_future()
        if self.asking is None or self.asking.done():
            self.asking = asyncio.create_task(self._ask_all())
        return await asyncio.shield(self.waiting[url])

    async def _ask_all(self) -> None:
        try:
            while urls := list(self.waiting)[:MAX_ASKED]:
                answers = await self._ask(urls)
                for url in urls:
                    self.waiting.pop(url).set_result(answers.get(url, False))
                await asyncio.sleep(PAUSE_S)
        finally:  # the plugin ends
            for future in self.waiting.values():
                future.cancel()
            self.waiting.clear()

    async def _ask(self, urls: list[str]) -> dict[str, bool]:
        try:
            engines = await self.app.runner.supports(urls, own=True)
        except (JobFailed, OSError) as error:  # a TimeoutError is one
            logger.info("the engines cannot be asked about links: {!r}", error)
            return {}
        answers = {url: bool(one) for url, one in zip(urls, engines, strict=True)}
        self.known |= answers
        for old in list(self.known)[:-MAX_KNOWN]:
            del self.known[old]
        return answers


# ── What is done with them ─────────────────────────────────────────────────────────


class Links(commands.Cog):
    """Downloads links that are posted without a command."""

    def __init__(self, bot: BossBot) -> None:
        self.bot = bot
        self.app: App = bot.app
        self.engines = Engines(bot.app)
        self.busy = Counter[int]()  # by server
        self.turns = WeakValueDictionary[int, asyncio.Lock]()  # by message
        self.told: set[int] = set()  # servers and channels that the log mentions

    @commands.Cog.listener()
    async def on_message(self, message: discord.Message) -> None:
        if "/" not in text_of(message) or not is_a_member_s(message):
            return
        assert message.guild
        mode = self.mode_at(message.guild.id, message.channel)
        if mode == "off" or not self.can_read(message.guild):
            return
        links = self.find(message)
        if not links or await self.is_command(message):
            return
        with self.room(message.guild.id) as is_free:
            guild_id = message.guild.id
            known = await self.supported(guild_id, links) if is_free else []
            if not known or self.lacks(message.channel, mode):
                return
            if mode == "react":
                await self.react(message)
            else:
                await self.take_all(message, message.author, known)

    @commands.Cog.listener()
    async def on_raw_reaction_add(self, event: discord.RawReactionActionEvent) -> None:
        member = event.member  # None in a direct message
        if event.emoji.name != READY or member is None or member.bot:
            return
        if event.message_id < oldest_id():
            return
        with self.room(member.guild.id) as is_free:
            channel = is_free and await self.channel_of(event)
            if channel and self.mode_at(member.guild.id, channel) == "react":
                # One after the other, so that each link is taken once.
                turn = self.turns.setdefault(event.message_id, asyncio.Lock())
                async with turn:
                    await self.clicked(channel, event.message_id, member)

    async def clicked(
        self, channel: Any, message_id: int, member: discord.Member
    ) -> None:
        """Take the links that a message has now, if the bot has offered to download
        them."""
        if await self.action_of(member, channel, message_id) is None:
            return
        try:
            message = await channel.fetch_message(message_id)
        except UNREACHABLE as error:
            logger.info("a clicked message cannot be read: {!r}", error)
            return
        offered = any(one.me and str(one.emoji) == READY for one in message.reactions)
        if offered and is_a_member_s(message) and not await self.is_command(message):
            links = await self.supported(channel.guild.id, self.find(message))
            await self.take_all(message, member, links)

    @contextlib.contextmanager
    def room(self, guild_id: int) -> Any:
        """Whether there is room for one more, so that a flood does not pile up."""
        is_free = self.busy[guild_id] < MAX_BUSY
        self.busy[guild_id] += 1
        try:
            yield is_free
        finally:
            self.busy[guild_id] -= 1
            if not self.busy[guild_id]:
                del self.busy[guild_id]

    async def channel_of(self, event: discord.RawReactionActionEvent) -> Any:
        """The channel of a click; None if the bot cannot see it."""
        with contextlib.suppress(*UNREACHABLE):
            channel = self.bot.get_channel(event.channel_id)
            return channel or await self.bot.fetch_channel(event.channel_id)
        return None

    def mode_at(self, guild_id: int, channel: Any) -> Mode:
        """A server's choice for a channel; a thread has that of its channel."""
        try:
            table = self.app.guilds.tables(guild_id).get("auto_links", {})
            modes = GuildConfig.model_validate(table).auto_links
        except (Refused, ValueError):  # the settings are broken; others report it
            return "off"
        places = (channel.id, getattr(channel, "parent_id", None), 0)
        return next((modes[place] for place in places if place in modes), "off")

    def can_read(self, guild: discord.Guild) -> bool:
        """Whether the bot can read members' messages."""
        if self.bot.intents.message_content:
            return True
        if self.is_news(guild.id):
            logger.warning(
                "auto_links does nothing in guild {}: message_content is false",
                guild.id,
            )
        return False

    def find(self, message: discord.Message) -> list[Found]:
        platforms = self.app.plugins.registered("platforms").values()
        text = without_code(text_of(message))
        return find_spoilers(text, known_by(platforms))[:MAX_LINKS]

    async def is_command(self, message: discord.Message) -> bool:
        """Whether a message gives a command, or tries to."""
        context = await self.bot.get_context(message)
        word = context.invoked_with or ""
        named = context.command or re.fullmatch("[a-z]{2,20}", word, re.IGNORECASE)
        return context.prefix is not None and bool(named)

    async def supported(
        self, guild_id: int, links: Iterable[Found]
    ) -> list[tuple[Found, str]]:
        """The links of known sites that a server allows, each as it is normalised."""
        routes = []
        # What nobody may have is not offered, nor does it fail each time.
        permissions = self.app.guilds.tables(guild_id).get("permissions", {})
        allowed = permissions.get("platforms")
        for found in links:
            with contextlib.suppress(Refused):
                route = self.app.router.route(found.link)
                if not allowed or route.platform in allowed:
                    routes.append((found, route))
        asked = [
            self.engines.know(route.url) for _, route in routes if not route.platform
        ]
        answers = iter(await asyncio.gather(*asked))
        return [
            (found, route.url)
            for found, route in routes
            if route.platform or next(answers)
        ]

    def lacks(self, channel: Any, mode: Mode) -> bool:
        """Whether the bot lacks a necessary permission; the log gets one line for any,
        even one that only failures need."""
        missing = lacked_by_bot(NEEDS, channel)
        if not missing:
            self.told.discard(channel.id)
            return False
        if self.is_news(channel.id):
            logger.warning(
                "auto_links needs more permissions in channel {}: {}",
                channel.id,
                permission_titles(missing),
            )
        return mode == "react" or missing != ["add_reactions"]

    def is_news(self, place: int) -> bool:
        """Whether the log does not mention a server or channel yet."""
        new = place not in self.told
        self.told.add(place)
        return new

    async def react(self, message: discord.Message) -> None:
        try:
            await message.add_reaction(READY)
        except UNREACHABLE as error:
            log = logger.info if is_gone(error) else logger.warning
            log("no reaction to message {}: {}", message.id, error)

    async def action_of(
        self, member: Any, channel: Any, message_id: int
    ) -> Action | None:
        """The action of a member who has links downloaded; None if that member may
        not."""
        try:
            action = Action(
                name="auto_links",
                group="download",
                guild_id=channel.guild.id,
                channel=channel,
                user=member,
                permissions=channel.permissions_for(member),
                needs=MEDIA_NEEDS,
                owner=await self.bot.is_owner(member),
                request=str(message_id),
                guild_settings=self.app.guilds.tables(channel.guild.id),
            )
            await check(self.app, action)
        except (Refused, discord.ClientException) as error:
            logger.debug("links of message {} are not taken: {}", message_id, error)
            return None
        return action

    async def take_all(
        self, message: discord.Message, member: Any, links: list[tuple[Found, str]]
    ) -> None:
        """Take in the links of a message, each once, for a member."""
        action = await self.action_of(member, message.channel, message.id)
        if action is None:
            return
        refused = taken = False
        answers: list[Answer] = []
        for found, url in links:
            link = hashlib.sha256(url.encode("utf-8", "replace")).hexdigest()[:20]
            try:
                answer = await self.take(message, found, link, action)
                taken = taken or answer is not None
                answers += [answer] if answer and answer[0] else []
            except Refused as error:
                refused = True
                log = logger.bind(guild=action.guild_id, user=member.id)
                log.info("a link of message {} is refused: {}", message.id, error)
        for text, view in packed(answers):
            await self.say(message, text, view)
        failed = any(one.me and str(one.emoji) == FAILED for one in message.reactions)
        if refused or (taken and failed):  # it may have been over a limit before
            await mark(self.bot, message.channel.id, message.id, failed=refused)

    async def take(
        self, message: discord.Message, found: Found, link: str, action: Action
    ) -> Answer | None:
        """Take in one link, and return an answer that it gets in place of a job, or an
        empty one; None if it was taken before. Raises Refused."""
        known = "SELECT 1 FROM auto_links WHERE message_id = ? AND link = ?"
        if await self.app.database.one(known, message.id, link):
            return None
        accepted = await self.app.intake(
            Job(
                url=found.link,
                guild_id=action.guild_id,
                channel_id=message.channel.id,
                user_id=action.user.id,
                request_key=f"{message.id}:{link}",
                message_id=message.id,
                options={"auto": True} | ({"spoiler": True} if found.spoiler else {}),
                priority=action.priority,
            )
        )
        # The queue has it, too, but only for a while.
        add = "INSERT OR IGNORE INTO auto_links VALUES (?, ?)"
        await self.app.database.all(add, message.id, link)
        return (accepted.answer, accepted.view) if accepted else ("", None)

    async def say(
        self, message: discord.Message, text: str, view: discord.ui.View | None
    ) -> None:
        shown: dict[str, Any] = {"view": view} if view else {}
        try:
            await message.channel.send(
                text,
                reference=message.to_reference(fail_if_not_exists=False),
                mention_author=False,
                **shown,
            )
        except UNREACHABLE as error:
            logger.info("an answer could not be sent: {!r}", error)


# ── How it ended ───────────────────────────────────────────────────────────────────


async def tell(app: App, job: Job) -> None:
    """Show on the message that a job has failed, or that a later try has not; and where
    the files are if they reply to another message."""
    news = job.finished_at > now() - UNTOLD_S
    done, here = True, job.status is Status.COMPLETED
    if news and job.status is Status.FAILED:
        done = await mark(app.bot, job.channel_id, job.message_id)
    if news and here and split_key(job.request_key)[1] > 0:
        await mark(app.bot, job.channel_id, job.message_id, failed=False)
    if news and here and job.joins:
        text = _("It is here: {link}").format(link=post_link(job))
        done = await is_told(job.message_id, app.client.answer(job, text))
    if done:  # else the next start tries again
        await app.queue.set_told([job.id])


async def mark(
    bot: BossBot, channel_id: int, message_id: int, failed: bool = True
) -> bool:
    """Add the reaction for a failure, or remove it; False when it is worth another try."""
    message = bot.get_partial_messageable(channel_id).get_partial_message(message_id)
    if failed:
        return await is_told(message_id, message.add_reaction(FAILED))
    assert bot.user
    return await is_told(message_id, message.remove_reaction(FAILED, bot.user))


async def is_told(message_id: int, telling: Awaitable[Any]) -> bool:
    """Whether it is shown how a link of a message ended, or never can be."""
    try:
        await telling
    except UNREACHABLE as error:
        logger.info("the result cannot be shown on {}: {}", message_id, error)
        return isinstance(error, discord.HTTPException) and error.status < 500
    return True


def is_gone(error: Exception) -> bool:
    """Whether a message is gone, or its author wants no reaction."""
    return isinstance(error, discord.NotFound) or getattr(error, "code", 0) == BLOCKED
