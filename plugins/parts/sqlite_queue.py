"""The queue in the bot's own SQLite file: the default one."""

import asyncio
import dataclasses
import sqlite3
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from loguru import logger

from bossbot import (
    Database,
    Job,
    Pipeline,
    Priority,
    Queue,
    QueueFull,
    Refused,
    Settings,
    Status,
    hookimpl,
    now,
)


@hookimpl(trylast=True)  # any other queue is there because the host wants it
def register_queue(pipeline: Pipeline) -> Queue:
    return SQLiteQueue(pipeline.db, pipeline.settings)


# These hold a download slot; an upload holds none.
SLOT_STATUSES = (Status.DOWNLOADING, Status.PROCESSING)
_JOB_COLUMNS = tuple(f.name for f in dataclasses.fields(Job))
# Set apart from the claim, so a claim's holder never overwrites it.
_GUARDED_COLUMNS = tuple(
    n for n in _JOB_COLUMNS if n not in ("id", "fence", "status_message_id", "priority")
)


def _sql_list(statuses: Iterable[Status]) -> str:
    return "(" + ", ".join(f"'{status}'" for status in statuses) + ")"


def _to_job(row: sqlite3.Row) -> Job:
    return Job(**{name: row[name] for name in _JOB_COLUMNS})


# A job that must wait longer than this was delayed by another clock.
MAX_DELAY_S = 600


class SQLiteQueue:
    """The embedded queue. One process owns the file, so a lease never expires while
    it lives; what an earlier process held is released by ``recover``."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self.db = db
        self.settings = settings
        self._listeners: set[asyncio.Queue[str]] = set()

    def _announce(self, job_id: str) -> None:
        for listener in self._listeners:
            listener.put_nowait(job_id)

    async def changes(self) -> AsyncIterator[str]:
        listener: asyncio.Queue[str] = asyncio.Queue()
        self._listeners.add(listener)
        try:
            yield ""
            while True:
                try:
                    async with asyncio.timeout(1):
                        job_id = await listener.get()
                except TimeoutError:
                    job_id = ""
                yield job_id
        finally:
            self._listeners.discard(listener)

    async def add(self, job: Job) -> bool:
        try:
            return await self._add(job)
        except sqlite3.Error as error:
            logger.error("a link could not be queued: {}", error)
            raise Refused(
                "I cannot take links now: my disk is full or busy."
            ) from error

    async def _add(self, job: Job) -> bool:
        names = ", ".join(_JOB_COLUMNS)
        marks = ", ".join("?" * len(_JOB_COLUMNS))
        async with self.db.transaction() as connection:
            rows = await connection.execute_fetchall(
                "SELECT count(*) FROM jobs WHERE guild_id = ? AND status = 'queued'",
                (job.guild_id,),
            )
            known = await connection.execute_fetchall(
                "SELECT 1 FROM jobs WHERE request_key = ?", (job.request_key,)
            )
            if list(known):
                return False
            if next(iter(rows))[0] >= self.settings.max_queue_size:
                raise QueueFull(
                    f"The queue is full: {self.settings.max_queue_size} links are "
                    "waiting. Try again when some are done."
                )
            await connection.execute(
                f"INSERT INTO jobs ({names}) VALUES ({marks})",
                [getattr(job, name) for name in _JOB_COLUMNS],
            )
        self._announce(job.id)
        return True

    async def claim(self, worker: str, lease_s: float) -> Job | None:
        slots = _sql_list(SLOT_STATUSES)
        row = await self.db.one(
            f"""
            UPDATE jobs SET status = 'downloading', worker = :worker, fence = fence + 1,
                attempts = attempts + 1, lease_until = :lease_until, started_at = :now
            WHERE seq = (
                SELECT seq FROM jobs LEFT JOIN (
                    SELECT guild_id, count(*) AS running FROM jobs
                    WHERE status IN {slots} GROUP BY guild_id
                ) USING (guild_id)
                WHERE status = 'queued'
                    AND not_before NOT BETWEEN :now AND :now + {MAX_DELAY_S}
                    AND coalesce(running, 0) < :per_guild
                    AND (SELECT count(*) FROM jobs WHERE status IN {slots}) < :in_all
                ORDER BY priority DESC, coalesce(running, 0), seq LIMIT 1
            ) RETURNING *
            """,
            worker=worker,
            lease_until=now() + lease_s,
            now=now(),
            per_guild=self.settings.max_concurrent_per_guild,
            in_all=self.settings.max_concurrent_downloads,
        )
        return _to_job(row) if row else None

    async def renew(self, job: Job, lease_s: float) -> bool:
        job.lease_until = now() + lease_s
        pairs = ", ".join(f"{name} = ?" for name in _GUARDED_COLUMNS)
        row = await self.db.one(
            f"UPDATE jobs SET {pairs} WHERE id = ? AND fence = ? RETURNING 1",
            *(getattr(job, name) for name in _GUARDED_COLUMNS),
            job.id,
            job.fence,
        )
        self._announce(job.id)
        return row is not None

    async def release(self, job: Job, delay_s: float = 0) -> bool:
        job.status, job.worker = Status.QUEUED, ""
        job.not_before = now() + min(delay_s, MAX_DELAY_S) if delay_s else 0
        return await self.renew(job, 0)

    async def finish(self, job: Job) -> bool:
        return await self.renew(job, 0)

    async def get(self, job_id: str) -> Job | None:
        row = await self.db.one("SELECT * FROM jobs WHERE id = ?", job_id)
        return _to_job(row) if row else None

    async def list(
        self, guild_id: int | None = None, statuses: Sequence[Status] = ()
    ) -> list[Job]:
        rows = await self.db.all(
            "SELECT * FROM jobs WHERE (:guild IS NULL OR guild_id = :guild) AND status IN "
            f"{_sql_list(statuses or Status)} ORDER BY seq",
            guild=guild_id,
        )
        return [_to_job(row) for row in rows]

    async def position(self, job_id: str) -> int:
        row = await self.db.one(
            """
            SELECT count(*) FROM jobs AS other, jobs AS mine
            WHERE mine.id = ? AND mine.status = 'queued' AND other.status = 'queued'
                AND other.guild_id = mine.guild_id
                AND (-other.priority, other.seq) <= (-mine.priority, mine.seq)
            """,
            job_id,
        )
        return int(row[0]) if row else 0

    async def move(self, job_id: str, priority: Priority) -> bool:
        row = await self.db.one(
            "UPDATE jobs SET priority = ? WHERE id = ? AND status = 'queued' "
            "RETURNING 1",
            priority,
            job_id,
        )
        self._announce(job_id)
        return row is not None

    async def cancel(self, job_id: str) -> Job | None:
        row = await self.db.one(
            "UPDATE jobs SET status = 'cancelled', cause = 'cancelled', finished_at = ?"
            ", fence = fence + 1 WHERE id = ? AND status IN "
            f"{_sql_list((Status.QUEUED, *SLOT_STATUSES))} RETURNING *",
            now(),
            job_id,
        )
        self._announce(job_id)
        return _to_job(row) if row else None

    async def patch(self, job_id: str, **columns: Any) -> None:
        assert columns.keys() <= set(_JOB_COLUMNS)
        pairs = ", ".join(f"{name} = ?" for name in columns)
        await self.db.all(
            f"UPDATE jobs SET {pairs} WHERE id = ?", *columns.values(), job_id
        )

    async def recover(self) -> Sequence[Job]:
        await self.db.all(
            "UPDATE jobs SET crashes = crashes + 1 WHERE status = 'uploading'"
        )
        rows = await self.db.all(
            "UPDATE jobs SET status = 'queued', worker = '', not_before = 0, crashes = "
            f"crashes + 1 WHERE status IN {_sql_list(SLOT_STATUSES)} RETURNING *"
        )
        return [_to_job(row) for row in rows]
