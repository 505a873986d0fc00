"""/ask: answers a question from the bot's posts. Without a language model, it quotes
the best sentences; with one, it writes an answer that cites the posts."""

# mypy: disable-error-code="arg-type"
# discord.py's types do not know hybrid commands of cogs.

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import discord
from bossbot_plugins._address import Address
from bossbot_plugins._answers import MAX_DESCRIPTION, reply
from bossbot_plugins._archive import Hit, archive_of
from bossbot_plugins._chat_model import Endpoint, ModelFailed, fault_of, key_of, stream
from bossbot_plugins._cited import Cited, cited, without_thoughts
from bossbot_plugins._commands import guard
from bossbot_plugins._found import (
    BLUE,
    Place,
    Since,
    Wanted,
    about,
    jumps,
    link_of,
    name_of,
    nothing,
    numbered,
    query_for,
    quote,
)
from bossbot_plugins._jobs import guild_id_of
from bossbot_plugins._prompt import prompt
from bossbot_plugins._refusals import UNREACHABLE
from discord import app_commands
from discord.ext import commands
from loguru import logger
from pydantic import Field, SecretStr

from bossbot import App, BossBot, Finding, PluginConfig, Refused, _, hookimpl, now

Context = commands.Context[Any]
EDIT_S = 2.5  # Discord takes five edits in five seconds, of all answers in a channel
QUOTED = 3  # posts that are quoted without a model
MAX_SOURCES = 8  # of an answer that are listed
DAY_S = 86400


class Config(PluginConfig):
    """[plugins.ask] in config.toml. The two times together stay below the 15 minutes for
    which Discord takes changes of an answer."""

    base_url: Address = Field(
        "",
        description="address of a language model; empty: posts are only quoted",
    )
    model: str = Field("", description="name of the model on that server")
    api_key: SecretStr | None = Field(
        None, description="key for that server; put it in .env"
    )
    posts: int = Field(
        6, ge=1, le=20, description="number of posts that the model gets"
    )
    context_tokens: int = Field(
        2500, ge=500, le=100_000, description="limit for question and posts together"
    )
    answer_tokens: int = Field(
        400, ge=50, le=16_000, description="limit for one answer"
    )
    first_token_s: float = Field(
        120,
        gt=0,
        le=300,
        description="time limit for the first word, including the wait for a turn",
    )
    timeout_s: float = Field(
        180, gt=0, le=500, description="time limit for a whole answer"
    )
    at_once: int = Field(
        1, ge=1, le=50, description="answers that the model writes at the same time"
    )
    daily_per_member: int = Field(
        50,
        ge=0,
        le=100_000,
        description="the model's answers per member and day (UTC); 0: no limit",
    )


class GuildConfig(PluginConfig):
    """[ask] of a server."""

    ask_model: bool = Field(
        True, description="whether the owner's language model may read posts for /ask"
    )


@hookimpl
def register_tables() -> list[str]:
    return [
        """
        -- How often a member asked the model on a day (since 1970, by UTC).
        CREATE TABLE ask (
            user_id INTEGER NOT NULL, day INTEGER NOT NULL, count INTEGER NOT NULL,
            PRIMARY KEY (user_id, day)
        );
        CREATE INDEX ask_by_day ON ask (day);
        """
    ]


@hookimpl
def register_commands(bot: BossBot, config: Config) -> list[commands.Cog]:
    return [Ask(bot.app, config)]


@hookimpl
async def check_machine(config: Config) -> list[Finding]:
    """Whether the model's server has the model."""
    cost = "/ask quotes posts in place of an answer"
    if not config.base_url or not config.model:
        if config.base_url or config.model:
            what = "of base_url and model in [plugins.ask] one is missing"
            return [Finding(what, cost, "Set both.")]
        return []
    fault = await fault_of(config.base_url, key_of(config.api_key))
    if not fault:
        return []
    remedy = "Check base_url and api_key in [plugins.ask], and that the server runs."
    return [Finding(f"the language model does not answer: {fault}", cost, remedy)]


class Shown:
    """A message that is changed at most every ``EDIT_S``."""

    def __init__(self, message: discord.Message) -> None:
        self.message = message
        self.due_s = time.monotonic() + EDIT_S
        self.changed_s = -EDIT_S

    def is_due(self) -> bool:
        """Whether to change it; asked again, only after that time."""
        if time.monotonic() < self.due_s:
            return False
        self.due_s = time.monotonic() + EDIT_S
        return True

    async def change(self, shown: dict[str, Any]) -> None:
        """Raises discord.NotFound when it is gone."""
        self.changed_s = time.monotonic()
        try:
            await self.message.edit(**shown)
        except discord.NotFound:
            raise
        except UNREACHABLE as error:  # the next one may pass
            logger.info("an answer cannot be shown yet: {!r}", error)

    async def end(self, shown: dict[str, Any]) -> None:
        """Raises what ``Message.edit`` raises."""
        await asyncio.sleep(self.changed_s + EDIT_S - time.monotonic())
        await self.message.edit(**shown)


class Ask(commands.Cog):
    """What I have posted."""

    def __init__(self, app: App, config: Config) -> None:
        self.app, self.config = app, config
        self.turns = asyncio.Semaphore(int(config.at_once))

    @guard("ask", group="search")
    @commands.hybrid_command(
        usage="<question>", extras={"example": "When does the hut open?"}
    )
    @app_commands.describe(
        question="what you want to know",
        member="only from posts that this member asked for",
        channel="only from posts in this channel",
        since="only from posts not older than this",
        public="show everybody here the answer",
    )
    async def ask(
        self,
        ctx: Context,
        *,
        question: str,
        member: discord.User | None = None,
        channel: Place = None,
        since: Since | None = None,
        public: bool = False,
    ) -> None:
        """Answer a question from my posts."""
        public = public or not ctx.interaction
        await ctx.defer(ephemeral=not public)
        wanted = Wanted.of(question, member, channel, since, public)
        asks = self.has_model(guild_id_of(ctx))
        limit = max(self.config.posts if asks else 0, QUOTED)
        query = await query_for(ctx, wanted)
        hits = await archive_of(self.app).search(query, limit=limit)
        if not hits:
            await reply(ctx, nothing(), private=not public)
            return
        why = _("These posts match best:")
        if not hits[0].sure:
            why = _("These posts may match:")
        # In its words, a spoiler could no longer be hidden.
        given = [hit for hit in hits if not hit.hidden][: self.config.posts]
        asks = asks and bool(given)
        if asks and not await self.take(ctx.author.id):
            asks = False
            why = _(
                "You have had your {count} answers for today. These posts match best:"
            ).format(count=self.config.daily_per_member)
        if not asks:
            await reply(ctx, private=not public, **quotes(hits, why))
            return
        # If the bot ends now, that is what stays.
        waiting = quotes(hits, _("Reading the posts that match best …"))
        shown = Shown(await reply(ctx, private=not public, **waiting))
        with contextlib.suppress(discord.NotFound):  # nobody waits for it any more
            answer = await self.answer(shown, wanted.words, given)
            await shown.end(await self.still(ctx, wanted, given, limit) or answer)

    async def still(
        self, ctx: Context, wanted: Wanted, hits: Sequence[Hit], limit: int
    ) -> dict[str, Any] | None:
        """A new result in place of an answer, if some of its posts were deleted or
        forgotten while the model wrote; else None."""
        try:
            query = await query_for(ctx, wanted)
            found = await archive_of(self.app).search(query, limit=limit)
        except Refused as error:
            return {"content": str(error), "embeds": [], "view": None}
        if {hit.job_id for hit in hits} <= {hit.job_id for hit in found}:
            return None
        if not found:
            return {"content": nothing(), "embeds": [], "view": None}
        return quotes(found, _("These posts match best:"))

    def has_model(self, guild_id: int) -> bool:
        """Whether a model answers the questions of a server."""
        table = self.app.guilds.tables(guild_id).get("ask", {})
        guild = GuildConfig.model_validate(table)
        return bool(self.config.base_url and self.config.model and guild.ask_model)

    async def take(self, user_id: int) -> bool:
        """Count one answer of a member's; False if it would be one too many."""
        if not self.config.daily_per_member:
            return True
        day = int(now() // DAY_S)
        await self.app.database.all("DELETE FROM ask WHERE day <> ?", day)
        row = await self.app.database.one(
            "INSERT INTO ask VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1 "
            "WHERE count < ? RETURNING count",
            *(user_id, day, self.config.daily_per_member),
        )
        return row is not None

    async def answer(
        self, shown: Shown, question: str, hits: Sequence[Hit]
    ) -> dict[str, Any]:
        """What the model makes of the posts, as ``edit`` takes it; quotations when that
        is nothing. It is shown as it comes."""
        try:
            found = await self.read(shown, question, hits)
        except ModelFailed as error:
            logger.warning("the language model gives no answer: {}", error)
            why = _("The language model did not answer. These posts match best:")
            return quotes(hits, why)
        if found is None:
            why = _("The language model found no answer in these posts:")
            return quotes(hits, why)
        return told(found, hits)

    async def read(
        self, shown: Shown, question: str, hits: Sequence[Hit]
    ) -> Cited | None:
        """The model's answer, None if it has none. Raises ModelFailed."""
        config = self.config
        messages, count = prompt(question, hits, config.context_tokens)
        check = partial(cited, count=count, link=lambda n: link_of(hits[n - 1]))
        began_s, text = time.monotonic(), ""
        try:
            async with asyncio.timeout(config.first_token_s):
                await self.turns.acquire()
        except TimeoutError:
            raise ModelFailed("it is busy") from None
        try:
            left_s = config.first_token_s - (time.monotonic() - began_s)
            endpoint = Endpoint(
                config.base_url,
                config.model,
                key_of(config.api_key),
                config.answer_tokens,
                left_s,
                config.timeout_s,
            )
            async with contextlib.aclosing(stream(endpoint, messages)) as pieces:
                async for piece in pieces:
                    text += piece
                    # What names no post may be made up.
                    if shown.is_due() and (found := check(text)):
                        await shown.change(told(found, hits, ended=False))
        finally:
            self.turns.release()
        if not without_thoughts(text).strip():
            raise ModelFailed("it said nothing; more answer_tokens may help")
        return check(text)


# ── How it looks ───────────────────────────────────────────────────────────────────


def quotes(hits: Sequence[Hit], why: str) -> dict[str, Any]:
    """The best sentence of the best posts. Posts that only perhaps match are left out
    if others surely do."""
    best = ([hit for hit in hits if hit.sure] or [*hits])[:QUOTED]
    parts = [why]
    for number, hit in numbered(best).items():
        lines = (f"**{number}.** {name_of(hit)}", about(hit), quote(hit))
        parts.append("\n".join(filter(None, lines)))
    return sent("\n\n".join(parts), numbered(best))


def told(found: Cited, hits: Sequence[Hit], ended: bool = True) -> dict[str, Any]:
    """A model's answer with its sources."""
    if not ended:
        return sent(f"{found.text} …", {})
    named = {number: hits[number - 1] for number in found.sources[:MAX_SOURCES]}
    lines = [found.text, ""]
    for number, hit in named.items():
        line = f"[{number}] {name_of(hit)} · {about(hit)}"
        if len("\n".join([*lines, line])) <= MAX_DESCRIPTION:
            lines.append(line)
    shown = sent("\n".join(lines), named)
    hint = _("A language model wrote this from these posts. Check them.")
    shown["embeds"][0].set_footer(text=hint)
    return shown


def sent(text: str, hits: Mapping[int, Hit]) -> dict[str, Any]:
    """An answer as ``send`` and ``edit`` take it."""
    view = discord.ui.View(timeout=None)
    for button in jumps(hits):
        view.add_item(button)
    embed = discord.Embed(description=text, colour=BLUE)
    return {"embeds": [embed], "view": view}
