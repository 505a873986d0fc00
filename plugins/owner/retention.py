"""Keeps the disk from filling up: sweeps what is old, refuses links when it is full."""

import asyncio
import contextlib
import json
import os
import shutil
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from loguru import logger

from bossbot import (
    TERMINAL_STATUSES,
    BossBot,
    Job,
    Pipeline,
    Refused,
    Settings,
    Status,
    format_size,
    hookimpl,
    now,
    write_atomically,
)

_tasks: list[asyncio.Task[None]] = []


@hookimpl
async def bot_started(bot: BossBot, settings: Settings) -> None:
    pipeline = bot.pipeline
    _tasks.append(_repeat(settings.temp_scan_interval_s, sweep_temp, pipeline))
    _tasks.append(_repeat(settings.main_scan_interval_s, sweep_downloads, pipeline))


@hookimpl
async def bot_stopping(bot: BossBot) -> None:
    while _tasks:
        _tasks.pop().cancel()


@hookimpl
def check_job(job: Job, settings: Settings) -> None:
    data = settings.data_dir
    if shutil.disk_usage(data).free < settings.min_free_space:
        raise Refused("The bot's disk is full. Ask the bot's owner to make room.")
    limit = settings.max_temp_storage
    if limit and size_of(data / "temp") > limit:
        raise Refused("Too much is being downloaded at once. Try again in a minute.")


def _repeat(
    interval_s: float, sweep: Callable[[Pipeline], Awaitable[Any]], pipeline: Pipeline
) -> asyncio.Task[None]:
    async def forever() -> None:
        while True:
            try:
                await sweep(pipeline)
            except Exception:  # the next sweep must come
                logger.exception("a sweep failed")
            await asyncio.sleep(interval_s)

    return asyncio.create_task(forever())


async def sweep_temp(pipeline: Pipeline) -> int:
    """Remove leftovers of downloads that are no longer under way; returns how many."""
    settings = pipeline.settings
    removed = 0
    if not settings.temp_retention_s:
        return removed
    for path in await asyncio.to_thread(_entries, settings.data_dir / "temp"):
        job = await pipeline.queue.get(path.name)
        idle = job is None or job.status in (*TERMINAL_STATUSES, Status.QUEUED)
        if idle and await asyncio.to_thread(_age_s, path) > settings.temp_retention_s:
            await asyncio.to_thread(_remove_attempts, path, job)
            removed += 1
    return removed


def _remove_attempts(path: Path, job: Job | None) -> None:
    """Remove what the attempts so far left, but not the folder of one that the job
    starts at this moment: it has the next number."""
    if job is None or job.status is not Status.QUEUED or path.is_symlink():
        remove(path)
        return
    for attempt in _entries(path):
        if attempt.name.isdigit() and int(attempt.name) <= job.fence:
            remove(attempt)


async def sweep_downloads(pipeline: Pipeline) -> int:
    """Remove the kept files that are too old, and the oldest when there are too many;
    the rows stay. Returns how many jobs lost their files."""
    settings = pipeline.settings
    kept: list[tuple[float, int, Path, Job | None]] = []  # since when, bytes
    removed = total = 0
    async for folder, job in _kept_folders(pipeline):
        if job and job.status not in TERMINAL_STATUSES:
            continue  # it is being posted
        limit_s: float = settings.completed_retention_s
        if job is None or job.status is not Status.COMPLETED:
            limit_s = settings.failed_retention_s
        age_s = await asyncio.to_thread(_age_s, folder)
        if job and job.folder:
            age_s = now() - job.finished_at
        # A row without its folder: a sweep was cut short here.
        cut_short = job is not None and not job.folder
        if cut_short or (limit_s and age_s > limit_s):
            await _forget(pipeline, folder, job)
            removed += 1
        else:
            size = await asyncio.to_thread(size_of, folder)
            kept.append((-age_s, size, folder, job))
            total += size
    for _, size, folder, job in sorted(kept, key=lambda one: one[0]):
        full = shutil.disk_usage(settings.data_dir).free < settings.min_free_space
        if not full and (not settings.max_storage or total <= settings.max_storage):
            break
        await _forget(pipeline, folder, job)
        removed += 1
        total -= size
    await _write_stats(pipeline, removed)
    return removed


async def _forget(pipeline: Pipeline, folder: Path, job: Job | None) -> None:
    """Remove a job's files: first in the row, so that a crash between leaves a folder
    that its row does not name, which the next sweep removes."""
    if job and job.folder:
        await pipeline.queue.patch(job.id, folder="")
        job.folder = ""
    await asyncio.to_thread(remove, folder)


async def _kept_folders(pipeline: Pipeline) -> AsyncIterator[tuple[Path, Job | None]]:
    """Every downloads/{guild}/{day}/{job}, with its job if there is one."""
    downloads = pipeline.settings.data_dir / "downloads"
    for guild in await asyncio.to_thread(_folders, downloads):
        for day in await asyncio.to_thread(_folders, guild):
            for folder in await asyncio.to_thread(_folders, day):
                yield folder, await pipeline.queue.get(folder.name)
            if _age_s(day) > 60:  # else a job may be about to use it
                with contextlib.suppress(OSError):  # it is not empty
                    day.rmdir()


async def _write_stats(pipeline: Pipeline, removed: int) -> None:
    """Leave .stats and .cleanup in each guild's folder, and a line in the log."""
    counts: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for job in await pipeline.queue.list():
        counts[job.guild_id][job.status] += 1
        counts[job.guild_id]["bytes"] += job.total_bytes
    downloads = pipeline.settings.data_dir / "downloads"

    def write() -> int:
        total = 0
        for folder in _folders(downloads):
            kept = sum(map(size_of, _folders(folder)))
            known = counts.get(int(folder.name) if folder.name.isdigit() else -1, {})
            stats = json.dumps({**known, "kept_bytes": kept})
            write_atomically(folder / ".stats", stats.encode())
            stamp = json.dumps({"swept_at": round(now())})
            write_atomically(folder / ".cleanup", stamp.encode())
            total += kept
        return total

    kept = await asyncio.to_thread(write)
    logger.info(
        "maintenance: files of {} jobs removed, {} kept", removed, format_size(kept)
    )


def _folders(folder: Path) -> list[Path]:
    """Folders in a folder, in order; no links."""
    return [p for p in _entries(folder) if not p.is_symlink() and p.is_dir()]


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, in order."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(folder.iterdir())
    return []


def _age_s(path: Path) -> float:
    """How long ago a path changed. Files have the time of the clock on the wall, which
    may have been set since: of two ages, the smaller."""
    with contextlib.suppress(OSError):
        changed = path.lstat().st_mtime
        return min(now(), time.time()) - changed
    return 0


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder; follows no link."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # files come and go
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def remove(path: Path) -> None:
    """Remove a folder with all that is in it, or a file; a link alone, not what it
    leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
