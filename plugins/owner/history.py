"""The history: a row for every job that has ended."""

import asyncio
import sqlite3
from collections.abc import Sequence

from bossbot_plugins._rows import row_of
from loguru import logger
from pydantic import Field

from bossbot import (
    TERMINAL_STATUSES,
    App,
    Job,
    PluginConfig,
    Status,
    hookimpl,
    now,
)

LOOK_BACK_S = 3600.0  # before the newest row, for older ones that are missing
PAGE = 200  # rows that are written or removed at once
SWEEP_S = 3600.0  # between two removals of old rows

COLUMNS = (
    *("id", "guild_id", "channel_id", "user_id", "url", "platform", "engine"),
    *("status", "cause", "title", "file_count", "total_bytes"),
    *("created_at", "started_at", "finished_at", "posts"),
)


class Config(PluginConfig):
    """[plugins.history] in config.toml."""

    keep_days: float = Field(
        0, ge=0, description="how long rows of ended jobs are kept; 0: for ever"
    )


@hookimpl
def register_tables() -> list[str]:
    return [
        """
        CREATE TABLE history (
            id TEXT PRIMARY KEY,
            guild_id INTEGER NOT NULL, channel_id INTEGER NOT NULL,
            user_id INTEGER NOT NULL, url TEXT NOT NULL, platform TEXT NOT NULL,
            engine TEXT NOT NULL, status TEXT NOT NULL, cause TEXT,
            title TEXT NOT NULL, file_count INTEGER NOT NULL,
            total_bytes INTEGER NOT NULL, created_at REAL NOT NULL,
            started_at REAL NOT NULL, finished_at REAL NOT NULL,
            posts TEXT NOT NULL  -- the messages, as JSON: see bossbot.Post
        );
        CREATE INDEX history_by_guild ON history (guild_id, finished_at);
        CREATE INDEX history_by_user ON history (user_id, finished_at);
        CREATE INDEX history_by_url ON history (guild_id, url);
        CREATE INDEX history_by_end ON history (finished_at);
        """,
        """
        CREATE TABLE history_totals (  -- of all that has ever been in the history
            guild_id INTEGER NOT NULL, platform TEXT NOT NULL, status TEXT NOT NULL,
            jobs INTEGER NOT NULL, file_count INTEGER NOT NULL,
            total_bytes INTEGER NOT NULL,
            PRIMARY KEY (guild_id, platform, status)
        ) WITHOUT ROWID;
        INSERT INTO history_totals
            SELECT guild_id, platform, status, count(*), sum(file_count),
                sum(total_bytes)
            FROM history GROUP BY guild_id, platform, status;
        CREATE TRIGGER history_added AFTER INSERT ON history BEGIN
            INSERT INTO history_totals VALUES (new.guild_id, new.platform, new.status,
                1, new.file_count, new.total_bytes)
            ON CONFLICT DO UPDATE SET jobs = jobs + 1,
                file_count = file_count + excluded.file_count,
                total_bytes = total_bytes + excluded.total_bytes;
        END;
        """,
        """
        DROP TRIGGER history_added;  -- of the totals, which the statistics have
        DROP TABLE history_totals;
        DROP INDEX history_by_user;  -- forgetting would read all rows of a server
        CREATE INDEX history_by_user ON history (user_id, guild_id, finished_at);
        """,
    ]


@hookimpl
async def run(app: App, config: Config) -> None:
    """Add the jobs that ended while the plugin was off; remove old rows."""
    if app.has_gateway or not app.queue.shared:  # else a gateway has all of them
        await make_up(app, config)
    while config.keep_days:
        with logger.catch(message="old rows of the history could not be removed"):
            await remove_old(app, config.keep_days)
        await asyncio.sleep(SWEEP_S)


async def make_up(app: App, config: Config) -> None:
    """Add the jobs that ended while the plugin was off."""
    newest = await app.database.one("SELECT max(finished_at) FROM history")
    since = max((newest[0] or 0) - LOOK_BACK_S, 0) if newest else 0
    if config.keep_days:  # removed rows must not come back
        since = max(since, now() - config.keep_days * 86400)
    page: list[Job] = []
    async for job in app.queue.ended(since):
        page.append(job)
        if len(page) == PAGE:
            await store(app, page)
            page = []
    await store(app, page)


@hookimpl
async def job_changed(job: Job, previous: Status | None, app: App) -> None:
    if job.status in TERMINAL_STATUSES:
        await store(app, [job])


async def store(app: App, jobs: Sequence[Job]) -> None:
    """Write rows of jobs that have ended; twice does no harm."""
    marks = ", ".join(f":{name}" for name in COLUMNS)
    sql = (
        f"INSERT INTO history ({', '.join(COLUMNS)}) VALUES ({marks}) "
        "ON CONFLICT (id) DO NOTHING"
    )
    rows = [{**row_of(job), "title": job.title} for job in jobs]
    wanted = [{name: row[name] for name in COLUMNS} for row in rows]

    def insert(database: sqlite3.Connection) -> None:
        database.executemany(sql, wanted)

    await app.database.run(insert)


async def remove_old(app: App, keep_days: float) -> None:
    """Remove the rows that are older."""
    before = now() - keep_days * 86400
    sql = (
        "DELETE FROM history WHERE id IN (SELECT id FROM history WHERE finished_at < ? "
        f"ORDER BY finished_at LIMIT {PAGE}) RETURNING 1"
    )
    while len(await app.database.all(sql, before)) == PAGE:
        await asyncio.sleep(0)
