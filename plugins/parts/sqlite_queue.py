"""The queue in the bot's own SQLite file: the default one."""

import asyncio
import json
import pickle
import sqlite3
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Sequence,
)
from functools import partial
from operator import itemgetter
from typing import Any, TypeVar

from bossbot_plugins._listening import ListenedQueue
from bossbot_plugins._rows import job_of, row_of
from loguru import logger
from pydantic import Field

from bossbot import (
    ATTEMPT_STATUSES,
    OWN_CAUSES,
    TERMINAL_STATUSES,
    App,
    Change,
    Job,
    Part,
    PluginConfig,
    Priority,
    Progress,
    QueueFull,
    Refused,
    Status,
    _,
    hookimpl,
    now,
)


class Config(PluginConfig):
    """[plugins.sqlite_queue] in config.toml."""

    keep_s: float = Field(604800, ge=3600, description="how long ended jobs are kept")


def _sql_list(statuses: Iterable[Status]) -> str:
    return "(" + ", ".join(f"'{Status(status)}'" for status in statuses) + ")"


ENDED = _sql_list(TERMINAL_STATUSES)
CLAIMED = _sql_list((*ATTEMPT_STATUSES, Status.UPLOADING))
# The indexes of unfinished jobs serve only queries with exactly these words.
WAITS = "status = 'queued' AND joins = ''"
UNFINISHED = "status IN ('queued', 'downloading', 'processing', 'uploading')"
RUNS = f"{UNFINISHED} AND status = 'downloading'"  # and has a slot
ENCODES = f"{UNFINISHED} AND status = 'processing'"
JOINED = f"{UNFINISHED} AND joins != '' AND joins = :id"


@hookimpl
def register_parts(config: Config) -> dict[str, Callable[[App], Part]]:
    return {"queue": partial(SQLiteQueue, config=config)}


@hookimpl
async def run(app: App) -> None:
    """Log the links that wait here while another queue is used."""
    if not isinstance(app.queue, SQLiteQueue):
        sql = f"SELECT count(*) FROM jobs WHERE {UNFINISHED}"
        if (row := await app.database.one(sql)) and row[0]:
            logger.warning(
                "links wait in the queue in SQLite, which is not used now: {}. To bring "
                "them, start the bot without the url of another queue until they are done",
                row[0],
            )


@hookimpl
def register_tables() -> list[str]:
    return [
        """
        CREATE TABLE jobs (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            previous TEXT,  -- the status before the last change
            id TEXT NOT NULL UNIQUE, url TEXT NOT NULL, platform TEXT NOT NULL,
            guild_id INTEGER NOT NULL, channel_id INTEGER NOT NULL,
            user_id INTEGER NOT NULL, request_key TEXT NOT NULL UNIQUE,
            message_id INTEGER NOT NULL, options TEXT NOT NULL,
            guild_settings TEXT NOT NULL, limit_bytes INTEGER NOT NULL,
            created_at REAL NOT NULL,
            status TEXT NOT NULL, priority INTEGER NOT NULL, position INTEGER NOT NULL,
            status_message_id INTEGER NOT NULL, worker TEXT NOT NULL,
            claim_number INTEGER NOT NULL, lease_until REAL NOT NULL,
            not_before REAL NOT NULL, attempts INTEGER NOT NULL,
            crashes INTEGER NOT NULL, started_at REAL NOT NULL,
            engine TEXT NOT NULL, facts TEXT NOT NULL, posts TEXT NOT NULL,
            folder TEXT NOT NULL, file_count INTEGER NOT NULL,
            total_bytes INTEGER NOT NULL, cause TEXT, error TEXT NOT NULL,
            detail TEXT NOT NULL, finished_at REAL NOT NULL
        );
        CREATE INDEX jobs_by_status ON jobs (status, guild_id);
        CREATE INDEX jobs_by_end ON jobs (finished_at);
        """,
        f"""
        DROP INDEX jobs_by_status;
        -- The next job of all, and that of a guild, with all that a claim asks of it.
        CREATE INDEX jobs_waiting ON jobs
            (priority DESC, seq, guild_id, not_before, user_id, status)
            WHERE status = 'queued';
        CREATE INDEX jobs_unfinished ON jobs
            (status, guild_id, priority DESC, seq, not_before, user_id, worker)
            WHERE {UNFINISHED};
        CREATE INDEX jobs_by_guild ON jobs (guild_id);
        CREATE INDEX jobs_to_remove ON jobs (finished_at)
            WHERE finished_at > 0 AND folder = '';
        """,
        f"""
        ALTER TABLE jobs ADD COLUMN untold INTEGER NOT NULL DEFAULT 0;
        UPDATE jobs SET untold = 1 WHERE {UNFINISHED};
        CREATE INDEX jobs_untold ON jobs (finished_at) WHERE untold = 1;
        """,
        """
        DROP INDEX jobs_by_guild;
        CREATE INDEX jobs_by_guild ON jobs (guild_id, finished_at, status);
        CREATE INDEX jobs_by_user ON jobs (user_id, guild_id, finished_at);
        CREATE INDEX jobs_kept ON jobs (user_id, guild_id, total_bytes)
            WHERE folder != '';
        """,
        "ALTER TABLE jobs ADD COLUMN sources TEXT NOT NULL DEFAULT '[]'",
        f"""
        ALTER TABLE jobs ADD COLUMN same TEXT NOT NULL DEFAULT '';
        ALTER TABLE jobs ADD COLUMN joins TEXT NOT NULL DEFAULT '';
        DROP INDEX jobs_waiting;
        CREATE INDEX jobs_waiting ON jobs
            (priority DESC, seq, guild_id, not_before, user_id, status)
            WHERE {WAITS};
        DROP INDEX jobs_unfinished;
        CREATE INDEX jobs_unfinished ON jobs
            (status, guild_id, joins, priority DESC, seq, not_before, user_id, worker)
            WHERE {UNFINISHED};
        CREATE INDEX jobs_same ON jobs (same) WHERE {UNFINISHED} AND same != '';
        CREATE INDEX jobs_joined ON jobs (joins) WHERE {UNFINISHED} AND joins != '';
        """,
    ]


T = TypeVar("T")
# Stored by the holder of the claim; the rest is set by the queue's own verbs.
HELD = (
    *("status", "crashes", "engine", "facts", "posts", "sources", "folder"),
    *("file_count", "total_bytes", "cause", "error", "detail", "finished_at"),
    "limit_bytes",
)
SWEEP_S = 3600.0  # between two removals of old rows
SWEEP_ROWS = 500  # removed in one statement
PAGE = 200  # jobs that are read at once
# The next job to claim: the first of the guilds that have none running, or that of one
# that has. A claim reads no more of the line than what those have before it.
MAX_DELAY_S = 600  # a job that must wait longer was delayed by another clock
DUE = f"not_before NOT BETWEEN :now AND :now + {MAX_DELAY_S}"
NEXT = f"""
    WITH busy AS MATERIALIZED (
        SELECT guild_id, count(*) AS running, sum(worker = :worker) AS mine
        FROM jobs WHERE {RUNS} GROUP BY guild_id
    ), sated AS MATERIALIZED (
        SELECT user_id FROM jobs WHERE {RUNS} OR {ENCODES} GROUP BY user_id, status
        HAVING count(*) >= :per_user
    ), of_the_others AS (
        SELECT seq, priority, 0 AS running FROM jobs
        WHERE {WAITS} AND {DUE} AND guild_id NOT IN (SELECT guild_id FROM busy)
            AND user_id NOT IN sated
        ORDER BY priority DESC, seq LIMIT 1
    ), of_the_busy AS (
        SELECT seq, priority, running FROM busy JOIN jobs ON seq = (
            SELECT seq FROM jobs
            WHERE {UNFINISHED} AND {WAITS} AND {DUE} AND guild_id = busy.guild_id
                AND user_id NOT IN sated
            ORDER BY priority DESC, seq LIMIT 1
        )
        WHERE running < :per_guild
    )
    SELECT seq FROM (SELECT * FROM of_the_others UNION ALL SELECT * FROM of_the_busy)
    ORDER BY priority DESC, running, seq
    LIMIT (SELECT coalesce(sum(mine), 0) < :in_all FROM busy)
"""
# After a release or an end the status no longer matches: the claim guards nothing.
GUARD = (
    "id = :id AND claim_number = :claim_number AND worker = :worker AND status IN "
    f"{CLAIMED}"
)


def must_last(row: sqlite3.Row) -> bool:
    """Whether a power cut would do harm before a job's row is on the disk: it has ended,
    or the message that is sent next would be sent again."""
    posts = json.loads(row["posts"])
    return row["status"] in TERMINAL_STATUSES or any(
        post["state"] == "sending" for post in posts
    )


def end_joined(database: sqlite3.Connection, ended: sqlite3.Row) -> list[Any]:
    """End the jobs that have joined one that has ended, as the contract says; returns
    their rows that have changed."""
    if ended["status"] not in TERMINAL_STATUSES:
        return []
    if ended["cause"] in OWN_CAUSES:
        return let_go(database, ended["id"])
    names = ("facts", "posts", "cause", "error", "detail", "finished_at", "engine")
    pairs = ", ".join(f"{name} = :{name}" for name in (*names, "status"))
    return database.execute(
        f"UPDATE jobs SET previous = status, {pairs}, "
        f"started_at = max(created_at, :started_at) WHERE {JOINED} RETURNING *",
        dict(ended),
    ).fetchall()


def let_go(database: sqlite3.Connection, job_id: str) -> list[Any]:
    """Have the oldest in each channel of the jobs that have joined one wait in the line,
    joined by the others there; returns the rows of the oldest."""
    sql = f"SELECT id, channel_id FROM jobs WHERE {JOINED} ORDER BY seq DESC"
    joined = database.execute(sql, {"id": job_id}).fetchall()
    for channel, first in {row["channel_id"]: row["id"] for row in joined}.items():
        database.execute(
            f"UPDATE jobs SET joins = :first WHERE {JOINED} AND channel_id = :channel "
            "AND id != :first",
            {"id": job_id, "first": first, "channel": channel},
        )
    # For the line they are new, so that they have no status before.
    return database.execute(
        f"UPDATE jobs SET previous = NULL, joins = '' WHERE {JOINED} RETURNING *",
        {"id": job_id},
    ).fetchall()


def change_of(row: sqlite3.Row, previous: Status | None) -> Change:
    return Change(job_of(row), previous)


def storable(job: Job) -> dict[str, Any]:
    """A job's row, without the halves of surrogate pairs that no database takes: what
    a site or a file name says must not keep a job from ending."""
    return {
        name: value.encode("utf-8", "replace").decode()
        if isinstance(value, str)
        else value
        for name, value in row_of(job).items()
    }


class SQLiteQueue(ListenedQueue):
    """The embedded queue. One process owns the file, so a lease never expires while it
    lives, and ``recover`` releases what any earlier process held."""

    wake_s = 0.003  # until workers do not wait for a sync; the answer comes first
    finish_within_s = 2.0  # for changes that are under way, at a stop

    def __init__(self, app: App, config: Config) -> None:
        super().__init__(app)
        self.config = config
        # Rows, whether they may be announced, and progress that comes after them.
        self._to_tell: deque[list[Any]] = deque()
        self._under_way: set[asyncio.Task[Any]] = set()
        self._waiting: int | None = None  # waiting jobs, as far as known
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Remove rows that are old, now and every hour."""
        sql = f"SELECT count(*) FROM jobs WHERE {WAITS}"
        row = await self.app.database.one(sql)
        self._waiting = row[0] if row else None
        self._sweeping = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """End ``changes``; the rest works until the database stops."""
        if self._sweeping:
            self._sweeping.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=self.finish_within_s)
        self._end_changes()

    async def _sweep(self) -> None:
        while True:
            with logger.catch(message="old rows of the queue could not be removed"):
                before = now() - self.config.keep_s
                sql = (
                    "DELETE FROM jobs WHERE seq IN (SELECT seq FROM jobs WHERE folder = "
                    "'' AND finished_at > 0 AND finished_at <= ? AND status IN "
                    f"{ENDED} LIMIT {SWEEP_ROWS}) RETURNING 1"
                )
                while len(await self.app.database.all(sql, before)) == SWEEP_ROWS:
                    await asyncio.sleep(0)
            await asyncio.sleep(SWEEP_S)

    # The feed

    async def _announce(
        self, rows: list[Any], until: Awaitable[None] | None = None
    ) -> None:
        """Announce committed rows in the order of the commits, after ``until``, since
        members may act on them. If that takes a while, workers begin without it."""
        entry = [rows, until is None]
        self._to_tell.append(entry)
        self._count(rows)
        try:
            if until:
                loop = asyncio.get_running_loop()
                wake = loop.call_later(self.wake_s, self._pass_on, lambda: None)
                try:
                    await until
                finally:
                    wake.cancel()
        finally:
            entry[1] = True
            while self._to_tell and self._to_tell[0][1]:
                told, _may_be_told, *progress = self._to_tell.popleft()
                for row in told:
                    previous = Status(row["previous"]) if row["previous"] else None
                    self._pass_on(partial(change_of, row, previous))
                for change in progress:
                    self._pass_on(change, True)

    def _count(self, rows: list[Any]) -> None:
        """Keep the number of jobs that wait, after a change of rows."""
        for row in rows:
            if self._waiting is not None and not row["joins"]:
                self._waiting += row["status"] == Status.QUEUED
                self._waiting -= row["previous"] == Status.QUEUED

    async def report(self, job: Job, progress: Progress) -> None:
        """See ``Queue``."""
        state = pickle.dumps(job)  # a copy of it costs much less than by deepcopy

        def change() -> Change:
            return Change(pickle.loads(state), job.status, progress)

        if self._to_tell:
            self._to_tell[-1].append(change)
        else:
            self._pass_on(change, True)

    async def _whole(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a change that is not to end between its commit and its
        announcement: it goes on when the caller is cancelled."""
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _change(
        self,
        assignments: str,
        where: str,
        always: bool = False,
        ends: bool = False,
        **values: Any,
    ) -> list[sqlite3.Row]:
        """Change rows, and announce each that has another status now, or ``always``;
        with those that have joined them, if it ``ends`` them. An end, and a post that is
        about to be sent, are on the disk then."""
        sql = f"UPDATE jobs SET previous = status, {assignments} WHERE {where} "

        def end(database: sqlite3.Connection) -> tuple[list[Any], list[Any]]:
            rows = database.execute(f"{sql} RETURNING *", values).fetchall()
            return rows, [one for row in rows for one in end_joined(database, row)]

        async def change() -> list[sqlite3.Row]:
            if ends:
                rows, joined = await self.app.database.run(end)
            else:
                rows = await self.app.database.all(f"{sql} RETURNING *", **values)
                joined = []
            told = [row for row in rows if always or row["previous"] != row["status"]]
            told = joined + told
            lasts = any(map(must_last, rows + joined))
            await self._announce(told, self.app.database.sync() if lasts else None)
            return rows

        return await self._whole(change())

    # The way of a job

    async def add(self, job: Job) -> int | None:
        """See ``Queue``."""
        try:
            return await self._whole(self._add(job))
        except (sqlite3.Error, OSError) as error:
            logger.error("a link could not be queued: {}", error)
            raise Refused(
                _("I cannot take links now: my disk is full or busy.")
            ) from error

    async def _add(self, job: Job) -> int | None:
        def add(database: sqlite3.Connection) -> tuple[list[Any], list[Any]]:
            sql = "SELECT id, position FROM jobs WHERE request_key = ?"
            known = database.execute(sql, (job.request_key,)).fetchall()
            return known, [] if known else self._insert(job, database)

        known, added = await self.app.database.run(add)
        if known:
            await self.app.database.sync()
            return int(known[0][1]) if known[0][0] == job.id else None
        await self._announce(added, self._synced_or_removed(added))
        return job.position

    def _insert(self, job: Job, database: sqlite3.Connection) -> list[Any]:
        """A new job's row, with its place in the line or what it joins; raises
        QueueFull."""

        def rows(sql: str, **values: Any) -> list[Any]:
            return database.execute(sql, values).fetchall()

        leader = rows(
            f"SELECT id FROM jobs WHERE {UNFINISHED} AND same != '' AND same = :same "
            "AND joins = ''",
            same=job.same,
        )
        if leader:
            job.joins, job.position = leader[0]["id"], 0
            (joined,) = rows(f"SELECT count(*) FROM jobs WHERE {JOINED}", id=job.joins)
            self._check_room(joined[0])
            sql = "UPDATE jobs SET priority = max(priority, ?) WHERE id = ?"
            database.execute(sql, (int(job.priority), job.joins))
        else:
            job.position = self._place(job, rows)
        values = storable(job)
        names, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
        return rows(
            f"INSERT INTO jobs ({names}, untold) VALUES ({marks}, 1) RETURNING *",
            **values,
        )

    def _check_room(self, waiting: int) -> None:
        if waiting >= (most := self.app.settings.max_queue_size):
            text = _(
                "The queue is full: {count} links are waiting. Try again when some are "
                "done."
            )
            raise QueueFull(text.format(count=most))

    def _place(self, job: Job, rows: Callable[..., list[Any]]) -> int:
        """A new job's place in the line, 0 when it starts at once; raises QueueFull."""
        settings = self.app.settings
        most = settings.max_concurrent_downloads
        (count,) = rows(
            f"""
            SELECT
                (SELECT count(*) FROM jobs WHERE {RUNS}),
                (SELECT count(*) FROM jobs WHERE {RUNS} AND guild_id = :guild_id),
                (SELECT count(*) FROM
                    (SELECT 1 FROM jobs WHERE {WAITS} LIMIT :most)),
                (SELECT count(*) FROM jobs
                    WHERE {UNFINISHED} AND {WAITS} AND guild_id = :guild_id),
                (SELECT count(*) FROM jobs
                    WHERE {UNFINISHED} AND {WAITS} AND guild_id = :guild_id
                    AND priority >= :priority)
            """,
            guild_id=job.guild_id,
            priority=int(job.priority),
            most=most,
        )
        running, here, waiting, of_guild, before = count
        self._check_room(of_guild)
        at_once = (
            running + waiting < most
            and here + of_guild < settings.max_concurrent_per_guild
        )
        if at_once:  # then few are under way
            ((mine,),) = rows(
                f"SELECT count(*) FROM jobs WHERE {UNFINISHED} AND +user_id = "
                ":user_id AND status NOT IN ('processing', 'uploading') "
                "AND joins = ''",
                user_id=job.user_id,
            )
            at_once = mine < settings.max_concurrent_per_user
        return 0 if at_once else int(before) + 1

    async def _synced_or_removed(self, added: list[Any]) -> None:
        """Wait until a new job is on the disk. One that does not get there is refused,
        and must not come after all, unless something of it may have been posted."""
        try:
            await self.app.database.sync()
        except (sqlite3.Error, OSError):
            job_id = added[0]["id"]
            sql = "DELETE FROM jobs WHERE id = ? AND posts = '[]' RETURNING *"

            def remove(database: sqlite3.Connection) -> tuple[list[Any], list[Any]]:
                removed = database.execute(sql, (job_id,)).fetchall()
                return removed, let_go(database, job_id) if removed else []

            removed, freed = await self.app.database.run(remove)
            if removed:
                gone = [dict(one, previous=one["status"], status="") for one in removed]
                self._count([*gone, *freed])
                for rows, *_ in self._to_tell:  # a worker may have begun
                    rows[:] = [row for row in rows if row["id"] != job_id]
                added[:] = freed
                raise

    def waits(self) -> bool:
        """See ``Queue``."""
        return self._waiting != 0

    async def claim(self, worker: str, lease_s: float) -> Job | None:
        """See ``Queue``."""
        settings = self.app.settings
        rows = await self._change(
            "status = 'downloading', worker = :worker, claim_number = claim_number + 1, "
            "attempts = attempts + 1, lease_until = :lease_until, started_at = :now",
            f"seq = ({NEXT})",
            worker=worker,
            lease_until=now() + lease_s,
            now=now(),
            per_guild=settings.max_concurrent_per_guild,
            per_user=settings.max_concurrent_per_user,
            in_all=settings.max_concurrent_downloads,
        )
        return job_of(rows[0]) if rows else None

    async def save(self, job: Job, lease_s: float) -> bool:
        """See ``Queue``."""
        job.lease_until = now() + lease_s
        return await self._store(job, HELD)

    async def _store(self, job: Job, names: Sequence[str], ends: bool = False) -> bool:
        names = (*names, "lease_until")
        pairs = ", ".join(f"{name} = :{name}" for name in names)
        row = storable(job)
        wanted = {n: row[n] for n in (*names, "id", "claim_number", "worker")}
        return bool(await self._change(pairs, GUARD, ends=ends, **wanted))

    async def keep(self, job: Job, lease_s: float) -> bool:
        """See ``Queue``."""
        job.lease_until = now() + lease_s
        return await self._store(job, ())

    async def release(self, job: Job, delay_s: float = 0) -> bool:
        """See ``Queue``."""
        job.status, job.position, job.lease_until = Status.QUEUED, 0, 0
        job.not_before = now() + min(delay_s, MAX_DELAY_S) if delay_s else 0
        return await self._store(job, (*HELD, "not_before", "position"))

    async def finish(self, job: Job) -> bool:
        """See ``Queue``."""
        job.lease_until = 0
        job.finished_at = job.finished_at or now()
        return await self._store(job, (*HELD, "joins"), ends=True)

    async def recover(self, worker: str, lease_s: float) -> Sequence[Job]:
        """See ``Queue``."""
        await self._change(
            "status = 'queued', worker = '', position = 0, not_before = 0",
            f"{UNFINISHED} AND status IN {_sql_list(ATTEMPT_STATUSES)}",
        )
        rows = await self._change(
            "worker = :worker, claim_number = claim_number + 1, "
            "lease_until = :lease_until",
            f"{UNFINISHED} AND status = 'uploading'",
            worker=worker,
            lease_until=now() + lease_s,
        )
        return [job_of(row) for row in rows]

    # What others see and set

    async def find(self, job_ids: Sequence[str]) -> dict[str, Job]:
        """See ``Queue``."""
        rows = await self.app.database.all(
            "SELECT * FROM jobs WHERE id IN (SELECT value FROM json_each(?))",
            json.dumps(job_ids),
        )
        return {row["id"]: job_of(row) for row in rows}

    async def list(
        self,
        guild_id: int | None = None,
        statuses: Sequence[Status] = (),
        since: float = 0,
        limit: int = 0,
    ) -> list[Job]:
        """See ``Queue``."""
        wanted = set(statuses or Status)
        guild = "AND guild_id = :guild" if guild_id is not None else ""
        last = "ORDER BY finished_at DESC LIMIT :limit" if limit else ""
        selects = []
        if others := wanted.difference(TERMINAL_STATUSES):
            where = f"{UNFINISHED} AND status IN {_sql_list(others)}"
            selects.append(f"SELECT * FROM jobs WHERE {where} {guild}")
        if ended := wanted.intersection(TERMINAL_STATUSES):
            where = f"status IN {_sql_list(ended)} AND finished_at >= :since"
            select = f"SELECT * FROM jobs WHERE {where} {guild} {last}"
            selects.append(f"SELECT * FROM ({select})")
        values = {"guild": guild_id, "since": since, "limit": limit}
        sql = " UNION ALL ".join(selects)
        rows = await self.app.database.all(sql, **values)
        # Sorted here: else SQLite reads the whole table, which is in this order.
        return [job_of(row) for row in sorted(rows, key=itemgetter("seq"))]

    def ended(self, since: float = 0) -> AsyncIterator[Job]:
        """See ``Queue``."""
        return self._pages(f"status IN {ENDED} AND finished_at >= :since", since=since)

    def untold(self) -> AsyncIterator[Job]:
        """See ``Queue``."""
        return self._pages("untold = 1")

    async def _pages(self, where: str, **values: Any) -> AsyncIterator[Job]:
        """Jobs by the time of their end, a page at a time."""
        last: dict[str, Any] = {"finished_at": 0.0, "seq": -1}
        sql = (
            f"SELECT * FROM jobs WHERE {where} AND (finished_at, seq) > "
            f"(:finished_at, :seq) ORDER BY finished_at, seq LIMIT {PAGE}"
        )
        while rows := await self.app.database.all(sql, **last, **values):
            for row in rows:
                yield job_of(row)
            last = {name: rows[-1][name] for name in last}

    async def position(self, job_id: str) -> int:
        """See ``Queue``."""
        row = await self.app.database.one(
            f"""
            SELECT count(*) FROM jobs AS other, jobs AS mine
            WHERE mine.id = ? AND mine.status = 'queued' AND mine.joins = ''
                AND other.status = 'queued' AND other.joins = ''
                AND other.{UNFINISHED} AND other.guild_id = mine.guild_id
                AND (-other.priority, other.seq) <= (-mine.priority, mine.seq)
            """,
            job_id,
        )
        return int(row[0]) if row else 0

    async def move(self, job_id: str, priority: Priority) -> bool:
        """See ``Queue``."""
        rows = await self._change(
            "priority = :priority",
            f"id = :id AND {WAITS}",
            always=True,
            priority=int(priority),
            id=job_id,
        )
        return bool(rows)

    async def cancel(self, job_id: str, waiting_only: bool = False) -> Job | None:
        """See ``Queue``."""
        which = (Status.QUEUED,) if waiting_only else (Status.QUEUED, *ATTEMPT_STATUSES)
        rows = await self._change(
            "status = 'cancelled', cause = 'cancelled', finished_at = :now, "
            "claim_number = claim_number + 1",
            f"id = :id AND status IN {_sql_list(which)}",
            ends=True,
            now=now(),
            id=job_id,
        )
        return job_of(rows[0]) if rows else None

    async def count(
        self, guild_id: int | None = None, user_id: int | None = None
    ) -> tuple[int, int]:
        """See ``Queue``."""
        whose = self._whose(guild_id, user_id)
        row = await self.app.database.one(
            f"""
            SELECT (SELECT count(*) FROM jobs WHERE {whose}), (
                SELECT coalesce(sum(total_bytes), 0) FROM jobs
                WHERE {whose} AND folder != '')
            """,
            guild=guild_id,
            user=user_id,
        )
        return (int(row[0]), int(row[1])) if row else (0, 0)

    async def forget(
        self, guild_id: int | None = None, user_id: int | None = None
    ) -> Sequence[Job]:
        """See ``Queue``."""
        rows = await self.app.database.all(
            f"""
            DELETE FROM jobs WHERE seq IN (
                SELECT seq FROM jobs
                WHERE {self._whose(guild_id, user_id)} AND finished_at > 0
                    AND status IN {ENDED} LIMIT {PAGE}
            ) RETURNING *
            """,
            guild=guild_id,
            user=user_id,
        )
        return [job_of(row) for row in rows]

    def _whose(self, guild_id: int | None, user_id: int | None) -> str:
        values = {"guild_id = :guild": guild_id, "user_id = :user": user_id}
        return " AND ".join(s for s, v in values.items() if v is not None)

    async def set_status_message(self, job_id: str, message_id: int) -> None:
        """See ``Queue``."""
        sql = "UPDATE jobs SET status_message_id = ? WHERE id = ?"
        await self.app.database.all(sql, message_id, job_id)

    async def set_told(self, job_ids: Sequence[str]) -> None:
        """See ``Queue``."""
        sql = "UPDATE jobs SET untold = 0 WHERE id IN (SELECT value FROM json_each(?))"
        await self.app.database.all(sql, json.dumps(job_ids))

    async def forget_files(self, job_id: str) -> None:
        """See ``Queue``."""
        sql = "UPDATE jobs SET folder = '' WHERE id = ?"
        await self.app.database.all(sql, job_id)
