"""How much may be posted: in one file, and in all files of a server and day (UTC)."""

import asyncio
import json
import sqlite3
from typing import Any, Self

import discord
from bossbot_plugins._quota import DAY_S, Held, held, holder_of, today, used
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


class Config(PluginConfig):
    """[plugins.quota] in config.toml."""

    daily_quota: ByteSize = Field(
        ByteSize(500 * 2**20),
        description="posted on one server in a day; 0: no limit",
    )


class GuildConfig(PluginConfig):
    """[quota] of a server."""

    max_file_size: ByteSize | None = Field(
        None, ge=1, description="of one posted file; not set: the owner's"
    )
    daily_quota: ByteSize | None = Field(
        None, description="posted in a day, by UTC; 0: no limit; not set: the owner's"
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
        """
    ]


@hookimpl
async def run(app: App) -> None:
    """Settle what ended while nobody noticed, and forget the days that are over."""
    rows = await app.database.all("SELECT id FROM quota_jobs WHERE reserved > 0")
    for (job_id,) in rows:
        job = await app.queue.get(job_id)
        if job is None:
            await app.database.all(
                "UPDATE quota_jobs SET reserved = 0 WHERE id = ?", job_id
            )
        elif job.status in TERMINAL_STATUSES:
            await settle(app, job)
    while True:
        with logger.catch(message="old days of the quota could not be removed"):
            for table in ("quota_jobs", "quota_days"):
                sql = f"DELETE FROM {table} WHERE day < ?"
                await app.database.all(sql, today() - 1)
        await asyncio.sleep(SWEEP_S)


@hookimpl(trylast=True)  # what others refuse needs no room
async def check_job(job: Job, guild: GuildConfig, app: App) -> None:
    """Bounds the files of a job, and refuses it when the quota is used up."""
    sizes = (job.limit_bytes, guild.max_file_size or 0)
    job.limit_bytes = min((size for size in sizes if size), default=0)
    if limit := await limit_of(app, job, guild):  # as it is now, with no promise
        posted, reserved = await used(app, holder_of(job))
        if posted + reserved >= limit:
            raise Refused(over(limit), cause=Cause.QUOTA)


@hookimpl(trylast=True)
async def check_attempt(job: Job, guild: GuildConfig, app: App) -> None:
    """Reserves the largest file that a job may bring, or what is left."""
    if is_elsewhere(app):
        return
    limit = await limit_of(app, job, guild)
    wanted = job.limit_bytes or int(app.settings.max_file_size)

    def reserve(database: sqlite3.Connection) -> bool:
        own, room = held(database, job, limit)
        if room is not None and room <= 0:
            return False
        reserved = wanted if room is None else min(wanted, room - own.posted)
        put(database, job, own._replace(day=today(), reserved=max(reserved, 0)))
        return True

    if not await app.database.run(reserve):
        raise Refused(over(limit), cause=Cause.QUOTA)


@hookimpl(trylast=True)
async def check_upload(
    job: Job, files: list[MediaFile], guild: GuildConfig, app: App
) -> None:
    """Takes what a job really posts, before it does."""
    if is_elsewhere(app):
        return
    limit = await limit_of(app, job, guild)

    def take(database: sqlite3.Connection) -> tuple[int, int]:
        own, room = held(database, job, limit)
        own.files.update({file.name: file.size for file in files})
        needed = sum(own.files.values())
        if job.status is Status.UPLOADING:  # all that comes is known
            needed = max(needed, job.total_bytes)
        elif room is None or own.posted + own.reserved <= room:  # more may come
            needed = max(needed, own.posted + own.reserved)
        room = needed if room is None else room
        if needed <= room:
            sent = sent_bytes(job, own.files)
            reserved = max(needed - sent, 0)
            new = own._replace(day=today(), posted=sent, reserved=reserved)
            put(database, job, new)
        return needed, room

    needed, room = await app.database.run(take)
    if needed > room:
        raise Refused(too_much(limit, needed, max(room, 0)), cause=Cause.QUOTA)


@hookimpl
async def job_changed(job: Job, app: App) -> None:
    # One that was never claimed has nothing yet.
    if job.status in (*TERMINAL_STATUSES, Status.QUEUED) and job.claim_number:
        await settle(app, job)


async def settle(app: App, job: Job) -> None:
    """Write down what a job that does not run any more has posted; twice does no
    harm."""

    def write(database: sqlite3.Connection) -> None:
        own, _room = held(database, job, 0)
        if not own.known and app.queue.shared and job.posted:  # by another process
            sent = job.total_bytes
            new = own._replace(day=today(), posted=sent, claim_number=job.claim_number)
            put(database, job, new)
        elif own.known and own.claim_number <= job.claim_number:
            sent = sent_bytes(job, own.files)
            new = own._replace(posted=sent, reserved=0, claim_number=job.claim_number)
            put(database, job, new)

    await app.database.run(write)


def is_elsewhere(app: App) -> bool:
    """Whether another process counts, the one that takes links in. It counts what has
    been posted, and reserves nothing."""
    return app.queue.shared and not app.has_gateway


def sent_bytes(job: Job, sizes: dict[str, int]) -> int:
    names = {n for post in job.posts if post.state == "sent" for n in post.files}
    return sum(sizes.get(name, 0) for name in names)


def put(database: sqlite3.Connection, job: Job, own: Held) -> None:
    database.execute(
        "INSERT INTO quota_jobs VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "day = excluded.day, posted = excluded.posted, reserved = excluded.reserved, "
        "claim_number = excluded.claim_number, files = excluded.files",
        (
            *(job.id, holder_of(job), own.day, own.posted, own.reserved),
            *(own.claim_number, json.dumps(own.files)),
        ),
    )


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
        "All that may be posted here in a day ({quota}) is used up, or reserved for "
        "downloads that are running. It starts anew {when}."
    )
    return text.format(quota=format_size(limit), when=reset())


def too_much(limit: int, needed: int, room: int) -> str:
    text = _(
        "That has {size}, and of what may be posted here in a day ({quota}) only {left} "
        "is left. It starts anew {when}."
    )
    sizes = {"size": needed, "quota": limit, "left": room}
    shown = {name: format_size(size) for name, size in sizes.items()}
    return text.format(when=reset(), **shown)
