"""This machine's SQLite file: opened by one process only, checked, and migrated."""

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import aiosqlite

from bossbot import App, Database, Part, PluginError, StartError, hookimpl, now

LAYOUT = 2  # of the table `migrations`; the other tables have versions of their own


@hookimpl
def register_parts() -> dict[str, Callable[[App], Part]]:
    return {"database": SQLiteDatabase}


class SQLiteDatabase(Database):
    """The ``Database``. One process owns it; every call runs in its thread."""

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self.path = app.settings.data_dir / "bossbot.db"
        self.connection: Any = None  # an aiosqlite.Connection while it is open
        self._turn = asyncio.Lock()
        self._lock_file: Any = None

    async def start(self) -> None:
        """Open, check and migrate.

        Raises:
            StartError: another bot has locked the file, it is damaged, from another
                version, or cannot be written; or a part's tables cannot be made.
        """
        await asyncio.to_thread(self._lock)
        try:
            await self._open()
        except sqlite3.OperationalError as error:
            await self.stop()
            raise StartError(
                f"{self.path}: {error}. The bot must be able to write this file, and "
                "the disk must have room."
            ) from error
        except sqlite3.DatabaseError as error:
            await self.stop()
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
            await self.stop()  # its thread would keep the process alive
            raise
        for plugin in list(self.app.plugins.all.values()):
            try:
                await self.migrate(plugin.stem, plugin.tables)
            except PluginError as error:
                if plugin.parts:
                    raise StartError(f"{plugin.stem}: {error}") from error
                self.app.plugins.give_up(plugin.stem, error)

    async def _open(self) -> None:
        self.connection = await aiosqlite.connect(
            self.path, timeout=60, isolation_level=None
        )
        self.connection.row_factory = sqlite3.Row
        # FULL: what was acknowledged also survives a power cut.
        await self.connection.execute("PRAGMA journal_mode=WAL")
        await self.connection.execute("PRAGMA synchronous=FULL")
        check = await self.one("PRAGMA quick_check(1)")
        if check is None or check[0] != "ok":
            raise sqlite3.DatabaseError(check[0] if check else "no answer")
        row = await self.one("PRAGMA user_version")
        if (version := int(row[0]) if row else 0) not in (0, LAYOUT):
            remedy = "Update the bot: git pull."
            if version < LAYOUT:
                remedy = "Move it away and start again."
            raise StartError(
                f"{self.path} has layout {version}, and this bot knows {LAYOUT}. "
                f"{remedy}"
            )
        # A file that cannot be written shows now, not at the first job.
        await self.connection.executescript(
            "BEGIN IMMEDIATE; CREATE TABLE IF NOT EXISTS migrations "
            "(plugin TEXT PRIMARY KEY, version INTEGER NOT NULL); "
            f"PRAGMA user_version={LAYOUT}; COMMIT;"
        )

    def _lock(self) -> None:
        """Own the data folder for this process; raises StartError when another does."""
        path = self.path.parent / ".locks" / "bossbot.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
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

    async def stop(self) -> None:
        """Close; harmless when it is not open."""
        if self.connection:
            await self.connection.close()
            self.connection = None
        if self._lock_file:
            self._lock_file.close()
            self._lock_file = None

    async def migrate(self, stem: str, scripts: Sequence[str]) -> None:
        """See ``Database``."""
        row = await self.one("SELECT version FROM migrations WHERE plugin = ?", stem)
        version = int(row[0]) if row else 0
        if version > len(scripts) > 0:
            raise PluginError(
                f"its tables have version {version}, and this file knows "
                f"{len(scripts)}. Update the plugin."
            )
        if version >= len(scripts):
            return
        name = stem.replace("'", "''")
        script = "\n;\n".join(
            [
                "BEGIN IMMEDIATE",
                *scripts[version:],
                f"INSERT OR REPLACE INTO migrations VALUES ('{name}', {len(scripts)})",
                "COMMIT",
            ]
        )
        async with self._turn:
            try:
                await self.connection.executescript(script)
            except sqlite3.Error as error:
                raise PluginError(f"its tables cannot be made: {error}") from error
            finally:
                await asyncio.shield(self.connection.rollback())

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
