"""Works on jobs: claims them from the queue, downloads, processes and posts."""

import asyncio
import contextlib
import contextvars
import dataclasses
import errno
import math
import random
import re
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from bossbot_plugins._bench import ENCODERS, JobBench, Later
from bossbot_plugins._cookies import keep_cookies, write_cookies
from bossbot_plugins._failures import named_reason, unsupported
from bossbot_plugins._insist import insist
from bossbot_plugins._kept import may_serve
from bossbot_plugins._own_name import own_name
from loguru import logger
from pydantic import Field

from bossbot import (
    N_,
    SENTENCES,
    App,
    Cause,
    Fetched,
    Job,
    JobFailed,
    MediaFile,
    OutOfReach,
    Part,
    Platform,
    PluginConfig,
    Progress,
    Refused,
    Request,
    Status,
    Worker,
    _,
    format_size,
    hookimpl,
    language,
    ngettext,
    now,
    public_url,
)

MAX_CRASHES = 3
MAX_TRIES = 3
# Made once: it takes loguru longer than a log line.
NOT_CLAIMED = logger.catch(message="no job could be claimed")
# The engine brought nothing, or the site's answer, which is wrong if it asked for
# something else than the link means.
NO_ANSWERS = (Cause.UNSUPPORTED, Cause.NO_MEDIA, Cause.INTERNAL)
GUESSES = (Cause.LOGIN, Cause.GONE, Cause.PRIVATE, Cause.AGE, Cause.ENGINE_OUTDATED)
# With a job; "login" is ours: whether an account of the owner's was used.
STORED_FACTS = (
    *("title", "uploader", "date", "text", "adult", "items", "more", "mute"),
    *("leads_to", "login"),
)
# An option of an engine that logs in.
LOGIN = re.compile(
    r"(?i)token|secret|passw|session|cookie|auth|api.?key|user.?name|netrc"
)
NO_PLATFORM = Platform("", "", "", "")

_T = TypeVar("_T")


class Config(PluginConfig):
    """[plugins.local_worker] in config.toml."""

    download_timeout_s: float = Field(
        600, gt=0, description="time limit for one download"
    )
    lease_s: float = Field(
        60, ge=2, description="time until another machine takes over from a dead one"
    )


@hookimpl
def register_parts(config: Config) -> dict[str, Callable[[App], Part]]:
    return {"worker": partial(LocalWorker, config=config)}


@dataclass
class Tries:
    """The tries of a job so far, as this worker has counted them."""

    asked_s: float = 0  # that sites have asked to wait, in all
    refused: JobFailed | None = None  # by the site, with the login, now left out
    engines: list[str] = field(default_factory=list)
    errors: list[JobFailed] = field(default_factory=list)


class LocalWorker(Worker):
    """The ``Worker`` in this process."""

    grace_s = 20.0  # for uploads, at a stop
    give_way_s = 0.1  # at most, to links that are being taken in
    refused_s = 5.0  # before a check that refused a claim is asked again
    give_back_s = 3.0  # for what they leave to be stored
    retry_wait_s = (
        2.0  # at most, before the second try; four times that before the third
    )
    max_retry_wait_s = 60.0  # that sites may ask for, in all tries of a job
    insist_s = 5.0  # before a state that could not be stored is written again
    tell_s = 0.1  # a shorter step gets no status of its own
    early_s = 1.0  # a download that takes longer is posted while it goes on
    # A message goes before it is full after so long, each next one after four times as
    # long: the first files come soon, and all of them in few messages.
    patience_s = 3.0

    def __init__(self, app: App, config: Config) -> None:
        super().__init__(app)
        self.config = config
        self.lease_s = config.lease_s
        self.running: dict[str, asyncio.Task[None]] = {}
        self._tries: dict[str, Tries] = {}  # by job
        self._posting: set[asyncio.Task[Any]] = set()  # those of them that post
        self._claiming = asyncio.Lock()
        self._encoders = asyncio.Semaphore(ENCODERS)
        self._refused = ""  # why nothing is claimed now
        self._ask_again_s = 0.0  # by the loop's clock
        self._dispatcher: asyncio.Task[None] | None = None
        self._warming: asyncio.Task[Any] | None = None

    async def start(self) -> None:
        """Take up the waiting jobs, the unfinished ones first; then new ones."""
        self.name = await asyncio.to_thread(own_name, self.app.settings.data_dir)
        # Whole even when the start is cut off, so that what it claims is known to `stop`.
        await asyncio.shield(self._recover())
        self._dispatcher = asyncio.create_task(self._dispatch())
        self._warming = asyncio.create_task(self._warm())

    async def _warm(self) -> None:
        with contextlib.suppress(JobFailed, OSError):  # a TimeoutError is one
            await self.app.runner.versions()

    async def _recover(self) -> None:
        async with self._claiming:
            for job in await self.app.queue.recover(self.name, self.lease_s):
                self._spawn(job, self._post(job))

    async def stop(self) -> None:
        """Claim nothing more, give running downloads back to the queue, let uploads end
        within ``grace_s``; the next start takes up the rest."""
        async with self._claiming:  # so that no claim is under way
            if self._dispatcher:
                self._dispatcher.cancel()
                self._dispatcher = None
        await asyncio.sleep(0)  # a job that was just claimed has begun
        uploads = set(self._posting)
        for task in set(self.running.values()) - uploads:
            task.cancel()
        if uploads:
            await asyncio.wait(uploads, timeout=self.grace_s)
        for task in uploads:  # the others are giving their jobs back
            task.cancel()
        if left := set(self.running.values()):
            _, stuck = await asyncio.wait(left, timeout=self.give_back_s)
            for task in stuck:
                task.cancel()

    async def health(self) -> str:
        """See ``Part``."""
        if self.app.stopping.is_set():
            return "the bot stops"
        works = self._dispatcher and not self._dispatcher.done()
        return "" if works else "no job is taken from the queue"

    async def _dispatch(self) -> None:
        """Claim jobs when there is room, and end those that were cancelled."""
        async for change in self.app.queue.changes():
            status = change.job.status if change else None
            task = self.running.get(change.job.id) if change else None
            if task and status is Status.CANCELLED:
                task.cancel()
            if status is not Status.DOWNLOADING:  # else nothing became free
                with NOT_CLAIMED:
                    await self._claim()

    async def _claim(self) -> None:
        """Claim what there is room for, unless a check or the queue refuses."""
        loop = asyncio.get_running_loop()
        async with self._claiming:
            if self.app.queue.waits():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.give_way_s), self.app.turn():
                        pass  # the links that came before have their answers
            while self.app.queue.waits() and not self.app.stopping.is_set():
                if loop.time() < self._ask_again_s:
                    return
                try:
                    await self.app.plugins.call("check_claim")
                    job = await self.app.queue.claim(self.name, self.lease_s)
                except Refused as error:
                    if self._refused != str(error):
                        logger.warning("no job is started now: {}", error)
                    self._refused = str(error)
                    away = isinstance(error, OutOfReach)  # it may be back at once
                    wait_s = min(self.refused_s, 1) if away else self.refused_s
                    self._ask_again_s = loop.time() + wait_s
                    return
                self._refused = ""
                if not job:
                    return
                self._spawn(job, self._work(job))

    def _spawn(self, job: Job, work: Any) -> None:
        context = contextvars.copy_context()
        context.run(language.set, job.language)
        task = asyncio.create_task(work, context=context)
        self.running[job.id] = task

        def done(_: Any) -> None:
            if self.running.get(job.id) is task:
                del self.running[job.id]

        task.add_done_callback(done)

    # How a job's state is stored

    async def _set(self, job: Job, status: Status) -> None:
        """Store a job with a new status.

        Raises:
            JobFailed: another attempt has the job now.
        """
        job.status = status
        if not await self._insist(partial(self.app.queue.save, job, self.lease_s), job):
            raise JobFailed(Cause.CANCELLED, "the claim was lost")

    async def _end(
        self, job: Job, status: Status, error: JobFailed | None = None
    ) -> bool:
        """Store the end of a job; False if another worker has ended it, or has it
        now."""
        self._tries.pop(job.id, None)
        job.status, job.finished_at, job.crashes = status, now(), 0
        if error:
            job.cause, job.error, job.detail = error.cause, str(error), error.detail
            if job.posted:
                text = _("{posted}, then: {reason}")
                job.error = text.format(posted=posted_of(job), reason=_(job.error))
        with contextlib.suppress(OSError):  # what stays goes with the leftovers
            await self.app.storage.forget_attempt(job)
        return await self._insist(partial(self.app.queue.finish, job), job)

    async def _release(self, job: Job, delay_s: float = 0) -> None:
        """Give a job back to the queue, also one that was about to end."""
        job.cause, job.error, job.detail, job.finished_at = None, "", "", 0
        job.crashes = 0
        await self._insist(partial(self.app.queue.release, job, delay_s), job)

    async def _insist(self, ask: Callable[[], Awaitable[_T]], job: Job) -> _T:
        return await insist(ask, job, self.insist_s)

    @contextlib.asynccontextmanager
    async def _leased(self, job: Job) -> AsyncIterator[None]:
        """Keep the lease of a claimed job; give the work up when it is lost."""
        work = asyncio.current_task()

        async def keep() -> None:
            kept = True
            while kept:
                await asyncio.sleep(self.lease_s / 3)
                keeping = partial(self.app.queue.keep, job, self.lease_s)
                kept = await self._insist(keeping, job)
            if work:
                work.cancel()

        task = asyncio.create_task(keep())
        try:
            yield
        finally:
            task.cancel()

    # One attempt

    async def _work(self, job: Job) -> None:
        """One attempt, from the claim to the posting."""
        try:
            to_post = await self._attempt(job)
        except asyncio.CancelledError:  # by a member, or because the bot stops
            self._tries.pop(job.id, None)
            if self.app.stopping.is_set():
                await self._release(job)
            await self.app.storage.forget_attempt(job)
            await self._forget_if_cancelled(job)
        except Exception as error:  # the boundary of a job: the next one must run
            await self._broken(job, error)
        else:
            ended = False
            try:
                ended = to_post and await self._post(job)
            finally:  # a cancel may come while it ends
                if not ended:
                    await self._forget_if_cancelled(job)

    async def _forget_if_cancelled(self, job: Job) -> None:
        """Remove what is left of a job that was cancelled before all was posted."""
        if job.folder:
            stored = await self._insist(partial(self.app.queue.get, job.id), job)
            if stored is None or stored.status is Status.CANCELLED:
                await self.app.storage.forget_attempt(job)
                await self._insist(partial(self.app.queue.forget_files, job.id), job)
                await self.app.storage.forget(job)

    async def _attempt(self, job: Job) -> bool:
        """Whether a job's files are here and wait to be posted; else it has ended, or
        waits for another attempt."""
        try:
            async with self._leased(job):
                if job.crashes >= MAX_CRASHES:
                    raise too_many_crashes(job)
                job.limit_bytes = await self.app.courier.limit_bytes(job)
                await self._check(job)
                if self._warming:  # before that, no download begins
                    await asyncio.wait([self._warming])
                job.crashes += 1  # unless it ends in another way
                await self._set(job, Status.DOWNLOADING)
                report = self._report(job)
                fetched = await self._fetch_and_post(job, report)
                if job.joins:
                    await self._end(job, Status.COMPLETED)
                    return False
                rest = not_posted(fetched.files, job.sources)
                job.status = Status.PROCESSING  # stored if that takes a while
                await self._freeze(job, fetched, rest, fetched.folder, report)
                job.crashes = 0  # of the download, which is done
                job.status = Status.UPLOADING  # stored with the first message
        except JobFailed as error:
            log_failure(job, error)
            if (wait_s := await self._retry_in(job, error)) is None:
                await self._end(job, Status.FAILED, self._told(job, error))
            else:
                await self._release(job, wait_s)
            return False
        self._tries.pop(job.id, None)
        return True

    async def _storing_status(self, job: Job, work: Coroutine[Any, Any, _T]) -> _T:
        """The result of work on a job. If that takes a while, the job's status is stored
        meanwhile."""
        working = asyncio.create_task(work)
        try:
            await asyncio.wait([working], timeout=self.tell_s)
            if not working.done():
                await self._set(job, job.status)
            return await working
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def _check(self, job: Job) -> None:
        try:
            check = partial(self.app.plugins.call, "check_attempt", job=job)
            await self._insist(check, job)
        except Refused as error:
            raise JobFailed(error.cause, message=str(error)) from error

    async def _fetch_and_post(
        self, job: Job, on_progress: Callable[[Progress], None]
    ) -> Fetched:
        """What ``fetch`` gives. Files that fill a message are posted on the way. With
        the job joined to another, what there is already."""
        came = asyncio.Queue[Fetched | None]()  # after each file, and None at the end
        fetching = asyncio.create_task(
            self._download(job, on_progress, came.put_nowait)
        )
        fetching.add_done_callback(lambda task: came.put_nowait(None))
        until = asyncio.create_task(asyncio.sleep(self.early_s))
        try:
            if job.sources:
                await self._post_frozen(job)
            first = not job.posts  # else only all files show which ones are missing
            asked = False
            clock, patience_s = asyncio.get_running_loop().time, self.patience_s
            last_s, first_s = clock(), 0.0
            while first and (so_far := await came.get()):
                if job.facts.get("leads_to") and not asked:
                    asked = True
                    if await self._is_here(job):
                        return so_far
                if not so_far.paths:
                    continue
                first_s = first_s or clock()
                await asyncio.wait([until, fetching], return_when="FIRST_COMPLETED")
                late = clock() - last_s > patience_s
                if late and left_s(so_far, clock() - first_s) < self.patience_s:
                    late = False
                before = so_far.checked
                first = await self._post_some(job, so_far, fetching, late)
                if so_far.checked > before:
                    last_s, patience_s = clock(), 4 * patience_s
            fetched = await fetching
        finally:
            until.cancel()
            fetching.cancel()
            await asyncio.gather(fetching, return_exceptions=True)
        await self._inspect_all(job, fetched)
        return fetched

    async def _is_here(self, job: Job) -> bool:
        """Whether what a short link leads to has been posted; the job then has joined
        the one that did it."""
        earlier = await self.app.plugins.call_first("find_posted", job=job)
        if earlier:
            job.joins, job.posts = earlier.id, earlier.posts
        return bool(earlier)

    async def _post_frozen(self, job: Job) -> None:
        """Post what an earlier attempt has left."""
        try:
            await self.app.courier.post(job)
        except FileNotFoundError as error:
            if has_begun(job):
                raise JobFailed(Cause.INTERNAL, str(error)) from error
            job.sources = []  # all is posted again

    async def _post_some(
        self, job: Job, fetched: Fetched, fetching: asyncio.Task[Fetched], late: bool
    ) -> bool:
        """Post the messages that are full, while more files come, and if it is late
        also what else there is but the last file; False if that has to wait until all
        are there."""
        paths = fetched.paths[fetched.checked :]
        came = [MediaFile(path, size_of(path), "", "") for path in paths]
        *parts, rest = self.app.courier.split(came) or [[]]
        for some in [*parts, rest[:-1]] if late else parts:
            names = [one.name for one in some if one.path.parent == fetched.folder]
            if fetching.done() or not some or len(names) < len(some):
                return True
            part = await self.app.storage.set_apart(job, names)
            before, lost = len(fetched.files), len(fetched.failures)
            await self._inspect(job, fetched, part, len(some))
            new = fetched.files[before:]
            if new:
                try:
                    await self._freeze(job, fetched, new, part, lambda progress: None)
                except Later:  # these, too, go with the rest
                    del fetched.files[before:], fetched.failures[lost:]
                    fetched.checked -= len(some)
                    return False
                await self.app.courier.post(job)
        return True

    async def _freeze(
        self,
        job: Job,
        fetched: Fetched,
        files: Sequence[MediaFile],
        folder: Path,
        on_progress: Callable[[Progress], None],
    ) -> None:
        """Process and keep files of a job, and decide on their messages."""
        job.limit_bytes = await self.app.courier.limit_bytes(job)
        processing = self._process(job, files, folder, on_progress)
        if job.status is Status.PROCESSING:
            processing = self._storing_status(job, processing)
        processed = await processing
        kept = await self.app.storage.keep(job, processed)
        if not job.sources:
            job.file_count = job.total_bytes = 0
        job.file_count += len(kept)
        job.total_bytes += sum(file.size for file in kept)
        await self.app.courier.freeze(job, kept, fetched)
        job.sources = job.sources + [source_of(file) for file in files]
        # With one message, nothing is there until all is; else the rest must be kept.
        if job.status is Status.DOWNLOADING or len(job.posts) > 1:
            await self.app.storage.sync(job)

    def _report(self, job: Job) -> Callable[[Progress], None]:
        """What passes a job's progress on to the queue."""
        reporting: asyncio.Task[None] | None = None

        async def pass_on(progress: Progress) -> None:
            with contextlib.suppress(Exception):  # it may be lost
                await self.app.queue.report(job, progress)

        def report(progress: Progress) -> None:
            nonlocal reporting
            if reporting is None or reporting.done():
                reporting = asyncio.create_task(pass_on(progress))

        return report

    async def complete(
        self, job: Job, on_progress: Callable[[Progress], None]
    ) -> Fetched:
        """See ``Worker``."""
        while True:
            job.attempts += 1
            try:
                fetched = await self.fetch(job, on_progress)
                fetched.files = await self._process(
                    job, fetched.files, fetched.folder, on_progress
                )
                self._tries.pop(job.id, None)
                return fetched
            except JobFailed as error:
                if (wait_s := await self._retry_in(job, error)) is None:
                    raise self._told(job, error) from error
                await asyncio.sleep(wait_s)

    async def fetch(self, job: Job, on_progress: Callable[[Progress], None]) -> Fetched:
        """See ``Worker``."""
        fetched = await self._download(job, on_progress, lambda so_far: None)
        await self._inspect_all(job, fetched)
        return fetched

    async def _download(
        self,
        job: Job,
        on_progress: Callable[[Progress], None],
        on_file: Callable[[Fetched], None],
    ) -> Fetched:
        platform = self._platform(job)
        storage = self.app.storage
        folder, cache = await asyncio.gather(
            storage.attempt_folder(job), storage.cache_folder(job.platform)
        )
        if kept := await self._kept(job, folder / "files"):
            return kept
        request = await self._request(job, platform, folder, cache)

        def came(so_far: Fetched) -> None:
            job.engine = request.engine
            if logs_in(request):
                so_far.facts["login"] = True
            if leads_to := self._leads_to(job, so_far.facts):
                job.facts["leads_to"] = leads_to  # known while it is under way
            on_file(so_far)

        try:
            fetched = await self.app.runner.fetch(request, on_progress, came)
            if logs_in(request):
                fetched.facts["login"] = True
            return fetched
        except JobFailed as error:
            if str(error) != SENTENCES[error.cause]:
                raise
            named = named_reason(error.cause, error.detail)
            if error.cause is Cause.UNSUPPORTED:
                named = unsupported(job.url)
            wait_s = error.retry_after_s
            raise JobFailed(error.cause, error.detail, named, wait_s) from error
        finally:  # sites also rotate cookies on pages of failure
            job.engine = request.engine
            if request.cookies_file:
                await asyncio.to_thread(keep_cookies, platform, request.cookies_file)

    async def _kept(self, job: Job, folder: Path) -> Fetched | None:
        """What is kept of an earlier job for the same link, if that may be posted for
        this one and would be fetched in the same form."""
        with contextlib.suppress(OSError):
            named = job.options.get("kept")
            kept = await self.app.queue.get(str(named)) if named else None
            if kept and may_serve(kept, job):
                paths = await self.app.storage.copy_kept(kept, folder)
                job.engine = kept.engine
                fetched = Fetched(paths, {**kept.facts}, folder=folder)
                for post in kept.posts:
                    fetched.alts |= post.alts
                    fetched.notes |= post.notes
                return fetched
        return None

    async def _inspect_all(self, job: Job, fetched: Fetched) -> None:
        """Inspect all files; raises JobFailed when there is neither one nor text."""
        left = len(fetched.paths) - fetched.checked
        await self._inspect(job, fetched, fetched.folder, left)
        if fetched.failures:
            job.facts["lost"] = len(fetched.failures)
        if not fetched.files and not fetched.facts.get("text"):
            failures = fetched.failures or [JobFailed(Cause.NO_MEDIA)]
            raise failures[0]

    async def _inspect(
        self, job: Job, fetched: Fetched, folder: Path, count: int
    ) -> None:
        """Inspect the next files, which are in a folder, and take over the facts."""
        for path in fetched.paths[fetched.checked :][:count]:
            if folder != fetched.folder:
                path = folder / path.name
            try:
                file = await self.app.storage.inspect(path, folder)
                alt = fetched.alts.get(path.name, "")
                note = fetched.notes.get(path.name) or self._note(
                    job, file, fetched.facts
                )
                fetched.files.append(dataclasses.replace(file, alt=alt, note=note))
            except JobFailed as error:
                fetched.failures.append(error)
            except OSError as error:
                failed = JobFailed(Cause.NO_MEDIA, f"{path.name}: {error}")
                fetched.failures.append(failed)
            fetched.checked += 1
        facts = fetched.facts
        if "leads_to" in facts:
            facts["leads_to"] = self._leads_to(job, facts)
        if job.sources and job.facts.get("login"):  # of the posted files
            facts["login"] = True
        job.facts = {name: facts[name] for name in STORED_FACTS if facts.get(name)}

    def _leads_to(self, job: Job, facts: dict[str, Any]) -> str:
        """The link that a short link has led to, normalised; "" if it is not one of the
        same site. Only of a short link the child's word is taken: what it says comes
        before it reads anything that strangers have made."""
        told, short = str(facts.get("leads_to") or ""), self._platform(job).short
        if not told or not short or not re.match(short, job.url, re.IGNORECASE):
            return ""
        with contextlib.suppress(Refused):
            url, name, _engine = self.app.router.route(told)
            if name == job.platform and not re.match(short, url, re.IGNORECASE):
                return url
        return ""

    def _note(self, job: Job, file: MediaFile, facts: dict[str, Any]) -> str:
        """How a video was chosen to fit, if it is the only one; else ""."""
        side, best = (round(facts.get(name) or 0) for name in ("side", "best_side"))
        alone = file.mime.startswith("video/") and (facts.get("items") or 1) == 1
        if not alone or not 0 < side < best:
            return ""
        limit = format_size(job.limit_bytes or int(self.app.settings.max_file_size))
        text = _("{side}p instead of {best}p to fit {limit}")
        return text.format(side=side, best=best, limit=limit)

    def _platform(self, job: Job) -> Platform:
        platforms = self.app.plugins.registered("platforms")
        return cast(Platform, platforms.get(job.platform, NO_PLATFORM))

    async def _request(
        self, job: Job, platform: Platform, folder: Path, cache: Path
    ) -> Request:
        """The engine's request for a job."""
        settings = self.app.settings
        cookies, options = None, platform.options
        if job.options.get("thread"):
            options = {**options, **platform.thread_options}
        if has_login(job, platform) and not self._tries.get(job.id, Tries()).refused:
            path = folder / "home" / "cookies.txt"
            cookies = await asyncio.to_thread(write_cookies, platform, path)
        return Request(
            url=job.url,
            folder=folder / "files",
            prefix=f"{job.id}_{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}_temp",
            engine=job.engine,
            platform=job.platform,
            options=job.options,
            engine_options=options,
            cookies_file=cookies,
            cache_dir=cache,
            proxy=platform.proxy,
            sleep_request_s=platform.sleep_request_s,
            timeout_s=self.config.download_timeout_s,
            max_items=settings.max_items,
            max_file_bytes=int(settings.max_download_size),
            max_job_bytes=int(settings.max_job_size),
            target_bytes=job.limit_bytes or int(settings.max_file_size),
            failures=platform.failures,
        )

    async def _process(
        self,
        job: Job,
        files: Sequence[MediaFile],
        folder: Path,
        on_progress: Callable[[Progress], None],
    ) -> list[MediaFile]:
        """The results of the ``process_files`` hooks for files in a folder."""
        bench = JobBench(self.app, job, folder, on_progress, self._encoders)
        try:
            processed = await self.app.plugins.fold(
                "process_files", "files", job=job, files=[*files], bench=bench
            )
            return with_alts(processed, files)
        except Refused as error:
            raise JobFailed(error.cause, message=str(error)) from error

    async def _retry_in(self, job: Job, error: JobFailed) -> float | None:
        """Seconds until a failed attempt is worth another one, which may be with another
        engine, then set in the job; None when it is not."""
        tries = self._tries.setdefault(job.id, Tries())
        tries.engines.append(job.engine)
        tries.errors.append(error)
        if job.attempts >= MAX_TRIES:
            return None
        # With a login that has expired, sites also refuse what everybody may see.
        login = error.cause is Cause.LOGIN and has_login(job, self._platform(job))
        if login and not tries.refused:
            tries.refused = error
            logger.bind(job=job.id).warning(
                "{} refused the login; the next try is without it", job.platform
            )
            return 0
        if (asked_s := error.retry_after_s) is not None:
            tries.asked_s += max(asked_s, 0)
            if tries.asked_s > self.max_retry_wait_s:
                return None
            longest_s = self.retry_wait_s * 4 ** (job.attempts - 1)
            return max(asked_s, 0) + random.uniform(longest_s / 2, longest_s)
        if job.sources:  # another engine would name the files otherwise
            return None
        return 0 if await self._other_engine(job, error, tries) else None

    async def _other_engine(self, job: Job, error: JobFailed, tries: Tries) -> bool:
        """Give a job to another engine, if one may do better."""
        if not job.engine:  # all were asked
            return False
        may_be_wrong = error.cause in GUESSES and not job.platform
        if error.cause not in NO_ANSWERS and not may_be_wrong:
            return False
        how = {} if error.cause in NO_ANSWERS else {"after_guess": True}
        engine = ""
        with contextlib.suppress(JobFailed, OSError):  # a TimeoutError is one
            supports = self.app.runner.supports
            (engine,) = await supports([job.url], without=job.engine, **how)
        if not engine or engine in tries.engines:
            return False
        job.engine = engine
        return True

    def _told(self, job: Job, error: JobFailed) -> JobFailed:
        """The failure to report when there is no further try: that of an earlier engine
        when the last one had nothing to say on the link, or that of the login."""
        tries = self._tries.pop(job.id, Tries())
        if tries.refused:
            return tries.refused
        if str(error) in (SENTENCES[Cause.UNSUPPORTED], unsupported(job.url)):
            return next((e for e in tries.errors if e.cause is not error.cause), error)
        return error

    async def _broken(self, job: Job, error: Exception) -> None:
        """End a job that failed by a mistake of ours, or a full disk. What was out of
        reach is asked again by another attempt."""
        if isinstance(error, OutOfReach):
            await self._release(job, self.insist_s)
            return
        log = logger.bind(job=job.id, guild=job.guild_id, user=job.user_id)
        log.exception("the job failed")
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        cause = Cause.DISK_FULL if full else Cause.INTERNAL
        await self._end(job, Status.FAILED, JobFailed(cause, repr(error)))

    async def _post(self, job: Job) -> bool:
        """Post a job's frozen messages; takes no download slot. Whether that ended it."""
        task = asyncio.current_task()
        assert task
        self._posting.add(task)
        task.add_done_callback(self._posting.discard)
        try:
            async with self._leased(job):
                if job.crashes >= MAX_CRASHES:
                    raise too_many_crashes(job)
                job.crashes += 1  # stored with the first post that is sent
                await self.app.courier.post(job)
        except JobFailed as error:
            log_failure(job, error)
            return await self._end(job, Status.FAILED, error)
        except FileNotFoundError as error:
            if has_begun(job) or job.attempts >= MAX_TRIES:
                failed = JobFailed(Cause.INTERNAL, str(error))
                log_failure(job, failed)
                return await self._end(job, Status.FAILED, failed)
            logger.bind(job=job.id).warning("downloaded again, since {}", error)
            job.sources = []
            await self._release(job)
        except asyncio.CancelledError:  # the bot stops, or the claim was lost
            job.crashes = 0  # that was no crash
            await self._insist(partial(self.app.queue.save, job, self.lease_s), job)
        except Exception as error:  # the boundary of a job
            await self._broken(job, error)
        else:
            return await self._end(job, Status.COMPLETED)
        return False


def logs_in(request: Request) -> bool:
    """Whether a download goes with an account of the owner's: by cookies, or by options
    of the engine."""
    return bool(request.cookies_file) or any(names_login(request.engine_options))


def names_login(options: Mapping[str, Any]) -> Iterator[bool]:
    """Whether each option that has a value is for a login."""
    for name, value in options.items():
        yield bool(value and LOGIN.search(str(name)))
        if isinstance(value, Mapping):
            yield from names_login(value)


def has_login(job: Job, platform: Platform) -> bool:
    """Whether a job goes with its platform's cookies. Not with another engine than the
    platform's: that may follow the link to another site."""
    cookies = platform.cookies_file or any(platform.cookies.values())
    return bool(cookies) and job.engine == platform.engine_for(job.url)


def with_alts(
    processed: Sequence[MediaFile], files: Sequence[MediaFile]
) -> list[MediaFile]:
    """Processed files with what can be seen on those they were made of, in whose names
    theirs end, and how those were chosen."""
    known = {source_of(file)[0]: file for file in files}
    return [
        dataclasses.replace(file, alt=file.alt or of.alt, note=file.note or of.note)
        for file, of in ((one, known.get(source_of(one)[0], one)) for one in processed)
    ]


def size_of(path: Path) -> int:
    """A file's bytes, 0 if it is gone."""
    with contextlib.suppress(OSError):  # seen when it is inspected
        return path.lstat().st_size
    return 0


def left_s(fetched: Fetched, took_s: float) -> float:
    """How long the missing files will take, as far as their number is known, by the time
    since the first one."""
    came, items = len(fetched.paths), fetched.facts.get("items") or 0
    return max(items - came, 0) * took_s / max(came - 1, 1) if items else math.inf


def posted_of(job: Job) -> str:
    """How many of a job's files were posted, as a sentence without its end."""
    posted, total = job.posted, max(job.facts.get("items") or 0, job.file_count)
    if total > posted:
        text = _("{count} of {total} files were posted")
    else:
        text = ngettext("{count} file was posted", "{count} files were posted", posted)
    return text.format(count=posted, total=total)


def has_begun(job: Job) -> bool:
    """Whether something of a job is there; not only the message that has its thread."""
    in_thread = any(post.thread_id is not None for post in job.posts)
    return any(p.state == "sent" and (p.files or not in_thread) for p in job.posts)


def source_of(file: MediaFile) -> list[str]:
    """The end of a downloaded file's name, which is its place in the post, and its
    SHA-256."""
    return [file.path.stem.rpartition("_")[2], file.sha256]


def not_posted(
    files: Sequence[MediaFile], sources: Sequence[Sequence[str]]
) -> list[MediaFile]:
    """The downloaded files that are not among the sources of a job's posts. The post may
    have changed since, so a file is known by what it holds, and by its place where the
    site has it no more in that form."""
    left, new = [*sources], list[MediaFile]()
    for file in files:
        if same := next((one for one in left if one[1] == file.sha256), None):
            left.remove(same)
        else:
            new.append(file)
    places = [place for place, _ in left]
    return [file for file in new if source_of(file)[0] not in places]


def log_failure(job: Job, error: JobFailed) -> None:
    log = logger.bind(job=job.id, guild=job.guild_id, user=job.user_id)
    log.info("failed: {} {} ({})", error.cause, public_url(job), error.detail)


def too_many_crashes(job: Job) -> JobFailed:
    return JobFailed(
        Cause.INTERNAL,
        f"{job.crashes} attempts ended with the bot",
        N_("The bot stopped each time it tried this link, so it gave up."),
    )
