"""/privacy: shows and forgets the data about a member."""

# mypy: disable-error-code="arg-type"
# discord.py's types do not know hybrid commands of cogs.

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any, Literal

import discord
from bossbot_plugins._answers import reply
from bossbot_plugins._archive import archive_of
from bossbot_plugins._audit import forget as forget_who
from bossbot_plugins._audit import note
from bossbot_plugins._commands import guard, user_of
from bossbot_plugins._jobs import guild_id_of, place_of, unfinished
from bossbot_plugins._privacy import (
    Forgotten,
    count_rows,
    forget_ended,
    forget_rows,
    in_statistics,
    set_in_statistics,
    tables,
    without_shared,
)
from bossbot_plugins._refusals import UNREACHABLE
from bossbot_plugins._words import NOTHING, Everywhere, Messages, check_words
from discord import app_commands
from discord.ext import commands
from loguru import logger

from bossbot import (
    TERMINAL_STATUSES,
    App,
    BossBot,
    Job,
    Refused,
    _,
    format_size,
    hookimpl,
    ngettext,
)

Context = commands.Context[Any]
WAIT_S = 10.0  # for cancelled jobs to end everywhere
AGAIN_S = 60.0  # before messages are deleted that could not be
PAUSE_S = 0.5  # between two of them: deleting is the last thing that is urgent


@hookimpl
def register_tables() -> list[str]:
    return [
        """
        -- Jobs that were under way when they were to be forgotten.
        CREATE TABLE privacy_jobs (
            id TEXT PRIMARY KEY, messages INTEGER NOT NULL, everywhere INTEGER NOT NULL
        );
        -- Our messages that are to be deleted.
        CREATE TABLE privacy_messages (
            channel_id INTEGER NOT NULL, message_id INTEGER PRIMARY KEY
        );
        """
    ]


@hookimpl
def register_commands(bot: BossBot) -> list[commands.Cog]:
    return [Privacy(bot)]


class Privacy(commands.Cog):
    """What is stored about you."""

    def __init__(self, bot: BossBot) -> None:
        self.bot = bot
        self.app: App = bot.app

    @guard("privacy show", group="privacy", needs=())
    @commands.hybrid_group(invoke_without_command=True, case_insensitive=True)
    async def privacy(self, ctx: Context, *, words: str = "") -> None:
        """See and delete your stored data."""
        check_words(self.privacy, words)
        await self.do_show(ctx)

    @guard("privacy show", group="privacy", needs=())
    @privacy.command(ignore_extra=False)
    async def show(self, ctx: Context) -> None:
        """Show the data that I have stored about you."""
        await self.do_show(ctx)

    async def do_show(self, ctx: Context) -> None:
        app, user_id = self.app, user_of(ctx).id
        jobs, size_bytes = await app.queue.count(user_id=user_id)
        here, _size = await app.queue.count(guild_id_of(ctx), user_id)
        rows = await count_rows(app, user_id)
        lines = [
            _("Downloads, in the queue or ended: {count}, {here} of them here").format(
                count=jobs, here=here
            ),
            _("Kept files: {size}").format(size=format_size(size_bytes)),
        ]
        for name, count in rows.items():
            line = _("Rows in the table {table}: {count}")
            lines.append(line.format(table=f"`{name}`", count=count))
        with contextlib.suppress(Refused):  # it is missing, or out of reach
            text = _("Posts in the archive: {count}")
            lines.append(text.format(count=await archive_of(app).count(user_id)))
        named = await in_statistics(app, user_id)
        lines.append(
            _("Statistics may show your name. /privacy stats changes that.")
            if named
            else _("Statistics do not show your name. /privacy stats changes that.")
        )
        lines.append(
            _("The log keeps ids for {days} days.").format(
                days=app.settings.log_retention_days
            )
        )
        lines.append(_("/privacy forget removes everything but the log."))
        await reply(ctx, "\n".join(lines))

    @guard("privacy forget", group="privacy", needs=())
    @privacy.command(ignore_extra=False)
    @app_commands.describe(
        messages="also delete the messages that I have posted for you",
        everywhere="on all servers, not only on this one",
    )
    async def forget(
        self,
        ctx: Context,
        messages: Messages = NOTHING,
        everywhere: Everywhere = NOTHING,
    ) -> None:
        """Cancel and forget all your requests on this server."""
        await ctx.defer(ephemeral=True)
        words: set[Any] = {messages, everywhere}
        guild_id = None if "everywhere" in words else guild_id_of(ctx)
        user_id = user_of(ctx).id
        with_messages = "messages" in words
        late = await cancel_all(self.app, guild_id, user_id, with_messages)
        forgotten = await forget(self.app, guild_id, user_id, with_messages)
        # Who it was is not written down.
        await forget_who(self.app, user_id, guild_id)
        here, everywhere_too = guild_id_of(ctx), guild_id is None
        await note(self.app, here, 0, "privacy forget", everywhere=everywhere_too)
        text = ngettext(
            "{count} download forgotten. Deleted: {size} of files; other rows: {rows}.",
            "{count} downloads forgotten. Deleted: {size} of files; other rows: {rows}.",
            forgotten.jobs,
        ).format(
            count=forgotten.jobs,
            size=format_size(forgotten.size_bytes),
            rows=sum(forgotten.rows.values()),
        )
        lines = [text]
        if with_messages and forgotten.messages:
            count = sum(number > 0 for _channel, number in forgotten.messages)
            lines.append(
                ngettext(
                    "I am deleting {count} message now.",
                    "I am deleting {count} messages now, which may take a while.",
                    count,
                ).format(count=count)
            )
        if late:
            lines.append(
                _(
                    "Downloads that are being posted now will be forgotten "
                    "once they are done."
                )
            )
        await reply(ctx, "\n".join(lines))

    @guard("privacy stats", group="privacy", needs=())
    @privacy.command(ignore_extra=False)
    @app_commands.describe(choice="whether statistics show your name, on all servers")
    async def stats(self, ctx: Context, choice: Literal["on", "off"]) -> None:
        """Show or hide your name in statistics."""
        await set_in_statistics(self.app, user_of(ctx).id, choice == "on")
        if choice == "on":
            await reply(ctx, _("Statistics may show your name."))
        else:
            await reply(ctx, _("Statistics no longer show your name."))


# ── Forgetting ─────────────────────────────────────────────────────────────────────

deleting: asyncio.Event | None = None  # set when there is something to delete
ended: dict[str, asyncio.Event] = {}  # of jobs that somebody waits for


async def cancel_all(
    app: App, guild_id: int | None, user_id: int, messages: bool
) -> bool:
    """Cancel a member's jobs and wait until all plugins have been called about it,
    since some record ended jobs. True if some jobs are not over yet."""
    jobs = unfinished(app, guild_id)
    mine = [job async for job in jobs if job.user_id == user_id]
    for job in mine:
        ended[job.id] = asyncio.Event()
        values = (job.id, int(messages), int(guild_id is None))
        sql = "INSERT OR REPLACE INTO privacy_jobs VALUES (?, ?, ?)"
        await app.database.all(sql, *values)
    for job in mine:
        await app.queue.cancel(job.id)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WAIT_S):
            for job in mine:
                stored = await app.queue.get(job.id)
                if stored and stored.status in TERMINAL_STATUSES:
                    await ended[job.id].wait()
    return any(not ended.pop(job.id).is_set() for job in mine)


async def forget(
    app: App,
    guild_id: int | None,
    user_id: int,
    messages: bool,
    shared: Iterable[tuple[int, int]] = (),
) -> Forgotten:
    """Forget all ended jobs of a member, and the rows of plugins. Messages that are
    ``shared`` with others stay: see ``without_shared``."""
    forgotten = await forget_ended(app, guild_id, user_id)
    await forget_rows(app, forgotten, await tables(app), guild_id, user_id)
    if messages:
        mine = await without_shared(app, forgotten.messages, shared)
        forgotten.messages = {*mine}
        for place in forgotten.messages:
            sql = "INSERT OR IGNORE INTO privacy_messages VALUES (?, ?)"
            await app.database.all(sql, *place)
        if deleting:
            deleting.set()
    return forgotten


@hookimpl(trylast=True)  # after the others have recorded ended jobs
async def job_changed(job: Job, app: App) -> None:
    if job.status not in TERMINAL_STATUSES:
        return
    row = await app.database.one("SELECT * FROM privacy_jobs WHERE id = ?", job.id)
    if row is None:
        return
    await app.database.all("DELETE FROM privacy_jobs WHERE id = ?", job.id)
    if job.id in ended:  # it is forgotten by who waits
        ended[job.id].set()
        return
    guild_id = None if row["everywhere"] else job.guild_id
    shared = [one async for one in shared_with_others(app, job)]
    await forget(app, guild_id, job.user_id, bool(row["messages"]), shared)


async def shared_with_others(app: App, job: Job) -> AsyncIterator[tuple[int, int]]:
    """The numbers and places of a job's messages that others have asked for by joining
    it. They end in one step, which after a crash no plugin may have noted yet."""
    async for other in app.queue.ended(job.finished_at):
        if other.finished_at > job.finished_at:
            return
        together = other.joins and other.joins in (job.id, job.joins)
        if other.user_id != job.user_id and (together or other.id == job.joins):
            for post in other.posts:
                yield post.message_id, place_of(other, post)


@hookimpl
async def run(app: App) -> None:
    """Forget jobs that ended in the meantime, and delete messages."""
    global deleting
    deleting = asyncio.Event()
    for row in await app.database.all("SELECT id FROM privacy_jobs"):
        job = await app.queue.get(row["id"])
        if job and job.status in TERMINAL_STATUSES:
            await job_changed(job, app)
    while True:
        left = await delete_messages(app) if app.has_gateway else False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AGAIN_S if left else None):
                await deleting.wait()
        deleting.clear()


async def delete_messages(app: App) -> bool:
    """Delete the noted messages; True if some could not be deleted."""
    failed = False
    sql = "SELECT * FROM privacy_messages ORDER BY message_id DESC"  # threads last
    rows = await app.database.all(sql)
    for channel_id, message_id in rows:
        channel = app.bot.get_partial_messageable(channel_id)
        try:
            if message_id < 0:  # a thread, in which others may have written, too
                hidden = {"name": _("Album"), "archived": True}
                await app.bot.http.edit_channel(channel_id, **hidden)
            else:
                await channel.get_partial_message(message_id).delete()
        except (discord.NotFound, discord.Forbidden):
            pass  # it is gone, or out of reach for good
        except UNREACHABLE as error:
            logger.warning("a message could not be deleted: {!r}", error)
            failed = True
            continue
        sql = "DELETE FROM privacy_messages WHERE message_id = ?"
        await app.database.all(sql, message_id)
        await asyncio.sleep(PAUSE_S)
    return failed
