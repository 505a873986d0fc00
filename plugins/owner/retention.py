"""Keeps the disk from filling up: deletes old files, refuses links when space is low,
and ends running downloads before the disk is full."""

import asyncio
import heapq
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from bossbot_plugins._figures import gauge
from bossbot_plugins._shared import shared_queue
from loguru import logger
from pydantic import ByteSize, Field

from bossbot import (
    ATTEMPT_STATUSES,
    SENTENCES,
    TERMINAL_STATUSES,
    App,
    Cause,
    Job,
    JobFailed,
    PluginConfig,
    Refused,
    Settings,
    Status,
    Stored,
    _,
    format_size,
    hookimpl,
    now,
)


class Config(PluginConfig):
    """[plugins.retention] in config.toml; 0 means no limit, or for ever."""

    max_temp_storage: ByteSize = Field(
        ByteSize(2**30),
        description="limit for running downloads; above it, links are refused",
    )
    max_storage: ByteSize = Field(
        ByteSize(5 * 2**30),
        description="limit for kept files; above it, the oldest are deleted",
    )
    min_free_space: ByteSize = Field(
        ByteSize(500 * 2**20),
        description="free disk space; below it, links are refused and downloads end",
    )
    temp_retention_s: float = Field(
        3600, ge=0, description="how long leftovers of downloads are kept"
    )
    completed_retention_s: float = Field(
        86400, ge=0, description="how long posted files are kept"
    )
    failed_retention_s: float = Field(
        21600,
        ge=0,
        description="how long files that could not be posted are kept",
    )
    temp_scan_interval_s: float = Field(
        300, ge=1, description="time between two sweeps of leftovers"
    )
    main_scan_interval_s: float = Field(
        3600, ge=1, description="time between two sweeps of kept files"
    )


# The room is looked at again some times before it can be gone, at 2 GiB/s.
LEFT_BYTES_S = 8 * 2**30
MIN_LOOK_S, MAX_LOOK_S = 0.005, 1.0

ORPHAN_S = 86400.0  # that files without a job are kept where others stay for ever
PAGE = 100  # jobs that are asked for at once
MAX_OLDEST = 5000  # remembered in one walk, to be removed when there are too many
MAX_WALKS = 100  # in one sweep

_kept_bytes = 0  # as the last walk found them


@hookimpl
async def run(app: App, config: Config) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(repeat(config.temp_scan_interval_s, sweep_temp, app, config))
        every_s = config.main_scan_interval_s
        tasks.create_task(repeat(every_s, sweep_downloads, app, config))
        tasks.create_task(forget_with_others(app))
        if config.min_free_space:
            tasks.create_task(keep_room(app, config))


def room(settings: Settings, config: Config) -> int:
    """The free bytes above the floor; below it, or without a disk, a negative number."""
    try:
        free = shutil.disk_usage(settings.data_dir).free
    except FileNotFoundError:  # it is not mounted any more
        return -1
    return free - int(config.min_free_space)


async def keep_room(app: App, config: Config) -> None:
    """End running downloads and programs when there is no more room for them."""
    while True:
        left = room(app.settings, config)
        if left < 0 and (ended := app.runner.end_all(JobFailed(Cause.DISK_FULL))):
            logger.warning(
                "the disk is full: {} downloads or programs were ended", ended
            )
        await asyncio.sleep(min(max(abs(left) / LEFT_BYTES_S, MIN_LOOK_S), MAX_LOOK_S))


def check_room(settings: Settings, config: Config) -> None:
    if room(settings, config) < 0:
        raise Refused(_(SENTENCES[Cause.DISK_FULL]))


@hookimpl
def register_metrics(registry: Any, settings: Settings) -> None:
    data = settings.data_dir

    def bytes_of() -> dict[str, float]:
        found: dict[str, float] = {"kept": _kept_bytes}
        for kind, pattern in (("database", "bossbot.db*"), ("log", "logs/*")):
            found[kind] = sum(file.stat().st_size for file in data.glob(pattern))
        return found

    text = "Kept files as the last sweep found them, the database, and the log"
    registry.register(gauge("bossbot_storage_bytes", text, ("kind",), bytes_of))
    text, free = "What is free on its disk", lambda: shutil.disk_usage(data).free
    registry.register(gauge("bossbot_storage_free_bytes", text, (), free))


@hookimpl
async def check_claim(app: App, config: Config) -> None:
    check_room(app.settings, config)
    most, claimed = int(app.settings.max_job_size), app.worker.running
    if (len(claimed) + 1) * most <= room(app.settings, config):
        return  # for all of them, whatever they do
    here = await app.queue.find([*claimed])
    running = [job for job in here.values() if job.status in ATTEMPT_STATUSES]
    if running:  # else a small disk would take no link at all
        taken = await app.storage.attempts_bytes([job.id for job in running])
        reserved = max(len(running) * most - taken, 0)
        if reserved + most > room(app.settings, config):
            raise Refused(
                _("Running downloads may need the room that is left on the disk.")
            )


@hookimpl
async def check_job(job: Job, app: App, config: Config) -> None:
    check_room(app.settings, config)
    limit, running = config.max_temp_storage, app.worker.running
    if limit and running and await app.storage.attempts_bytes(running) > limit:
        raise Refused(_("Too much is being downloaded at once. Try again in a minute."))


async def forget_with_others(app: App) -> None:
    """Remove this machine's files of jobs that another one has forgotten."""
    if not (queue := shared_queue(app)):
        return
    async for job in queue.forgotten():
        with logger.catch(message="files of a forgotten job could not be removed"):
            await app.storage.forget(job)


async def repeat(
    interval_s: float,
    sweep: Callable[[App, Config], Awaitable[Any]],
    app: App,
    config: Config,
) -> None:
    while True:
        with logger.catch(message="a sweep failed"):  # the next one must come
            await sweep(app, config)
        await asyncio.sleep(interval_s)


async def sweep_temp(app: App, config: Config) -> int:
    """Remove leftovers of downloads that are no longer under way; returns how many."""
    removed = 0
    if not config.temp_retention_s:
        return removed
    async for stored, job in _with_jobs(app, app.storage.leftovers()):
        idle = job is None or job.status in (*TERMINAL_STATUSES, Status.QUEUED)
        if idle and age_s(stored) > config.temp_retention_s:
            # A job that waits may start at this moment, with the next claim number.
            waits = job is not None and job.status is Status.QUEUED
            before = job.claim_number if job and waits else None
            await app.storage.remove(stored, before)
            removed += 1
    return removed


async def sweep_downloads(app: App, config: Config) -> int:
    """Remove the kept files that are too old, and the oldest when there are too many.
    Returns how many jobs lost their files."""
    removed = 0
    for _number in range(MAX_WALKS):
        more, again = await _walk(app, config)
        removed += more
        if not again:
            break
    return removed


async def _walk(app: App, config: Config) -> tuple[int, bool]:
    """Go through the kept files once. Returns how many jobs lost theirs, and whether
    another walk would remove more."""
    global _kept_bytes
    oldest: list[tuple[float, int, Stored, bool]] = []  # a heap, the youngest first
    jobs: Counter[int] = Counter()  # with kept files, by guild
    sizes: Counter[int] = Counter()
    removed = number = 0
    async for stored, job in _with_jobs(app, app.storage.kept()):
        jobs[stored.guild_id] += 0
        if job and job.status not in TERMINAL_STATUSES:
            continue  # it is being posted
        limit_s: float = config.completed_retention_s
        if job is None:
            limit_s = config.failed_retention_s or ORPHAN_S
        elif job.status is not Status.COMPLETED:
            limit_s = config.failed_retention_s
        # Else another machine has taken the job over, and its row is about that one's.
        mine = job is not None and (
            not app.queue.shared or job.worker == app.worker.name
        )
        named = job is not None and bool(job.folder) and mine
        age = now() - job.finished_at if job and named else age_s(stored)
        # A job that names no files: a sweep was cut short here.
        cut_short = job is not None and not job.folder
        if cut_short or (limit_s and age > limit_s):
            await forget(app, stored, named)
            removed += 1
            continue
        jobs[stored.guild_id] += 1
        sizes[stored.guild_id] += stored.size_bytes
        number += 1  # decides between equals
        keep_or_drop = heapq.heappush if number <= MAX_OLDEST else heapq.heappushpop
        keep_or_drop(oldest, (age, number, stored, named))

    def too_many() -> bool:
        over = config.max_storage and sizes.total() > config.max_storage
        return bool(over) or room(app.settings, config) < 0

    oldest.sort()
    too_old = removed
    while oldest and too_many():
        _, _, stored, named = oldest.pop()
        await forget(app, stored, named)
        removed += 1
        jobs[stored.guild_id] -= 1
        sizes[stored.guild_id] -= stored.size_bytes
    await write_notes(app, jobs, sizes)
    _kept_bytes = sizes.total()
    total = format_size(sizes.total())
    logger.info("maintenance: files of {} jobs removed, {} kept", removed, total)
    # What is removed may free nothing, if it was shared.
    return removed, removed > too_old


async def _with_jobs(
    app: App, found: AsyncIterator[Stored]
) -> AsyncIterator[tuple[Stored, Job | None]]:
    """Files and their jobs, which are asked for some at a time."""
    page: list[Stored] = []
    async for stored in found:
        page.append(stored)
        if len(page) == PAGE:
            for pair in await _jobs_of(app, page):
                yield pair
            page = []
    for pair in await _jobs_of(app, page):
        yield pair


async def _jobs_of(app: App, page: list[Stored]) -> list[tuple[Stored, Job | None]]:
    jobs = await app.queue.find([stored.job_id for stored in page])
    return [(stored, jobs.get(stored.job_id)) for stored in page]


async def forget(app: App, stored: Stored, named: bool) -> None:
    """Remove a job's files. Its row forgets them first, if it names them, so that a
    crash between leaves a folder without a row, which the next sweep removes."""
    if named:
        await app.queue.forget_files(stored.job_id)
    await app.storage.remove(stored)


async def write_notes(app: App, jobs: Counter[int], sizes: Counter[int]) -> None:
    """Leave .stats and .cleanup beside each guild's kept files, also where the last of
    them has just gone."""
    for guild_id in jobs:
        stats = {"kept_jobs": jobs[guild_id], "kept_bytes": sizes[guild_id]}
        await app.storage.note(guild_id, ".stats", stats)
        await app.storage.note(guild_id, ".cleanup", {"swept_at": round(now())})


def age_s(stored: Stored) -> float:
    """How long ago a folder changed. Files carry the time of the clock on the wall,
    which may have been set since: of two ages, the smaller."""
    return min(now(), time.time()) - stored.changed_at
