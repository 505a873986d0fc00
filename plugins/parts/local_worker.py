"""Works on the jobs: claims them from the queue, downloads, processes and posts."""

import asyncio
import contextlib
import errno
import os
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

from loguru import logger

from bossbot import (
    SENTENCES,
    Cause,
    Download,
    Job,
    JobFailed,
    MediaFile,
    Pipeline,
    Progress,
    Status,
    Worker,
    hookimpl,
    now,
    one_line,
    public_url,
    unsupported,
)

LEASE_S = 60.0
MAX_CRASHES = 3
MAX_RETRY_WAIT_S = 60.0


@hookimpl(trylast=True)  # any other worker is there because the host wants it
def register_worker(pipeline: Pipeline) -> Worker:
    return LocalWorker(pipeline)


class LocalWorker:
    """The ``Worker`` in the bot's own process."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.running: dict[str, asyncio.Task[None]] = {}
        self.stopping = False
        self._claiming = asyncio.Lock()
        self._dispatcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """See ``Worker``."""
        queue = self.pipeline.queue
        for job in await queue.recover():
            await self.pipeline.announce(job, None)
        for job in await queue.list(statuses=[Status.QUEUED, Status.UPLOADING]):
            if job.crashes >= MAX_CRASHES:
                error = JobFailed(
                    Cause.INTERNAL,
                    f"{job.crashes} attempts ended with the bot",
                    "The bot stopped each time it tried this link, so it gave up.",
                )
                await self._end(job, Status.FAILED, error)
        for job in await queue.list(statuses=[Status.UPLOADING]):
            self._spawn(job, self._post(job))
        self._dispatcher = asyncio.create_task(self._dispatch())

    async def stop(self, grace_s: float) -> None:
        """See ``Worker``."""
        self.stopping = True
        async with self._claiming:  # what is being claimed is known then
            if self._dispatcher:
                self._dispatcher.cancel()
        uploads = {}
        for job_id, task in list(self.running.items()):
            job = await self.pipeline.queue.get(job_id)
            if job and job.status is Status.UPLOADING:
                uploads[job_id] = task
            else:
                task.cancel()
        if uploads:
            await asyncio.wait(list(uploads.values()), timeout=grace_s)
        for job_id, task in uploads.items():  # the others are giving their jobs back
            if task.cancel():
                with logger.catch(message="this stop will count as a crash"):
                    await self.pipeline.queue.patch(job_id, crashes=0)
        if self.running:
            await asyncio.wait(list(self.running.values()), timeout=3)

    async def _dispatch(self) -> None:
        """Claim jobs when there is room, and end those that were cancelled."""
        async for job_id in self.pipeline.queue.changes():
            with logger.catch(message="dispatch failed"):
                job = await self.pipeline.queue.get(job_id) if job_id else None
                if job and job.status is Status.CANCELLED:
                    if task := self.running.get(job.id):
                        task.cancel()
                    await self.pipeline.announce(job, None)
                await self.wake()

    async def wake(self) -> None:
        """See ``Worker``."""
        async with self._claiming:
            while not self.stopping:
                job = await self.pipeline.queue.claim(self.name, LEASE_S)
                if not job:
                    return
                self._spawn(job, self._work(job))

    def _spawn(self, job: Job, work: Any) -> None:
        task = asyncio.create_task(work)
        self.running[job.id] = task

        def done(_: Any) -> None:
            if self.running.get(job.id) is task:
                del self.running[job.id]

        task.add_done_callback(done)

    async def _set(self, job: Job, status: Status) -> None:
        """Commit a status, then announce it.

        Raises:
            JobFailed: another attempt has the job now.
        """
        previous, job.status = job.status, status
        if not await self.pipeline.queue.renew(job, LEASE_S):
            raise JobFailed(Cause.CANCELLED, "the lease was lost")
        await self.pipeline.announce(job, previous)

    async def _end(
        self, job: Job, status: Status, error: JobFailed | None = None
    ) -> None:
        """Commit how a job ended, then announce it."""
        previous, job.status, job.finished_at = job.status, status, now()
        if error:
            job.cause, job.error, job.detail = error.cause, str(error), error.detail
        await asyncio.to_thread(self.pipeline.storage.forget_attempt, job)
        if await self._insist(self.pipeline.queue.finish, job):
            await self.pipeline.announce(job, previous)

    async def _insist(self, write: Callable[[Job], Awaitable[bool]], job: Job) -> bool:
        """Write a job's state even when it takes a while: a full disk, a lock."""
        while True:
            try:
                return await write(job)
            except Exception as error:  # each queue has its own
                if self.stopping:
                    raise
                logger.bind(job=job.id).error("the state cannot be stored: {}", error)
                await asyncio.sleep(5)

    @contextlib.asynccontextmanager
    async def _leased(self, job: Job) -> AsyncIterator[None]:
        """Keep the lease of a claimed job; give the work up when it is lost."""
        work = asyncio.current_task()

        async def keep() -> None:
            while await self._insist(
                partial(self.pipeline.queue.renew, lease_s=LEASE_S), job
            ):
                await asyncio.sleep(LEASE_S / 3)
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
            if self.stopping:
                await self._release(job)
            await asyncio.to_thread(self.pipeline.storage.forget_attempt, job)
        except Exception as error:  # the boundary of a job: the next one must run
            await self._broken(job, error)
        else:
            if to_post:
                await self._post(job)

    async def _attempt(self, job: Job) -> bool:
        """Whether a job's files are here and wait to be posted; else it has ended, or
        waits for another attempt."""
        await self.pipeline.announce(job, Status.QUEUED)
        try:
            async with self._leased(job):
                download = await self.fetch(job)
                await self._set(job, Status.PROCESSING)
                files = await self.process(job, download.files)
                kept = await asyncio.to_thread(
                    self.pipeline.storage.keep, job, files, download.facts
                )
                job.file_count, job.total_bytes = len(kept), sum(f.size for f in kept)
                await self.pipeline.courier.freeze(job, kept, download)
                job.crashes = 0  # of the download, which is done
                await self._set(job, Status.UPLOADING)
        except JobFailed as error:
            await self._failed(job, error)
            return False
        return True

    async def attempt(self, job: Job, tell: Callable[[Progress], None]) -> Download:
        """See ``Worker``."""
        try:
            download = await self.fetch(job, tell)
        except JobFailed as error:
            wait_s = await self._second_try_in(job, error)
            if wait_s is None:
                raise
            await asyncio.sleep(wait_s)
            download = await self.fetch(job, tell)
        download.files = await self.process(job, download.files)
        return download

    async def fetch(
        self, job: Job, tell: Callable[[Progress], None] | None = None
    ) -> Download:
        """``Runner.fetch``; sets the job's title. Progress goes to the plugins, unless
        ``tell`` takes it."""
        tell = tell or self._tell_progress(job)
        try:
            download = await self.pipeline.runner.fetch(job, tell)
        except JobFailed as error:
            if str(error) != SENTENCES[Cause.UNSUPPORTED]:
                raise
            named = unsupported(job.url)
            raise JobFailed(error.cause, error.detail, named) from error
        job.title = one_line(str(download.facts.get("title") or ""))[:300]
        return download

    def _tell_progress(self, job: Job) -> Callable[[Progress], None]:
        """What passes a job's progress on to the plugins, leaving out what comes while
        they are still at work on the last one."""
        telling: asyncio.Task[Any] | None = None

        def tell(progress: Progress) -> None:
            nonlocal telling
            if telling is None or telling.done():
                call = self.pipeline.plugins.call(
                    "job_progressed", job=job, progress=progress
                )
                telling = asyncio.create_task(call)

        return tell

    async def process(self, job: Job, files: list[MediaFile]) -> list[MediaFile]:
        """What the ``process_files`` hooks make of a job's files."""
        processed = await self.pipeline.plugins.fold(
            "process_files", "files", job=job, files=files, pipeline=self.pipeline
        )
        return list(processed)

    async def _failed(self, job: Job, error: JobFailed) -> None:
        """Try once more what may pass, or another engine; else end the job."""
        log = logger.bind(job=job.id, guild=job.guild_id, user=job.user_id)
        log.info("failed: {} {} ({})", error.cause, public_url(job), error.detail)
        wait_s = None if self.stopping else await self._second_try_in(job, error)
        if wait_s is None:
            await self._end(job, Status.FAILED, error)
        else:
            await self._release(job, wait_s)

    async def _release(self, job: Job, delay_s: float = 0) -> None:
        """Let a job wait again, then announce it."""
        previous = job.status
        release = partial(self.pipeline.queue.release, delay_s=delay_s)
        if await self._insist(release, job):
            await self.pipeline.announce(job, previous)

    async def _second_try_in(self, job: Job, error: JobFailed) -> float | None:
        """Seconds until a failed first attempt is worth another one, which may be with
        another engine, then set in the job; None when it is not."""
        if job.attempts > 1:
            return None
        if error.retry_after_s is not None and error.retry_after_s <= MAX_RETRY_WAIT_S:
            return error.retry_after_s + random.uniform(1, 3)
        if error.cause in (Cause.UNSUPPORTED, Cause.NO_MEDIA, Cause.INTERNAL):
            runner, engine = self.pipeline.runner, ""
            with contextlib.suppress(JobFailed, OSError):  # a TimeoutError is one
                (engine,) = await runner.supports([job.url], without=job.engine)
            if engine:
                job.engine = engine
                return 0
        return None

    async def _broken(self, job: Job, error: Exception) -> None:
        """End a job that failed by a mistake of ours, or a full disk."""
        log = logger.bind(job=job.id, guild=job.guild_id, user=job.user_id)
        log.exception("the job failed")
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        cause = Cause.DISK_FULL if full else Cause.INTERNAL
        await self._end(job, Status.FAILED, JobFailed(cause, repr(error)))

    async def _post(self, job: Job) -> None:
        """Post a job's frozen messages; holds no download slot."""
        try:
            await self.pipeline.courier.post(job)
        except JobFailed as error:
            await self._end(job, Status.FAILED, error)
        except Exception as error:  # the boundary of a job
            await self._broken(job, error)
        else:
            await self._end(job, Status.COMPLETED)
