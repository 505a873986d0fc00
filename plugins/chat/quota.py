"""Limits posts: the size of one file, and the total of a server per day (UTC)."""

import asyncio
from collections.abc import Callable
from typing import Any, Self

import discord
from bossbot_plugins._quota import (
    DAY_S,
    Ledger,
    change,
    fact,
    holder_of,
    sent_bytes,
    today,
)
from loguru import logger
from pydantic import ByteSize, Field

from bossbot import (
    TERMINAL_STATUSES,
    App,
    Cause,
    Job,
    MediaFile,
    PluginConfig,
    Refused,
    Settings,
    Status,
    _,
    format_size,
    hookimpl,
)

SWEEP_S = 3600.0  # between two removals of days that are over
noted: dict[int, int] = {}  # of holders, the day that is in the table


class Config(PluginConfig):
    """[plugins.quota] in config.toml."""

    daily_quota: ByteSize = Field(
        ByteSize(500 * 2**20),
        description="limit for one server and day (UTC); 0: no limit",
    )


class GuildConfig(PluginConfig):
    """[quota] of a server."""

    max_file_size: ByteSize | None = Field(
        None, ge=1, description="the largest posted file; not set: the owner's limit"
    )
    daily_quota: ByteSize | None = Field(
        None,
        description="limit for one day (UTC); 0: no limit; not set: the owner's limit",
    )

    def within(self, config: Any, settings: Settings) -> Self:
        """With the owner's values where the server has none, and never above them."""
        most = settings.max_file_size
        owner, mine = config.daily_quota, self.daily_quota
        if mine is None or (owner and not 0 < mine <= owner):
            mine = owner
        values = {"max_file_size": min(self.max_file_size or most, most)}
        return self.model_copy(update={**values, "daily_quota": mine})


@hookimpl
def register_tables() -> list[str]:
    return [
        """
        -- What each job of today has of its server's quota. The holder is the server,
        -- or a direct message, as a negative number. Days are counted from 1970.
        CREATE TABLE quota_jobs (
            id TEXT PRIMARY KEY, holder INTEGER NOT NULL, day INTEGER NOT NULL,
            posted INTEGER NOT NULL, reserved INTEGER NOT NULL,  -- bytes
            claim_number INTEGER NOT NULL,
            files TEXT NOT NULL  -- the sizes of those seen so far, by name, as JSON
        ) WITHOUT ROWID;
        CREATE INDEX quota_jobs_by_day ON quota_jobs (day);
        CREATE INDEX quota_jobs_running ON quota_jobs (id) WHERE reserved > 0;
        CREATE TABLE quota_days (  -- their sums
            holder INTEGER NOT NULL, day INTEGER NOT NULL,
            posted INTEGER NOT NULL, reserved INTEGER NOT NULL,
            PRIMARY KEY (holder, day)
        ) WITHOUT ROWID;
        CREATE TRIGGER quota_added AFTER INSERT ON quota_jobs BEGIN
            INSERT INTO quota_days VALUES (new.holder, new.day, new.posted, new.reserved)
            ON CONFLICT DO UPDATE SET posted = posted + excluded.posted,
                reserved = reserved + excluded.reserved;
        END;
        CREATE TRIGGER quota_changed AFTER UPDATE ON quota_jobs BEGIN
            UPDATE quota_days SET posted = posted - old.posted,
                reserved = reserved - old.reserved
            WHERE holder = old.holder AND day = old.day;
            INSERT INTO quota_days VALUES (new.holder, new.day, new.posted, new.reserved)
            ON CONFLICT DO UPDATE SET posted = posted + excluded.posted,
                reserved = reserved + excluded.reserved;
        END;
        """,
        """
        -- All of this is in facts now, which several machines share. Those of these
        -- servers, or direct messages (negative), are to be removed after the day.
        DROP TABLE quota_jobs;
        DROP TABLE quota_days;
        CREATE TABLE quota_holders (holder INTEGER PRIMARY KEY, day INTEGER NOT NULL);
        """,
    ]


@hookimpl
async def run(app: App) -> None:
    """Forget the days that are over."""
    while True:
        with logger.catch(message="old days of the quota could not be removed"):
            sql = "SELECT holder FROM quota_holders WHERE day < ?"
            for (holder,) in await app.database.all(sql, today() - 1):
                await app.facts.set(fact(holder), "")
                noted.pop(holder, None)
                sql = "DELETE FROM quota_holders WHERE holder = ? AND day < ?"
                await app.database.all(sql, holder, today() - 1)
        await asyncio.sleep(SWEEP_S)


@hookimpl(trylast=True)  # what others refuse needs no room
async def check_job(job: Job, guild: GuildConfig, app: App) -> None:
    """Limits the files of a job, and refuses it when the quota is used up."""
    sizes = (job.limit_bytes, guild.max_file_size or 0)
    job.limit_bytes = min((size for size in sizes if size), default=0)
    if limit := await limit_of(app, job, guild):  # as it is now, with no promise

        def look(ledger: Ledger) -> int:
            return limit - sum(ledger.sums)

        if await look_twice(app, job, look) <= 0:
            raise Refused(over(limit), cause=Cause.QUOTA)


@hookimpl(trylast=True)
async def check_attempt(job: Job, guild: GuildConfig, app: App) -> None:
    """Reserves the largest file that a job may have, or the rest of a quota."""
    limit = await limit_of(app, job, guild)
    wanted = job.limit_bytes or int(app.settings.max_file_size)

    def reserve(ledger: Ledger) -> int:
        own, room = ledger.of(job), ledger.room(job, limit) or 0
        if room > 0:
            reserved = max(min(wanted, room - own.posted), 0)
            ledger.jobs[job.id] = own._replace(reserved=reserved)
        return room

    if limit and await look_twice(app, job, reserve) <= 0:
        raise Refused(over(limit), cause=Cause.QUOTA)


@hookimpl(trylast=True)
async def check_upload(
    job: Job, files: list[MediaFile], guild: GuildConfig, app: App
) -> None:
    """Takes the size of a job's files, before they are posted."""
    limit = await limit_of(app, job, guild)
    needed = 0

    def take(ledger: Ledger) -> int:
        nonlocal needed
        own, room = ledger.of(job), ledger.room(job, limit)
        own.files.update({file.name: file.size for file in files})
        needed = sum(own.files.values())
        if job.status is Status.UPLOADING:  # all that comes is known
            needed = max(needed, job.total_bytes)
        elif room is None or own.posted + own.reserved <= room:  # more may come
            needed = max(needed, own.posted + own.reserved)
        if room is None or needed <= room:
            sent = sent_bytes(job, own.files)
            reserved = max(needed - sent, 0)
            ledger.jobs[job.id] = own._replace(posted=sent, reserved=reserved)
        return 1 if room is None else room - needed + 1

    left = await look_twice(app, job, take)
    if left <= 0:
        room = max(needed + left - 1, 0)
        raise Refused(too_much(limit, needed, room), cause=Cause.QUOTA)


@hookimpl
async def job_changed(job: Job, app: App) -> None:
    # One that was never claimed has nothing yet.
    if job.status in (*TERMINAL_STATUSES, Status.QUEUED) and job.claim_number:
        holder, day = holder_of(job), today()
        if noted.get(holder, 0) < day:
            sql = (
                "INSERT INTO quota_holders VALUES (?, ?) ON CONFLICT DO UPDATE "
                "SET day = excluded.day WHERE day < excluded.day"
            )
            await app.database.all(sql, holder, day)
            noted[holder] = day
        await change(app, holder, lambda ledger: ledger.settle(job))


async def look_twice(app: App, job: Job, look: Callable[[Ledger], int]) -> int:
    """The result of a look at a job's ledger, which may change it. If that says no, by 0
    or less, it is asked again without what other jobs hold that have ended while nobody
    noticed."""
    holder, others = holder_of(job), list[str]()

    def first(ledger: Ledger) -> int:
        others[:] = ledger.jobs.keys() - {job.id}
        return look(ledger)

    if (found := await change(app, holder, first)) > 0 or not others:
        return found
    stored = await app.queue.find(others)

    def again(ledger: Ledger) -> int:
        for job_id in others:
            one = stored.get(job_id)
            if one is None and (gone := ledger.jobs.pop(job_id, None)):
                ledger.posted += gone.posted
            elif one and one.status in (*TERMINAL_STATUSES, Status.QUEUED):
                ledger.settle(one)
        return look(ledger)

    return await change(app, holder, again)


async def limit_of(app: App, job: Job, guild: GuildConfig) -> int:
    """The quota that a job is under; 0 for none, as for the bot's owner."""
    if not guild.daily_quota or not job.channel_id:
        return 0
    user: Any = discord.Object(job.user_id)
    return 0 if await app.bot.is_owner(user) else int(guild.daily_quota)


def reset() -> str:
    """When the next day begins, as Discord shows it."""
    return f"<t:{(today() + 1) * DAY_S}:R>"


def over(limit: int) -> str:
    text = _(
        "This server's daily quota ({quota}) is used up, or reserved for running "
        "downloads. It resets {when}."
    )
    return text.format(quota=format_size(limit), when=reset())


def too_much(limit: int, needed: int, room: int) -> str:
    text = _(
        "That is {size}, but only {left} is left of this server's daily quota "
        "({quota}). It resets {when}."
    )
    sizes = {"size": needed, "quota": limit, "left": room}
    shown = {name: format_size(size) for name, size in sizes.items()}
    return text.format(when=reset(), **shown)
