"""/stats: shows the downloads as numbers and as a picture. They are kept as totals of
days, so that this takes the same time after a million downloads as after ten."""

# mypy: disable-error-code="arg-type"
# discord.py's types do not know hybrid commands of cogs.

import asyncio
import io
import math
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

import discord
from bossbot_plugins._answers import reply
from bossbot_plugins._commands import guard
from bossbot_plugins._errors import missing_here
from bossbot_plugins._jobs import guild_id_of, unfinished
from bossbot_plugins._privacy import in_statistics
from bossbot_plugins._quota import DAY_S, told
from bossbot_plugins._stats_picture import COLOURS, Picture
from discord import app_commands
from discord.ext import commands
from loguru import logger

from bossbot import (
    TERMINAL_STATUSES,
    App,
    BossBot,
    Job,
    Refused,
    Status,
    _,
    escape,
    format_size,
    format_time,
    hookimpl,
    now,
)

Context = commands.Context[Any]
GREEN = discord.Colour(0x3BA55D)
LOOK_BACK_S = 3600.0  # before the newest job, for older ones that are missing
REMEMBERED = 100_000  # jobs that are known to be counted
# In place of a day, and of a server.
ALL_TIME, EVERYWHERE = 0, -1
PICTURE_DAYS = 14
TOP = 5  # members and servers that are named
TOP_READ = 50  # rows that are read for them, since some may not be named
BINS_PER_OCTAVE = 4  # of times: each bin is 19 % longer than the last
SHORTEST_S, LONGEST_S = 0.05, 86400.0
OTHER = "other"


@hookimpl
def register_tables() -> list[str]:
    return [
        """
        -- Downloads of a day (since 1970, by UTC) or of all time.
        CREATE TABLE stats (
            guild_id INTEGER NOT NULL, day INTEGER NOT NULL, platform TEXT NOT NULL,
            completed INTEGER NOT NULL, failed INTEGER NOT NULL, bytes INTEGER NOT NULL,
            PRIMARY KEY (guild_id, day, platform)
        );
        -- How many of them took how long: see bin_of.
        CREATE TABLE stats_times (
            guild_id INTEGER NOT NULL, day INTEGER NOT NULL, kind TEXT NOT NULL,
            bin INTEGER NOT NULL, count INTEGER NOT NULL,
            PRIMARY KEY (guild_id, day, kind, bin)
        );
        CREATE TABLE stats_members (
            guild_id INTEGER NOT NULL, user_id INTEGER NOT NULL,
            completed INTEGER NOT NULL, bytes INTEGER NOT NULL,
            PRIMARY KEY (guild_id, user_id)
        );
        CREATE INDEX stats_members_by_count ON stats_members (guild_id, completed);
        -- The jobs that were counted.
        CREATE TABLE stats_jobs (
            number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, ended_at REAL NOT NULL
        );
        CREATE INDEX stats_jobs_by_end ON stats_jobs (ended_at);
        """,
        "CREATE INDEX stats_members_by_user ON stats_members (user_id)",
    ]


@hookimpl
def register_commands(bot: BossBot) -> list[commands.Cog]:
    return [Stats(bot)]


# ── Counting ───────────────────────────────────────────────────────────────────────


@hookimpl
async def run(app: App) -> None:
    """Count the jobs that ended while the plugin was off."""
    if app.queue.shared and not app.has_gateway:  # a gateway counts
        return
    newest = await app.database.one("SELECT max(ended_at) FROM stats_jobs")
    since = min(newest[0] or 0, now()) - LOOK_BACK_S if newest else 0
    async for job in app.queue.ended(max(since, 0)):
        await count(app, job)
    await app.database.all(
        "DELETE FROM stats_jobs WHERE number <= (SELECT max(number) FROM stats_jobs) - ?",
        REMEMBERED,
    )


@hookimpl
async def job_changed(job: Job, app: App) -> None:
    if job.status in TERMINAL_STATUSES:
        await count(app, job)


async def count(app: App, job: Job) -> None:
    """Add a job that has ended to the totals; twice does no harm."""
    completed = job.status is Status.COMPLETED
    if not completed and job.status is not Status.FAILED:
        return
    named = completed and await in_statistics(app, job.user_id)
    bytes_ = job.total_bytes if completed else 0
    day = int(job.finished_at // DAY_S)
    times = {
        "wait": job.started_at - job.created_at,
        "duration": job.finished_at - job.started_at,
    }

    def add(database: sqlite3.Connection) -> None:
        new = database.execute(
            "INSERT OR IGNORE INTO stats_jobs (id, ended_at) VALUES (?, ?) RETURNING 1",
            (job.id, job.finished_at),
        ).fetchall()
        if not new:
            return
        for guild_id in (job.guild_id, EVERYWHERE):
            for one in (day, ALL_TIME):
                values = (guild_id, one, job.platform, completed, not completed, bytes_)
                database.execute(
                    "INSERT INTO stats VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
                    "SET completed = completed + excluded.completed, "
                    "failed = failed + excluded.failed, bytes = bytes + excluded.bytes",
                    values,
                )
                for kind, seconds in times.items() if completed else ():
                    database.execute(
                        "INSERT INTO stats_times VALUES (?, ?, ?, ?, 1) "
                        "ON CONFLICT DO UPDATE SET count = count + 1",
                        (guild_id, one, kind, bin_of(seconds)),
                    )
        if named:
            database.execute(
                "INSERT INTO stats_members VALUES (?, ?, 1, ?) ON CONFLICT DO UPDATE "
                "SET completed = completed + 1, bytes = bytes + excluded.bytes",
                (job.guild_id, job.user_id, bytes_),
            )

    await app.database.run(add)


def bin_of(seconds: float) -> int:
    """The bin of a time, from 0."""
    inside = min(max(seconds, SHORTEST_S), LONGEST_S)
    return int(math.log2(inside / SHORTEST_S) * BINS_PER_OCTAVE)


def median(bins: Iterable[tuple[int, int]]) -> float | None:
    """The median in seconds, of bins and their counts, at most 10 % off; None of none."""
    counts = sorted(bins)
    half, before = sum(count for _bin, count in counts) / 2, 0.0
    for number, count in counts:
        if half and before + count >= half:
            place = number + (half - before) / count
            return float(SHORTEST_S * 2 ** (place / BINS_PER_OCTAVE))
        before += count
    return None


# ── Reading ────────────────────────────────────────────────────────────────────────


class Total(NamedTuple):
    """The downloads of some time."""

    completed: int = 0
    failed: int = 0
    bytes: int = 0
    wait_s: float | None = None  # medians
    duration_s: float | None = None


async def total(app: App, guild_id: int, days: Sequence[int]) -> Total:
    """The downloads of the days from the first to the last."""
    where = "WHERE guild_id = ? AND day BETWEEN ? AND ?"
    values = (guild_id, days[0], days[-1])
    row = await app.database.one(
        f"SELECT sum(completed), sum(failed), sum(bytes) FROM stats {where}", *values
    )
    times = await app.database.all(
        f"SELECT kind, bin, sum(count) FROM stats_times {where} GROUP BY kind, bin",
        *values,
    )
    of_kind = {
        kind: median((number, count) for name, number, count in times if name == kind)
        for kind in ("wait", "duration")
    }
    completed, failed, bytes_ = (n or 0 for n in row or (0, 0, 0))
    return Total(completed, failed, bytes_, of_kind["wait"], of_kind["duration"])


async def by_platform(app: App, guild_id: int) -> list[tuple[str, int, int]]:
    """Platforms, completed downloads and their bytes, of all time, most first."""
    rows = await app.database.all(
        "SELECT platform, completed, bytes FROM stats WHERE guild_id = ? AND day = ? "
        "AND completed > 0 ORDER BY completed DESC, platform",
        *(guild_id, ALL_TIME),
    )
    return [(row[0] or OTHER, row[1], row[2]) for row in rows]


async def by_day(app: App, guild_id: int, today: int) -> Picture | None:
    """The completed downloads of the last days, by platform; None when there are none."""
    first = today - PICTURE_DAYS + 1
    rows = await app.database.all(
        "SELECT platform, day, completed FROM stats WHERE guild_id = ? AND day BETWEEN "
        "? AND ? AND completed > 0",
        *(guild_id, first, today),
    )
    sums: Counter[str] = Counter()
    for platform, _day, completed in rows:
        sums[platform or OTHER] += completed
    names = [name for name, _count in sums.most_common() if name != OTHER]
    named, rest = names[: len(COLOURS) - 1], names[len(COLOURS) - 1 :]
    parts = {name: [0] * PICTURE_DAYS for name in [*named, *([OTHER] if rest else [])]}
    if OTHER in sums:
        parts.setdefault(OTHER, [0] * PICTURE_DAYS)
    for platform, day, completed in rows:
        name = platform if platform in named else OTHER
        parts[name][day - first] += completed
    labels = [f"{date_of(day):%m-%d}" for day in range(first, today + 1)]
    return Picture(labels, parts) if rows else None


async def top_members(app: App, guild_id: int) -> list[tuple[int, int]]:
    """The members with the most completed downloads who may be named, and how many."""
    rows = await app.database.all(
        "SELECT user_id, completed FROM stats_members WHERE guild_id = ? "
        "ORDER BY completed DESC LIMIT ?",
        *(guild_id, TOP_READ),
    )
    found: list[tuple[int, int]] = []
    for user_id, completed in rows:
        if len(found) < TOP and await in_statistics(app, user_id):
            found.append((user_id, completed))
    return found


def name_of(platform: str) -> str:
    """A platform's name, or what stands for the sites that are none."""
    return _("other") if platform == OTHER else platform


def date_of(day: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)


# ── Showing ────────────────────────────────────────────────────────────────────────


class Stats(commands.Cog):
    """What was downloaded."""

    def __init__(self, bot: BossBot) -> None:
        self.bot = bot
        self.app: App = bot.app
        self.drawing = asyncio.Lock()  # one picture at a time is enough for a Pi

    @guard("stats", group="stats")
    @commands.hybrid_command()
    @app_commands.describe(where="here, or everywhere: for the bot's owner only")
    async def stats(
        self, ctx: Context, where: Literal["here", "everywhere"] = "here"
    ) -> None:
        """Show this server's downloads, with a picture of the last two weeks."""
        everywhere = where == "everywhere"
        if everywhere and not await self.bot.is_owner(ctx.author):
            raise Refused(_("Only the bot's owner may see other servers."))
        await ctx.defer(ephemeral=everywhere)
        missing = [] if ctx.interaction else missing_here(ctx)
        guild_id = EVERYWHERE if everywhere else guild_id_of(ctx)
        today = int(now() // DAY_S)
        embed = await shown(self.app, guild_id, today)
        picture = await by_day(self.app, guild_id, today)
        may_attach = "attach_files" not in missing
        file = await self.file(picture) if picture and may_attach else None
        if file:
            embed.set_image(url=f"attachment://{file.filename}")
        await reply(ctx, embed=embed, file=file, private=everywhere)

    async def file(self, picture: Picture) -> discord.File | None:
        """The picture to be sent; None, and a line in the log, if it cannot be drawn."""
        try:
            async with self.drawing:
                png = await picture.draw()
        except (OSError, RuntimeError, TimeoutError) as error:
            logger.warning("the picture of /stats cannot be drawn: {!r}", error)
            return None
        parts = picture.parts.items()
        sums = (f"{name_of(name)} {sum(values)}" for name, values in parts)
        text = _("Downloads per day in the last two weeks: {sums}").format(
            sums=", ".join(sums)
        )
        return discord.File(io.BytesIO(png), "stats.png", description=text[:1024])


async def shown(app: App, guild_id: int, today: int) -> discord.Embed:
    """The numbers of a server, or of all."""
    title = _("What was downloaded here")
    if guild_id == EVERYWHERE:
        title = _("What was downloaded on all servers")
    embed = discord.Embed(title=title, colour=GREEN)
    times = {
        _("Today"): [today],
        _("7 days"): range(today - 6, today + 1),
        _("All time"): [ALL_TIME],
    }
    for name, days in times.items():
        lines = lines_of(await total(app, guild_id, days))
        embed.add_field(name=name, value="\n".join(lines))
    platforms = [
        f"{escape(name_of(name))}: {completed} ({format_size(size)})"
        for name, completed, size in (await by_platform(app, guild_id))[:10]
    ]
    if platforms:
        embed.add_field(name=_("By site"), value="\n".join(platforms))
    if guild_id != EVERYWHERE:
        members = await top_members(app, guild_id)
        names = [f"<@{user_id}>: {completed}" for user_id, completed in members]
        if names and guild_id:
            embed.add_field(name=_("Most requests"), value="\n".join(names))
    here = None if guild_id == EVERYWHERE else guild_id
    count = Counter[bool]()  # how many run, and wait; without those that come with them
    async for job in unfinished(app, here):
        count[job.status is Status.QUEUED] += not job.joins
    text = _("{running} running, {waiting} waiting").format(
        running=count[False], waiting=count[True]
    )
    embed.add_field(name=_("Queue now"), value=text)
    if guild_id != EVERYWHERE and (line := await told(app, guild_id)):
        embed.add_field(name=_("Posted today, of the quota"), value=line)
    embed.set_footer(text=_("Days are UTC. Times are medians of completed downloads."))
    return embed


def lines_of(total: Total) -> Iterator[str]:
    """A line for each number of some time."""
    yield _("Downloads: {count}").format(count=f"**{total.completed}**")
    if ended := total.completed + total.failed:
        share = f"{total.completed / ended:.0%}"
        yield _("Succeeded: {share}").format(share=share)
    if total.completed:
        yield _("Posted: {size}").format(size=format_size(total.bytes))
    if total.wait_s is not None:
        yield _("Wait: {time}").format(time=format_time(total.wait_s))
    if total.duration_s is not None:
        yield _("Took: {time}").format(time=format_time(total.duration_s))
