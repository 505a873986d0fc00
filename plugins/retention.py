"""Keeps the disk from filling up: sweeps what is old, refuses links when it is full."""

import asyncio
import contextlib
import json
import os
import shutil
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
            # The next sweep must come whatever this one met.
            try:
                await sweep(pipeline)
            except Exception:
                logger.exception("a sweep failed")
            await asyncio.sleep(interval_s)

    return asyncio.create_task(forever())


async def sweep_temp(pipeline: Pipeline) -> int:
    """Remove leftovers of downloads that are no longer under way; returns how many."""
    settings = pipeline.settings
    removed = 0
    if not settings.temp_retention_s:
        return removed
    for folder in await asyncio.to_thread(_folders, settings.data_dir / "temp"):
        job = await pipeline.queue.get(folder.name)
        idle = job is None or job.status in (*TERMINAL_STATUSES, Status.QUEUED)
        if idle and await asyncio.to_thread(_age_s, folder) > settings.temp_retention_s:
            await asyncio.to_thread(remove, folder)
            removed += 1
    return removed


async def sweep_downloads(pipeline: Pipeline) -> int:
    """Remove the kept files that are too old, and the oldest when there are too many;
    the rows stay. Returns how many jobs lost their files."""
    settings = pipeline.settings
    kept: list[tuple[float, int, Path, Job | None]] = []
    doomed: list[tuple[Path, Job | None]] = []
    async for folder, job in _kept_folders(pipeline):
        if job and job.status not in TERMINAL_STATUSES:
            continue  # it is being posted
        limit_s = settings.completed_retention_s
        if job is None or job.status is not Status.COMPLETED:
            limit_s = settings.failed_retention_s
        since = job.finished_at if job else await asyncio.to_thread(_changed, folder)
        if limit_s and now() - since > limit_s:
            doomed.append((folder, job))
        else:
            size = await asyncio.to_thread(size_of, folder)
            kept.append((since, size, folder, job))
    total = sum(size for _, size, _, _ in kept)
    for _, size, folder, job in sorted(kept, key=lambda one: one[0]):
        full = shutil.disk_usage(settings.data_dir).free < settings.min_free_space
        if not full and (not settings.max_storage or total <= settings.max_storage):
            break
        doomed.append((folder, job))
        total -= size
        await _forget(pipeline, folder, job)
    for folder, job in doomed:
        await _forget(pipeline, folder, job)
    await _write_stats(pipeline, len(doomed))
    return len(doomed)


async def _forget(pipeline: Pipeline, folder: Path, job: Job | None) -> None:
    """Remove a job's files: first in the row, so that a crash between leaves a folder
    that no row names, which the next sweep removes."""
    if job and job.folder:
        await pipeline.queue.patch(job.id, folder="")
        job.folder = ""
    await asyncio.to_thread(remove, folder)


async def _kept_folders(pipeline: Pipeline) -> AsyncIterator[tuple[Path, Job | None]]:
    """Every downloads/{guild}/{day}/{job}, with its job while the row names it."""
    downloads = pipeline.settings.data_dir / "downloads"
    for guild in await asyncio.to_thread(_folders, downloads):
        for day in await asyncio.to_thread(_folders, guild):
            for folder in await asyncio.to_thread(_folders, day):
                job = await pipeline.queue.get(folder.name)
                named = job and job.folder.endswith(folder.name)
                running = job and job.status not in TERMINAL_STATUSES
                yield folder, job if named or running else None
            with contextlib.suppress(OSError):  # it is not empty
                day.rmdir()


async def _write_stats(pipeline: Pipeline, removed: int) -> None:
    """Leave .stats and .cleanup in each guild's folder, and a line in the log."""
    counts: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for job in await pipeline.queue.list():
        counts[job.guild_id][job.status] += 1
        counts[job.guild_id]["bytes"] += job.total_bytes
    downloads = pipeline.settings.data_dir / "downloads"

    def write() -> None:
        for folder in _folders(downloads):
            stats = {
                **counts.get(int(folder.name) if folder.name.isdigit() else -1, {}),
                "kept_bytes": size_of(folder),
            }
            write_atomically(folder / ".stats", json.dumps(stats).encode())
            stamp = json.dumps({"swept_at": round(now())})
            write_atomically(folder / ".cleanup", stamp.encode())

    await asyncio.to_thread(write)
    kept = await asyncio.to_thread(size_of, downloads)
    logger.info(
        "maintenance: files of {} jobs removed, {} kept", removed, format_size(kept)
    )


def _folders(folder: Path) -> list[Path]:
    """Folders in a folder, in order; no links."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        found = [Path(e.path) for e in entries if e.is_dir(follow_symlinks=False)]
        return sorted(found)
    return []


def _changed(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.lstat().st_mtime
    return now()


def _age_s(path: Path) -> float:
    return now() - _changed(path)


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder; follows no link."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # files come and go
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it; a link alone, not what it leads to."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)
