"""The history: a row for every job that has ended, for statistics and quotas."""

from bossbot import TERMINAL_STATUSES, App, Job, Status, hookimpl

LOOK_BACK_S = 86400.0  # before the newest row, for older ones that are missing

COLUMNS = (
    *("id", "guild_id", "channel_id", "user_id", "url", "platform", "engine"),
    *("status", "cause", "title", "file_count", "total_bytes"),
    *("created_at", "started_at", "finished_at", "posts"),
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
        """
    ]


@hookimpl
async def run(app: App) -> None:
    """Add the jobs that ended while nobody wrote it down."""
    database = app.database
    newest = await database.one("SELECT max(finished_at) FROM history")
    since = max((newest[0] or 0) - LOOK_BACK_S, 0) if newest else 0
    rows = await database.all("SELECT id FROM history WHERE finished_at >= ?", since)
    known = {row[0] for row in rows}
    for job in await app.queue.list(statuses=TERMINAL_STATUSES, since=since):
        if job.id not in known:
            await store(app, job)


@hookimpl
async def job_changed(job: Job, previous: Status | None, app: App) -> None:
    if job.status in TERMINAL_STATUSES:
        await store(app, job)


async def store(app: App, job: Job) -> None:
    """Write a job's row; twice does no harm."""
    row = {**job.to_row(), "title": job.title}
    marks = ", ".join(f":{name}" for name in COLUMNS)
    await app.database.one(
        f"INSERT OR REPLACE INTO history ({', '.join(COLUMNS)}) VALUES ({marks})",
        **{name: row[name] for name in COLUMNS},
    )
