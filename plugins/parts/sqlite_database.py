"""The bot's SQLite file: opened by one process alone, checked, and migrated."""

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiosqlite

from bossbot import Database, Pipeline, StartError, hookimpl, now

# One script per version of the database; a new one is added at the end.
MIGRATIONS = (
    """
    CREATE TABLE jobs (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        url TEXT NOT NULL, platform TEXT NOT NULL, engine TEXT NOT NULL,
        guild_id INTEGER NOT NULL, channel_id INTEGER NOT NULL,
        user_id INTEGER NOT NULL, request_key TEXT NOT NULL UNIQUE,
        message_id INTEGER NOT NULL, status_message_id INTEGER NOT NULL,
        status TEXT NOT NULL, priority INTEGER NOT NULL,
        attempts INTEGER NOT NULL, crashes INTEGER NOT NULL, fence INTEGER NOT NULL,
        worker TEXT NOT NULL, lease_until REAL NOT NULL, not_before REAL NOT NULL,
        cause TEXT, error TEXT NOT NULL, detail TEXT NOT NULL,
        title TEXT NOT NULL, folder TEXT NOT NULL,
        file_count INTEGER NOT NULL, total_bytes INTEGER NOT NULL,
        created_at REAL NOT NULL, started_at REAL NOT NULL, finished_at REAL NOT NULL
    );
    CREATE INDEX jobs_by_status ON jobs (status, guild_id);
    CREATE INDEX jobs_by_guild ON jobs (guild_id, created_at);
    CREATE TABLE parts (  -- the messages a job is posted as, frozen before the first
        job_id TEXT NOT NULL, number INTEGER NOT NULL,
        files TEXT NOT NULL,  -- a JSON object, name to sha256, in order
        content TEXT NOT NULL,
        state TEXT NOT NULL,  -- waiting, sending, sent, dropped
        channel_id INTEGER NOT NULL DEFAULT 0,
        message_id INTEGER NOT NULL DEFAULT 0,
        sending_at REAL NOT NULL DEFAULT 0,
        PRIMARY KEY (job_id, number)
    );
    CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
    """,
)


@hookimpl(trylast=True)  # any other database is there because the host wants it
def register_db(pipeline: Pipeline) -> Database:
    return SQLite(pipeline.settings.data_dir)


class SQLite:
    """The ``Database``. One process owns it; every call runs in its thread."""

    def __init__(self, data: Path) -> None:
        self.path = data / "bossbot.db"
        self.connection: Any = None  # an aiosqlite.Connection while it is open
        self._turn = asyncio.Lock()
        self._lock_file: Any = None

    async def open(self) -> None:
        """See ``Database``."""
        await asyncio.to_thread(self._lock)
        try:
            self.connection = await aiosqlite.connect(
                self.path, timeout=60, isolation_level=None
            )
            self.connection.row_factory = sqlite3.Row
            # FULL: what was acknowledged survives a power cut, too.
            await self.connection.execute("PRAGMA journal_mode=WAL")
            await self.connection.execute("PRAGMA synchronous=FULL")
            check = await self.one("PRAGMA quick_check(1)")
            if check is None or check[0] != "ok":
                raise sqlite3.DatabaseError(check[0] if check else "no answer")
            row = await self.one("PRAGMA user_version")
            version = int(row[0]) if row else 0
            if version > len(MIGRATIONS):
                raise StartError(
                    f"{self.path} comes from a newer Boss-Bot (version {version}, this "
                    f"one knows {len(MIGRATIONS)}). Update the bot: git pull."
                )
            for number, script in enumerate(MIGRATIONS[version:], version + 1):
                await self.connection.executescript(
                    f"BEGIN IMMEDIATE; {script}; PRAGMA user_version={number}; COMMIT;"
                )
            # Whether it can be written shows now, not at the first job.
            await self.connection.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
        except sqlite3.OperationalError as error:
            await self.close()
            raise StartError(
                f"{self.path}: {error}. The bot must be able to write this file, and "
                "the disk must have room."
            ) from error
        except sqlite3.DatabaseError as error:
            await self.close()
            if isinstance(error, sqlite3.ProgrammingError):  # ours, not the file's
                raise
            aside = self.path.with_suffix(f".damaged-{int(now())}")
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{self.path}{suffix}").rename(f"{aside}{suffix}")
            raise StartError(
                f"{self.path} is damaged ({error}) and was kept as {aside.name}. "
                "Put a backup in its place, or start again with an empty queue."
            ) from error
        except BaseException:
            await self.close()  # its thread would keep the process alive
            raise

    def _lock(self) -> None:
        """Own the data folder for this process; raises StartError when another does."""
        path = self.path.parent / ".locks" / "bossbot.lock"
        path.parent.mkdir(exist_ok=True)
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise StartError(
                f"Another Boss-Bot (process {file.read().strip() or '?'}) uses "
                f"{self.path.parent}. Stop it first, or set another data_dir."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._lock_file = file

    async def close(self) -> None:
        """See ``Database``."""
        if self.connection:
            await self.connection.close()
            self.connection = None
        if self._lock_file:
            self._lock_file.close()
            self._lock_file = None

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[aiosqlite.Connection]:
        """See ``Database``."""
        async with self._turn:
            try:
                await self.connection.execute("BEGIN IMMEDIATE")
                yield self.connection
                await self.connection.commit()
            except BaseException:  # a cancelled task, too, leaves nothing open
                await asyncio.shield(self.connection.rollback())
                raise

    async def one(self, sql: str, *values: Any, **named: Any) -> sqlite3.Row | None:
        """See ``Database``."""
        rows = await self.all(sql, *values, **named)
        return rows[0] if rows else None

    async def all(self, sql: str, *values: Any, **named: Any) -> list[sqlite3.Row]:
        """See ``Database``."""
        async with self._turn:
            return list(await self.connection.execute_fetchall(sql, values or named))

    async def fact(self, key: str, value: str | None = None) -> str:
        """See ``Database``."""
        if value is not None:
            await self.all("INSERT OR REPLACE INTO facts VALUES (?, ?)", key, value)
        row = await self.one("SELECT value FROM facts WHERE key = ?", key)
        return row["value"] if row else ""
