"""This machine's SQLite file: opened by one process only, checked, and migrated."""

import asyncio
import contextlib
import os
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import aiosqlite
from bossbot_plugins._lock import lock_data
from loguru import logger

from bossbot import App, Database, Part, PluginError, StartError, hookimpl, now

T = TypeVar("T")
LAYOUT = 2  # of the table `migrations`; the other tables have versions of their own


@hookimpl
def register_parts() -> dict[str, Callable[[App], Part]]:
    return {"database": SQLiteDatabase}


class SQLiteDatabase(Database):
    """The ``Database``. One process owns it; every call runs in its thread.

    A commit is written to the file ahead of the database (the WAL) and left to the
    system, so it survives the death of this process. ``sync`` brings the WAL to the
    disk with all that was committed before, in another thread; SQLite itself does that
    before each checkpoint. After a power cut SQLite reads the WAL up to the first page
    that did not get there, so what is lost are the last commits, never one before
    another that is there.
    """

    sync_within_s = 1.0  # also what nobody waits for
    sync_again_s = 10.0  # after one that failed

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self.path = app.settings.data_dir / "bossbot.db"
        self._wal = self.path.with_name(f"{self.path.name}-wal")
        self.connection: Any = None  # an aiosqlite.Connection while it is open
        self._turn = asyncio.Lock()
        self._holder: asyncio.Task[Any] | None = None  # of a transaction
        self._lock_file: Any = None
        self._probe: asyncio.Task[None] | None = None
        self._disk = ThreadPoolExecutor(1)  # for no other work, which could be slow
        self._syncing = asyncio.Lock()
        self._sync_failed = False
        self._next_sync: asyncio.Task[None] | None = None  # it has not begun yet
        self._sync_timer: asyncio.TimerHandle | None = None  # something was committed

    async def start(self) -> None:
        """Open, check and migrate.

        Raises:
            StartError: another bot has locked the file, it is damaged, from another
                version, or cannot be written; or a part's tables cannot be made.
        """
        lock = partial(lock_data, self.path.parent)
        self._lock_file = await asyncio.to_thread(lock)
        try:
            await self._open()
            await self._migrate_all()
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

    async def _migrate_all(self) -> None:
        # One that takes the name of a table of ours must not switch ours off.
        rows = await self.all("SELECT plugin, version FROM migrations ORDER BY plugin")
        known: dict[str, int] = {row["plugin"]: row["version"] for row in rows}
        plugins = self.app.plugins.all.values()
        for plugin in sorted(plugins, key=lambda p: (not p.parts, p.kind == "own")):
            if known.get(plugin.stem, 0) == len(plugin.tables):
                continue
            try:
                await self.migrate(plugin.stem, plugin.tables)
            except PluginError as error:
                if plugin.parts:
                    raise StartError(f"{plugin.stem}: {error}") from error
                self.app.plugins.switch_off(plugin.stem, error)

    async def _open(self) -> None:
        # SQLite removes the WAL when all have closed the database.
        unclean = self._wal.exists()
        self.connection = await aiosqlite.connect(
            self.path, timeout=60, isolation_level=None
        )
        self.connection.row_factory = sqlite3.Row
        row = await self.one("PRAGMA journal_mode=WAL")
        # Where there can be no WAL, SQLite syncs each commit.
        level = "NORMAL" if row and row[0] == "wal" else "FULL"
        await self.connection.execute(f"PRAGMA synchronous={level}")
        if unclean:  # reads the whole file
            check = await self.one("PRAGMA quick_check(1)")
            if check is None or check[0] != "ok":
                raise sqlite3.DatabaseError(check[0] if check else "no answer")
        row = await self.one("PRAGMA user_version")
        if (version := int(row[0]) if row else 0) not in (0, LAYOUT):
            remedy = "Update the bot: git pull."
            if version < LAYOUT:
                remedy = "Move it away and start again."
            raise StartError(
                f"{self.path} has layout {version}, and this bot supports {LAYOUT}. "
                f"{remedy}"
            )
        # A file that cannot be written shows now, not at the first job.
        script = (
            "CREATE TABLE migrations (plugin TEXT PRIMARY KEY, version INTEGER NOT "
            f"NULL); PRAGMA user_version={LAYOUT};"
        )
        await self.connection.executescript(
            f"BEGIN IMMEDIATE; {'' if version else script} COMMIT;"
        )
        await self.sync()  # also what a killed process left

    def _unlock(self) -> None:
        if self._lock_file:
            self._lock_file.close()
            self._lock_file = None

    async def stop(self) -> None:
        """Close; harmless when it is not open."""
        if self.connection:
            with logger.catch(message="the last commits may not last"):
                await self.sync()
        connection, self.connection = self.connection, None
        self._stop_timer()
        try:
            if connection:
                await connection.close()
        finally:
            self._unlock()

    async def migrate(self, stem: str, scripts: Sequence[str]) -> None:
        """See ``Database``."""
        find = "SELECT version FROM migrations WHERE plugin = ?"
        store = "INSERT OR REPLACE INTO migrations VALUES (?, ?)"
        try:
            row = await self.one(find, stem)
            version = int(row[0]) if row else 0
            if version > len(scripts) > 0:
                raise PluginError(
                    f"its tables have version {version}, and this file supports "
                    f"{len(scripts)}. Update the plugin."
                )
            if version >= len(scripts):
                return
            async with self.transaction() as connection:
                for script in scripts[version:]:
                    for statement in split_script(script):
                        await connection.execute_fetchall(statement)
                await connection.execute(store, (stem, len(scripts)))
        # sqlite3.Warning is not a sqlite3.Error.
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            if type(error) is sqlite3.DatabaseError:  # the file is damaged
                raise
            raise PluginError(f"its tables cannot be made: {error}") from error

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[aiosqlite.Connection]:
        """See ``Database``."""
        self._check_holder()
        async with self._turn:
            connection, self._holder = self._opened(), asyncio.current_task()
            try:
                await connection.execute("BEGIN IMMEDIATE")
                yield connection
                await connection.commit()
            except BaseException:  # a cancelled task, too, leaves nothing open
                await asyncio.shield(connection.rollback())
                raise
            finally:
                self._holder = None
                self._sync_soon()  # a commit may come though the task was cancelled

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """See ``Database``."""

        def whole(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.commit()
            except BaseException:
                connection.rollback()
                raise
            return result

        return await self._visit(whole)

    async def _visit(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run something in the connection's thread. Nobody waits for others here: what
        comes at once is queued there, and done without a pause."""
        loop, is_wanted = asyncio.get_running_loop(), True

        def visit(database: sqlite3.Connection) -> T | None:
            if not is_wanted:  # the caller was cancelled
                return None
            before = database.total_changes
            try:
                return work(database)
            finally:
                # A timer that stops now is followed by a sync, which has this, too.
                if database.total_changes != before and not self._sync_timer:
                    loop.call_soon_threadsafe(self._sync_soon)

        self._check_holder()
        async with self._turn:  # no transaction is open, and none will come before this
            connection = self._opened()
        try:
            # aiosqlite has no public way to run a function in its thread.
            return cast(T, await connection._execute(visit, connection._conn))
        finally:
            is_wanted = False

    async def health(self) -> str:
        """See ``Part``: whether something could be written now. Those who ask while
        nobody knows yet wait for the same answer."""
        if self._probe is None or self._probe.done():
            nothing: Callable[[sqlite3.Connection], None] = lambda connection: None
            self._probe = asyncio.create_task(self.run(nothing))
        await asyncio.shield(self._probe)
        return ""

    def _check_holder(self) -> None:
        if self._holder is asyncio.current_task():  # it would wait for itself
            raise RuntimeError("in a transaction, use its connection")

    def _opened(self) -> Any:
        """The connection."""
        if self.connection is None:
            raise sqlite3.ProgrammingError("the database is closed")
        return self.connection

    async def sync(self) -> None:
        """See ``Database``. Those who come while a sync is under way share the next."""
        self._check_holder()
        if self._next_sync is None:
            self._next_sync = asyncio.create_task(self._sync())
        await asyncio.shield(self._next_sync)

    async def _sync(self) -> None:
        async with self._syncing:
            async with self._turn:
                connection = self.connection
            try:
                if connection:  # commits that are about to come share it, too
                    await connection._execute(lambda: None)
            finally:
                self._next_sync = None
            self._stop_timer()
            if not self._wal.exists():
                return
            failed, self._sync_failed = self._sync_failed, True
            try:
                if failed:  # the system may have dropped those pages: copy again
                    row = await self.one("PRAGMA wal_checkpoint")
                    if row and row[1] != row[2]:
                        raise OSError("another program reads the database")
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._disk, sync_file, self._wal)
                self._sync_failed = False
            finally:
                if self._sync_failed:
                    self._sync_soon(self.sync_again_s)

    def _sync_soon(self, within_s: float = 0) -> None:
        if self.connection and not self._sync_timer:
            within_s = within_s or self.sync_within_s
            loop = asyncio.get_running_loop()
            self._sync_timer = loop.call_later(within_s, self._sync_now)

    def _stop_timer(self) -> None:
        if self._sync_timer:
            self._sync_timer.cancel()
            self._sync_timer = None

    def _sync_now(self) -> None:
        def tell(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()):
                logger.error("{} cannot be written to the disk: {}", self._wal, error)

        self._sync_timer = None
        asyncio.create_task(self.sync()).add_done_callback(tell)

    async def one(self, sql: str, *values: Any, **named: Any) -> sqlite3.Row | None:
        """See ``Database``."""
        rows = await self.all(sql, *values, **named)
        return rows[0] if rows else None

    async def all(self, sql: str, *values: Any, **named: Any) -> list[sqlite3.Row]:
        """See ``Database``."""
        return await self._visit(
            lambda connection: connection.execute(sql, values or named).fetchall()
        )


def split_script(script: str) -> Iterator[str]:
    """The statements of a script, one at a time: what runs a script whole would commit
    the transaction that it is in."""
    statement = ""
    for piece in re.split("(?<=;)", script):
        statement += piece
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    yield statement  # the last one may have no semicolon


def sync_file(path: Path) -> None:
    """Bring a file's contents to the disk."""
    with path.open("rb") as file:
        getattr(os, "fdatasync", os.fsync)(file.fileno())  # macOS has no fdatasync
