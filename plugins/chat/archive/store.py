"""The archive: keeps its file in step with posts and deletions, and searches it."""

import asyncio
import contextlib
import json
import os
import sqlite3
import sys
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import discord
from bossbot_plugins._archive import Hit, PostArchive, Query
from bossbot_plugins._jobs import may_be_post
from bossbot_plugins._media import mime_of
from bossbot_plugins._refusals import UNREACHABLE
from bossbot_plugins._shared import is_elsewhere
from loguru import logger
from pydantic import ValidationError

from bossbot import TERMINAL_STATUSES, App, Job, Post, Refused, _, now

from . import _file, _find
from ._meaning import Meaning
from ._pieces import fitted
from .config import Config, GuildConfig
from .reading import (
    answer_with_texts,
    ask_for_texts,
    messages_of,
    parent_of,
    public_parent,
    read_files,
    row_of,
    said_of,
    sent_of,
)

PAGE = 50  # jobs that are caught up with at once
PAUSE_S = 0.02  # before each of these pages, for what members ask for
LOOK_BACK_S = 3600.0  # before the newest post, for older ones that are missing
NEAREST = 200  # pieces that are looked at by meaning
BATCH = 32  # texts that get vectors at once
TRIES = 3  # at a post's files
ASK_TRIES = 8  # where another machine has them, in half a day
MAX_KNOWN = 2000  # messages that are known to be there, or to be gone
KNOWN_S = 3600.0
# Discord's codes. An error without one is not Discord's, and says nothing.
UNKNOWN_CHANNEL, UNKNOWN_GUILD, UNKNOWN_MESSAGE = 10003, 10004, 10008
MISSING_ACCESS = 50001
CHECK_S = 5.0  # for Discord to say whether a message is there
LIKE_S = 5.0  # for a post that is about to be added
SWEEP_S = 3600.0
MAX_ASIDE = 3  # damaged files that are kept
FORGET_S = 20.0  # that a command waits for posts to be forgotten

T = TypeVar("T")


def own_archive(app: App) -> "SQLiteArchive | None":
    """The archive, if it is this one: also the one that was there before a reload."""
    kind = f"{type(app.archive).__module__}.{type(app.archive).__name__}"
    if kind != f"{__name__}.{SQLiteArchive.__name__}":
        return None
    return cast(SQLiteArchive, app.archive)


class SQLiteArchive(PostArchive):
    """The archive in an SQLite file of its own, ``archive.db``.

    Threads read it, and one with low priority writes. What it could not write is written
    later, from the queue. Where no commands come, it only reads files for others.
    """

    again_s = 60.0  # before what failed is tried again
    watch_s = 1.0  # between two looks at the servers' settings
    rest_s = 120.0  # at most, in which what can wait does so because of downloads
    calm_s = 0.3  # after a post, until its files are read: another link may follow
    heal_s = 0.2  # between two questions to Discord about what may be gone

    def __init__(self, app: App, config: Config) -> None:
        super().__init__(app)
        self.config = config
        self.path = app.settings.data_dir / "archive.db"
        self.meaning = Meaning(
            self.path,
            config.meaning,
            idle_s=config.meaning_idle_s,
            endpoint_url=config.endpoint_url,
            endpoint_model=config.endpoint_model,
            endpoint_key=config.endpoint_key,
        )
        self.trouble = ""  # why it cannot be written now
        self._writers = ThreadPoolExecutor(1, "archive", _be_nice)
        self._readers = ThreadPoolExecutor(2, "archive-read")
        self._db: sqlite3.Connection | None = None  # the writer's
        self._mine = threading.local()  # the readers'
        self._opened: list[sqlite3.Connection] = []
        self._opening = threading.Lock()
        self._files = 0  # how many there were: it is replaced when it is damaged
        self._writers_file = 0  # the writer's
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # while they run
        self._behind = asyncio.Event()  # something could not be added
        self._added = asyncio.Event()
        self._erased = asyncio.Event()
        self._to_read, self._to_embed = asyncio.Event(), asyncio.Event()
        self._caught_up = False  # whether all is here that was posted
        self._wishes = False  # whether something is still to be forgotten
        # Messages that are there, with the picture in them; others that are gone.
        self._there: OrderedDict[int, tuple[float, str]] = OrderedDict()
        self._gone: OrderedDict[int, None] = OrderedDict()

    async def start(self) -> None:
        """See ``Part``."""
        if self.app.works:
            self._tasks.append(asyncio.create_task(self._insist(self._answer)))
        if not self.app.has_gateway:
            return
        for name, listener in self._listeners().items():
            self.app.bot.add_listener(listener, name)
        wish = await self.app.database.one("SELECT 1 FROM archive_wishes")
        self._wishes = wish is not None
        self._loop = asyncio.get_running_loop()
        self._erased.set()  # what a crash has left
        loops = (
            self._catch_up,
            self._read_files,
            self._embed,
            self._clean,
            self._watch,
        )
        for loop in (*loops, self._heal, self._sweep):
            self._tasks.append(asyncio.create_task(self._insist(loop)))

    async def stop(self) -> None:
        """See ``Part``."""
        if self._loop:
            for name, listener in self._listeners().items():
                self.app.bot.remove_listener(listener, name)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.meaning.stop()
        await asyncio.to_thread(self._shut)

    async def health(self) -> str:
        """See ``Part``."""
        return self.trouble

    def _shut(self) -> None:
        self._readers.shutdown(cancel_futures=True)
        for db in self._opened:
            db.close()
        self._opened.clear()
        self._writers.submit(self._close_writer)
        self._writers.shutdown()

    async def _insist(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Run a loop for as long as the archive lives, however it fails."""
        while True:
            try:
                await loop()
                return
            except (sqlite3.Error, _file.Newer) as error:
                self._tell_trouble(error)
            except Exception:  # one of them must not end the others
                logger.exception("the archive failed in {}", loop.__name__)
            await asyncio.sleep(self.again_s)

    # The file

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The result of ``work`` in a transaction, in the writer's thread.

        Raises:
            sqlite3.Error: it cannot be written now.
        """
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(self._writers, self._written, work)
        self.trouble = ""
        return result

    def _written(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._damages():
            if self._writers_file != self._files:
                self._close_writer()
            if self._db is None:
                self._writers_file = (
                    self._files
                )  # before it is opened: it may be replaced
                self._db = self._open(check=True)
            try:
                with _file.transaction(self._db) as db:
                    return work(db)
            except sqlite3.OperationalError:  # the next one opens it again
                self._close_writer()
                raise

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The result of ``work``, in one of the readers' threads; raises as ``_write``."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._looked, work)

    def _looked(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._damages():
            if getattr(self._mine, "file", None) != self._files:
                file = self._files
                self._mine.db = self._open(check=False)
                self._mine.file = file
                self._opened.append(self._mine.db)
            db = self._mine.db
            db.execute("BEGIN")  # one state of it, whatever is written meanwhile
            try:
                return work(db)
            finally:
                db.rollback()

    def _open(self, check: bool) -> sqlite3.Connection:
        with self._opening:  # the first one makes the tables
            return _file.open_file(self.path, check=check)

    @contextlib.contextmanager
    def _damages(self) -> Iterator[None]:
        """Set the file aside when it turns out to be damaged. Each thread closes its own
        connection: it would end Python to do so while another thread is using it."""
        number = self._files
        try:
            yield
        except (
            *(sqlite3.OperationalError, sqlite3.IntegrityError),
            *(sqlite3.ProgrammingError, sqlite3.InterfaceError),
        ):
            raise
        except sqlite3.DatabaseError as error:
            with self._opening:
                if number == self._files:  # not by another thread
                    set_aside(self.path, error)
                    self._caught_up = False
                    self._files += 1
            if self._loop:
                self._loop.call_soon_threadsafe(self._behind.set)
            raise

    def _close_writer(self) -> None:
        db, self._db = self._db, None
        if db:
            db.close()

    def _tell_trouble(self, error: Exception) -> None:
        if not self.trouble:
            logger.warning("the archive cannot be written now: {!r}", error)
        self.trouble = repr(error)

    # What is posted

    def keeps(self, guild_id: int) -> bool:
        """Whether the archive is on for a server; not if its settings cannot be read."""
        try:
            return is_on(self.app.guilds.tables(guild_id))
        except Refused:
            return False

    async def note(self, job: Job) -> None:
        """Add what a job has posted, once it has ended; twice does no harm."""
        if job.status not in TERMINAL_STATUSES or not sent_of(job):
            return
        file = self._files
        try:
            await self._add([job], job.finished_at if self._caught_up else 0, file)
        except (sqlite3.Error, _file.Newer) as error:
            self._tell_trouble(error)
            self._caught_up = False
            self._behind.set()

    async def _add(self, jobs: Iterable[Job], reached: float = 0, file: int = 0) -> int:
        """Add what jobs have posted; returns how many posts are new. With it, store that
        all jobs are here that ended until ``reached``, if it is still the same file."""
        posts = []
        for job in jobs:
            messages = [m for m in messages_of(job) if m[0] not in self._gone]
            wanted = self.keeps(job.guild_id) and is_on(job.guild_settings)
            if not messages or not wanted:
                continue
            row, said = row_of(job), said_of(job)
            posts.append((row, messages, said, parent_of(self.app, row.channel_id)))
        limit, size = int(self.config.text_limit), self.config.piece_chars

        def add(db: sqlite3.Connection) -> int:
            same = file == self._files
            if same and reached > float(_file.fact(db, "reached") or 0):
                _file.set_fact(db, "reached", repr(reached))
            return sum(
                _file.add_post(db, row, messages, fitted(said, limit), size, parent_id)
                for row, messages, said, parent_id in posts
            )

        added = await self._write(add) if posts or reached else 0
        if added:
            for event in (self._added, self._to_read, self._to_embed):
                event.set()
        return added

    async def _catch_up(self) -> None:
        """Get ready, and add the posts that were missed in the meantime."""
        await self.app.bot.wait_until_ready()  # which has the channels
        await self._make_ready()
        while True:
            self._behind.clear()
            file = self._files
            await self._forget_wishes()
            if self._gone:  # what could not be forgotten then
                gone = partial(_file.erase_messages, message_ids=list(self._gone))
                await self._erase(gone)
            known = await self._read(lambda db: _file.fact(db, "reached"))
            since = float(known or 0)
            if not known:
                sql = "SELECT job_id FROM archive_forgotten"
                rows = await self.app.database.all(sql)
                await self._erase_jobs([row[0] for row in rows])
                await self._add_history()
            last, page = since, list[Job]()
            async for job in self.app.queue.ended(max(since - LOOK_BACK_S, 0)):
                last = max(last, job.finished_at)
                page.append(job)
                if len(page) == PAGE:
                    await self._add_page(page, last, file)
                    page = []
            await self._add_page(page, max(last, 1), file)
            self._caught_up = file == self._files and not self._behind.is_set()
            await self._behind.wait()
            await asyncio.sleep(self.again_s)

    async def _make_ready(self) -> None:
        """Begin anew what an earlier version has made, or another model."""
        size, model = self.config.piece_chars, self.meaning.model

        def look(db: sqlite3.Connection) -> bool:
            cut = _file.is_cut(db, size)
            if not cut:
                _file.forget_cutting(db, size, model or _file.fact(db, "model"))
            elif model and _file.fact(db, "model") != model:
                _file.forget_model(db, model)
            return not cut

        if await self._write(look):
            await self._cut_anew()
        self._to_embed.set()
        self._erased.set()

    async def _cut_anew(self) -> None:
        cut = partial(_file.cut_anew, size=self.config.piece_chars, count=20)
        while await self._write(cut):
            await asyncio.sleep(0)

    async def _add_page(self, jobs: Sequence[Job], reached: float, file: int) -> None:
        """Add some jobs from the queue, but not those that are forgotten meanwhile."""
        await asyncio.sleep(PAUSE_S)
        await self._add(jobs, reached, file)
        found = await self.app.queue.find([job.id for job in jobs])
        await self._erase_jobs([job.id for job in jobs if job.id not in found])

    async def _add_history(self) -> None:
        """Add the posts from before there was an archive, from the history: links and
        titles."""
        sql = "SELECT 1 FROM sqlite_master WHERE name = 'history'"
        database, last = self.app.database, ""
        if not await database.one(sql):
            return
        sql = (
            "SELECT id, guild_id, channel_id, user_id, url, platform, engine, status, "
            f"title, finished_at, posts FROM history WHERE id > ? ORDER BY id LIMIT {PAGE}"
        )
        while rows := await database.all(sql, last):
            await asyncio.sleep(PAUSE_S)
            last = rows[-1]["id"]
            jobs = {row["id"]: job_of_history(row) for row in rows}
            queued = await self.app.queue.find(list(jobs))  # which has more about them
            await self._add(job for job in jobs.values() if job.id not in queued)
            kept = await database.all(
                "SELECT id FROM history WHERE id IN (SELECT value FROM json_each(?))",
                json.dumps(list(jobs)),
            )
            await self._erase_jobs(list(jobs.keys() - {row[0] for row in kept}))

    # What is in the files

    async def _rest(self) -> None:
        """Wait while downloads run, since they come first."""
        until_s = now() + self.rest_s
        while self.app.runner.downloads() and now() < until_s:
            await asyncio.sleep(0.5)

    async def _read_files(self) -> None:
        """Read the files of posts, one after the other."""
        while True:
            self._to_read.clear()
            await self._rest()
            next_work = partial(_file.next_work, again_s=self.again_s)
            work = await self._write(next_work)
            if work and not work[2]:
                await self._read_post(*work[:2])
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(work and work[2]):
                    await self._to_read.wait()
                    await asyncio.sleep(self.calm_s)

    async def _answer(self) -> None:
        """Read files for the gateway."""
        await answer_with_texts(self.app, self.config.subtitles == "own")

    async def _read_post(self, job_id: str, tries: int) -> None:
        job = await self.app.queue.get(job_id)
        passages, failed = [], False
        asks = job is not None and bool(job.folder) and is_elsewhere(self.app, job)
        most = ASK_TRIES if asks else TRIES
        if job and tries < most:
            subtitles = self.config.subtitles == "own"
            reading = (
                ask_for_texts(self.app, job)
                if asks
                else read_files(self.app, job, subtitles)
            )
            try:
                passages = await reading
            except Exception as error:  # of whatever is in the files
                logger.bind(job=job_id).warning("its files cannot be read: {!r}", error)
                failed = tries + 1 < most
        if failed:
            return
        said = said_of(job) if job else []
        limit, size = int(self.config.text_limit), self.config.piece_chars

        def add(db: sqlite3.Connection) -> None:
            known = len(fitted(said, limit))  # these are there already
            _file.add_passages(
                db, job_id, fitted([*said, *passages], limit)[known:], size
            )
            db.execute("DELETE FROM work WHERE job_id = ?", (job_id,))

        await self._write(add)
        if passages:
            self._to_embed.set()

    async def _embed(self) -> None:
        """Make vectors for what has none."""
        while self.meaning.model:
            self._to_embed.clear()
            some = await self._read(partial(_file.without_vectors, count=BATCH))
            if not some:
                await self._to_embed.wait()
                continue
            await self._rest()
            vectors = await self.meaning.embed([text for *_, text in some])
            if vectors is None:
                await asyncio.sleep(self.again_s)
                continue
            rows = [(*one[:4], v) for one, v in zip(some, vectors, strict=True)]
            await self._write(
                partial(_file.add_vectors, rows=rows, model=self.meaning.model)
            )

    # Search

    async def search(self, query: Query, limit: int = 5, after: int = 0) -> list[Hit]:
        """See ``PostArchive``."""
        if not self.keeps(query.guild_id):
            raise Refused(_("The archive is switched off on this server."))
        if self._wishes:
            raise Refused(_("The archive is out of reach now. Try again later."))
        with self.refused():
            return await self._search(query, limit, after)

    @contextlib.contextmanager
    def refused(self) -> Iterator[None]:
        """Refuse what needs the file while it cannot be read."""
        try:
            yield
        except (sqlite3.Error, _file.Newer) as error:
            self._tell_trouble(error)
            text = _("The archive is out of reach now. Try again later.")
            raise Refused(text) from error

    async def _search(self, query: Query, limit: int, after: int) -> list[Hit]:
        asked = await self._asked(query)
        cosines = await self._cosines(asked)
        least = self.config.perhaps
        ranked = partial(_find.ranked, asked=asked, cosines=cosines, least=least)
        found = await self._read(ranked)
        sure, fits = self.config.sure, [*enumerate(found, 1)][after:]
        hits, unknown = list[Hit](), list[int]()
        while fits and len(hits) < limit and len(unknown) < limit:
            some, fits = fits[: limit - len(hits)], fits[limit - len(hits) :]
            pictures = await asyncio.gather(
                *(self._look(one, unknown) for _number, one in some)
            )
            jobs = [one.row["job_id"] for _, one in some]
            there = await self._read(partial(_find.those_there, job_ids=jobs))
            for (rank, one), picture in zip(some, pictures, strict=True):
                if picture is not None and one.row["job_id"] in there:
                    hit = _find.hit_of(asked, one, rank, one.score >= sure, picture)
                    hits.append(hit)
        if unknown and not hits:  # that nothing fits would not be true
            raise Refused(_("The archive is out of reach now. Try again later."))
        return hits

    async def _asked(self, query: Query) -> _find.Asked:
        """A question with what its words find; of a post that has just been posted, once
        it is here."""
        there = partial(_find.those_there, job_ids=[query.like])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LIKE_S):
                while query.like and self._tasks:
                    self._added.clear()
                    if await self._read(there):
                        break
                    await self._added.wait()
        return await self._read(partial(_find.ask, query=query))

    async def _cosines(self, asked: _find.Asked) -> dict[int, float] | None:
        if not (asked.channels and asked.text.strip()):
            return {}
        near = await self.meaning.nearest(
            asked.text,
            asked.query.guild_id,
            asked.channels,
            NEAREST,
            among=asked.among,
            also=asked.found,
        )
        return None if near is None else dict(near)

    async def _look(self, found: _find.Found, unknown: list[int]) -> str | None:
        """The picture in a post's message, "" if it has none or it is to be hidden; None
        when the message is not there, or when Discord does not say: then it is added to
        the ``unknown``."""
        if not self.app.has_gateway:
            return ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHECK_S):
                while found.message_id:
                    if (picture := await self._picture(found)) is not None:
                        hidden = found.row["hidden"] or found.row["adult"]
                        return "" if hidden else picture
                    if found.message_id not in self._gone:
                        return None
                    # It may have another one.
                    next_of = partial(_find.message_of, job_id=found.row["job_id"])
                    message = await self._read(next_of)
                    found.message_id, found.channel_id = message or (0, 0)
                return None
        unknown.append(found.message_id)
        return None

    async def _picture(self, found: _find.Found) -> str | None:
        """The picture in a message; None when it is gone, or not for the bot. Raises
        TimeoutError when Discord does not say."""
        message_id = found.message_id
        at_s, picture = self._there.get(message_id, (0, ""))
        if now() - at_s < KNOWN_S:
            return picture
        try:
            message = await self.app.bot.http.get_message(found.channel_id, message_id)
        except discord.Forbidden:
            return None
        except UNREACHABLE as error:
            code = getattr(error, "code", 0)
            if code not in (UNKNOWN_CHANNEL, UNKNOWN_MESSAGE):
                logger.info("a message cannot be looked up: {!r}", error)
                raise TimeoutError from error
            gone = [message_id]
            if code == UNKNOWN_CHANNEL:
                gone = await self._read(
                    partial(_find.messages_in, channel_id=found.channel_id)
                )
            await self.forget_messages(gone)
            return None
        found_at = now(), picture_in(message)
        _remember(self._there, message_id, found_at)
        return found_at[1]

    async def count(self, user_id: int) -> int:
        """See ``PostArchive``."""
        sql = "SELECT count(*) FROM posts WHERE user_id = ?"
        with self.refused():
            row = await self._read(lambda db: db.execute(sql, (user_id,)).fetchone())
        return int(row[0])

    # These raise sqlite3.Error, or _file.Newer.

    async def status(self, guild_id: int | None = None) -> dict[str, Any]:
        """See ``_find.status_of``."""
        return await self._read(partial(_find.status_of, guild_id=guild_id))

    async def owner_of(self, message_id: int) -> _find.Owner | None:
        """Whose post a message belongs to; None if to none that is here."""
        return await self._read(partial(_find.owner_of, message_id=message_id))

    async def channels_of(self, guild_id: int) -> list[int]:
        """All channels of a guild that something was posted in."""
        return await self._read(partial(_find.channels_of, guild_id=guild_id))

    # Forgetting

    async def forget_messages(self, message_ids: Iterable[int]) -> None:
        """Forget messages that were deleted, and posts with the last of theirs."""
        gone = list(message_ids)
        for number in gone:
            _remember(self._gone, number, None)
            self._there.pop(number, None)
        await self._erase(partial(_file.erase_messages, message_ids=gone))

    async def forget_where(self, where: str, *values: object) -> None:
        """Erase the posts of which a condition is true, and wait until that is done."""
        erase = partial(_file.erase_some, where=where, values=values)
        while await self._erase(erase):
            await asyncio.sleep(0)

    async def forget_job(self, job_id: str) -> None:
        """Forget a post, whatever becomes of its messages, and of the file."""
        sql = "INSERT OR IGNORE INTO archive_forgotten VALUES (?)"
        await self.app.database.all(sql, job_id)
        await self._erase_jobs([job_id])

    async def _erase_jobs(self, job_ids: Sequence[str]) -> None:
        if job_ids:
            await self._erase(partial(_file.erase, job_ids=job_ids))

    async def _erase(self, erase: Callable[[sqlite3.Connection], int]) -> int:
        erased = await self._write(erase)
        if erased:
            self._erased.set()
        return erased

    async def forget(self, guild_id: int | None, user_id: int | None) -> None:
        """See the hook ``forget_downloads``. What cannot be done now is done later, and
        until then nothing is found."""
        wish = (-1 if guild_id is None else guild_id, user_id or 0)
        sql = "INSERT OR IGNORE INTO archive_wishes VALUES (?, ?)"
        await self.app.database.all(sql, *wish)
        self._wishes = True
        task = asyncio.create_task(self._heard(self._forget_wishes()))
        self._tasks.append(task)
        task.add_done_callback(self._tasks.remove)
        await asyncio.wait([task], timeout=FORGET_S)

    async def _forget_wishes(self) -> None:
        """Erase the posts of members who are to be forgotten."""
        sql = "SELECT guild_id, member FROM archive_wishes LIMIT 1"
        while wish := await self.app.database.one(sql):
            self._wishes = True
            tests = {"guild_id = ?": (wish[0], -1), "user_id = ?": (wish[1], 0)}
            named = {test: v for test, (v, none) in tests.items() if v != none}
            await self.forget_where(" AND ".join(named) or "1", *named.values())
            done = "DELETE FROM archive_wishes WHERE guild_id = ? AND member = ?"
            await self.app.database.all(done, *wish)
        self._wishes = False

    async def _clean(self) -> None:
        """Clear the file's pages of erased posts."""
        while True:
            await self._erased.wait()
            self._erased.clear()
            cleaning = await self._write(partial(_file.clean_index, cleaning=""))
            while cleaning:
                await asyncio.sleep(0)
                cleaning = await self._write(
                    partial(_file.clean_index, cleaning=cleaning)
                )
            loop = asyncio.get_running_loop()
            while not await loop.run_in_executor(self._writers, self._empty_wal):
                await asyncio.sleep(0.2)

    def _empty_wal(self) -> bool:
        return self._db is None or _file.empty_wal(self._db)

    def _listeners(self) -> dict[str, Any]:
        return {
            "on_raw_message_delete": self._on_delete,
            "on_raw_bulk_message_delete": self._on_bulk_delete,
            "on_guild_channel_delete": self._on_channel_delete,
            "on_raw_thread_delete": self._on_thread_delete,
            "on_guild_remove": self._on_guild_remove,
        }

    async def _on_delete(self, event: discord.RawMessageDeleteEvent) -> None:
        if may_be_post(event):
            await self._heard(self.forget_messages([event.message_id]))

    async def _on_bulk_delete(self, event: discord.RawBulkMessageDeleteEvent) -> None:
        await self._heard(self.forget_messages(event.message_ids))

    async def _on_channel_delete(self, channel: discord.abc.GuildChannel) -> None:
        await self._heard(self.forget_channel(channel.guild.id, channel.id))

    async def _on_thread_delete(self, event: discord.RawThreadDeleteEvent) -> None:
        await self._heard(self.forget_channel(event.guild_id, event.thread_id))

    async def _on_guild_remove(self, guild: discord.Guild) -> None:
        await self._heard(self.forget_where("guild_id = ?", guild.id))

    async def _heard(self, forgetting: Awaitable[None]) -> None:
        """Forget something; after a failure, ``_catch_up`` does it, or the next search
        notices."""
        try:
            await forgetting
        except (sqlite3.Error, _file.Newer) as error:
            self._tell_trouble(error)
            self._caught_up = False
            self._behind.set()

    async def forget_channel(self, guild_id: int, channel_id: int) -> None:
        """Forget the posts in a channel and its threads."""
        messages = await self._read(partial(_find.messages_in, channel_id=channel_id))
        await self.forget_messages(messages)
        await self.forget_where(
            "guild_id = ? AND channel_id IN (SELECT channel_id FROM places WHERE "
            "? IN (channel_id, parent_id))",
            guild_id,
            channel_id,
        )

    async def _watch(self) -> None:
        """Erase what a server does not want to be kept, once its settings say so. A file
        that its owner edits may not change its folder: that is seen a little later."""
        folder, seen, due_s = self.app.guilds.folder, -1, 0.0
        while True:
            with contextlib.suppress(OSError):
                changed = folder.stat().st_mtime_ns
                if changed != seen or now() >= due_s:
                    await self._forget_unwanted()
                    seen, due_s = changed, now() + self.again_s
            await asyncio.sleep(self.watch_s)

    async def _forget_unwanted(self) -> None:
        sql = "SELECT DISTINCT guild_id FROM posts"
        for row in await self._read(lambda db: db.execute(sql).fetchall()):
            if self._does_not_want(row[0]):
                await self.forget_where("guild_id = ?", row[0])

    def _does_not_want(self, guild_id: int) -> bool:
        try:
            self.app.guilds.tables(guild_id)
        except Refused:  # it cannot be known; nothing is found meanwhile
            return False
        return not self.keeps(guild_id)

    async def _heal(self) -> None:
        """Forget servers and channels that went while the bot was off."""
        await self.app.bot.wait_until_ready()
        sql = "SELECT guild_id, channel_id FROM places WHERE guild_id > 0"
        rows = await self._read(lambda db: db.execute(sql).fetchall())
        channels = dict[int, list[int]]()
        for guild_id, channel_id in rows:
            channels.setdefault(guild_id, []).append(channel_id)
        own = await self._is_of_this_bot()
        for guild_id in channels:
            with contextlib.suppress(*UNREACHABLE):
                if self.app.bot.get_guild(guild_id) is None:
                    if own:
                        await self._heal_guild(guild_id)
                    continue
                for channel_id in channels[guild_id]:
                    if self.app.bot.get_channel(channel_id) is None:
                        await self._heal_channel(guild_id, channel_id)

    async def _is_of_this_bot(self) -> bool:
        """Whether the archive was begun by this user of Discord's. Another one, with a
        token for tests, may not be on the same servers."""
        name = str(self.app.bot.user and self.app.bot.user.id)

        def look(db: sqlite3.Connection) -> bool:
            if not (known := _file.fact(db, "bot")):
                _file.set_fact(db, "bot", name)
            return (known or name) == name

        return await self._write(look)

    async def _heal_guild(self, guild_id: int) -> None:
        await asyncio.sleep(self.heal_s)
        try:
            await self.app.bot.http.get_guild(guild_id, with_counts=False)
        except (discord.NotFound, discord.Forbidden) as error:
            if error.code in (UNKNOWN_GUILD, MISSING_ACCESS):
                await self.forget_where("guild_id = ?", guild_id)

    async def _heal_channel(self, guild_id: int, channel_id: int) -> None:
        await asyncio.sleep(self.heal_s)
        try:
            channel = await self.app.bot.fetch_channel(channel_id)
        except discord.NotFound as error:
            if error.code == UNKNOWN_CHANNEL:
                await self.forget_channel(guild_id, channel_id)
            return
        except discord.Forbidden:
            return
        if parent_id := public_parent(channel):  # archived, so there was no event
            sql = (
                "UPDATE places SET parent_id = ? WHERE guild_id = ? AND channel_id = ?"
            )
            values = (parent_id, guild_id, channel_id)
            await self._write(lambda db: db.execute(sql, values))

    async def _sweep(self) -> None:
        """Erase posts that are too old."""
        while days := self.config.retention_days:
            await self.forget_where("posted_at < ?", now() - days * 86400)
            await asyncio.sleep(SWEEP_S)

    # By the owner

    async def rebuild(self) -> None:
        """Make pieces, words and vectors anew from the texts."""
        size, model = self.config.piece_chars, self.meaning.model
        await self._write(partial(_file.forget_cutting, size=size, model=model))
        await self._cut_anew()
        self._to_embed.set()
        self._erased.set()


def is_on(tables: dict[str, Any]) -> bool:
    """Whether a server's settings, as they are or were, let posts be kept."""
    try:
        return GuildConfig.model_validate(tables.get("archive", {})).archive
    except ValidationError:
        return True


def _be_nice() -> None:
    """Give this thread the lowest priority: its work can wait."""
    if sys.platform == "linux":  # elsewhere it would be the whole process
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def _remember(table: OrderedDict[int, Any], key: int, value: Any) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > MAX_KNOWN:
        table.popitem(last=False)


def set_aside(path: Path, error: Exception) -> None:
    """Move a damaged file away, for the owner. If there are many, the largest are kept,
    since they have the most posts."""
    aside = path.with_name(f"{path.stem}.damaged-{int(now() * 1000)}.db")
    copies = path.parent.glob(f"{path.stem}.damaged-*.db")
    for copy in sorted(copies, key=lambda one: one.stat().st_size)[: -MAX_ASIDE + 1]:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{copy}{suffix}").unlink(missing_ok=True)
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    logger.error("{} is damaged ({}) and was kept as {}", path, error, aside.name)


def job_of_history(row: sqlite3.Row) -> Job:
    """An ended job, as far as the history has it."""
    names = ("id", "guild_id", "channel_id", "user_id", "url", "platform", "status")
    posts = [Post(**post) for post in json.loads(row["posts"])]
    return Job(
        **{name: row[name] for name in names},
        engine=row["engine"],
        facts={"title": row["title"]},
        finished_at=row["finished_at"],
        posts=posts,
    )


def picture_in(message: Any) -> str:
    """The address of the first picture in a message, as Discord describes it."""
    for file in message.get("attachments") or ():
        name = str(file.get("filename") or "")
        if mime_of(name).startswith("image/") and not name.startswith("SPOILER_"):
            return str(file.get("url") or "")
    return ""
