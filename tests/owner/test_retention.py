"""Retention: what is old goes, rows stay, and a sweep harms nothing else."""

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import PARTS, MakeSettings, link_plugins

import bossbot
from bossbot import Job, App, Plugins, Refused, Status

HOUR_S, DAY_S = 3600, 86400
KIB = 1024

numbers = count(1)


class Host:
    """A bot's folders and rows, and its sweeps."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.data = app.settings.data_dir
        self.module = sys.modules["bossbot_plugins.retention"]

    async def job(
        self,
        status: Status = Status.COMPLETED,
        *,
        age_s: float = 0,
        size: int = 10,
        guild: int = 1,
        kept: bool = True,
    ) -> Job:
        """A row, and the folder of its kept files."""
        number = next(numbers)
        job = Job(
            id=f"{number:010x}",
            url=f"https://a.example/{number}",
            platform="",
            engine="e",
            guild_id=guild,
            channel_id=2,
            user_id=3,
            request_key=f"request:{number}",
            created_at=bossbot.now() - age_s,
        )
        assert await self.app.queue.add(job)
        job.status, job.finished_at = status, bossbot.now() - age_s
        job.total_bytes, job.file_count = size, 1
        if kept:
            folder = self.data / "downloads" / str(guild) / "2026-01-02" / job.id
            write(folder / "content" / "a.jpg", size)
            write(folder / "metadata.json", 0)
            aged(folder, age_s)
            job.folder = str(folder.relative_to(self.data))
        assert await self.app.queue.finish(job)
        return job

    async def stored(self, job: Job) -> Job:
        stored = await self.app.queue.get(job.id)
        assert stored, "the row is gone"
        return stored

    async def has_files(self, job: Job) -> bool:
        """Whether a job's files are there; its row must say the same."""
        folder = self.data / "downloads" / str(job.guild_id) / "2026-01-02" / job.id
        there = (folder / "content" / "a.jpg").exists()
        assert bool((await self.stored(job)).folder) == there == folder.exists()
        return there

    def temp(self, job_id: str, attempt: int = 1, *, age_s: float = 0) -> Path:
        """What an attempt left."""
        write(self.data / "temp" / job_id / str(attempt) / "files" / "x.part", 10)
        return aged(self.data / "temp" / job_id, age_s)

    async def sweep_temp(self) -> int:
        return int(await self.module.sweep_temp(self.app))

    async def sweep(self) -> int:
        return int(await self.module.sweep_downloads(self.app))

    def check(self) -> None:
        """A member pastes a link."""
        job = Job("f" * 10, "", "", "", 1, 2, 3, "")
        self.module.check_job(job, self.app.settings)


def write(path: Path, size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    return path


def aged(path: Path, age_s: float) -> Path:
    """The path, as if it had last changed so long ago."""
    changed = time.time() - age_s
    os.utime(path, (changed, changed), follow_symlinks=False)
    return path


MakeHost = Callable[..., Awaitable[Host]]


@pytest.fixture
async def make_host(make_settings: MakeSettings) -> AsyncIterator[MakeHost]:
    made: list[App] = []

    async def make(**values: Any) -> Host:
        plugins_dir = make_settings().data_dir.parent / "plugins"
        link_plugins(plugins_dir, *PARTS, "retention")
        settings = make_settings(
            plugins_dir=plugins_dir, **{"retention__min_free_space": 0, **values}
        )
        plugins = Plugins(settings)
        plugins.load()
        app = App(settings, plugins)
        bossbot.prepare_data(app.settings.data_dir)
        await app.database.open()
        made.append(app)
        return Host(app)

    yield make
    for app in made:
        await app.database.close()


@pytest.fixture
async def host(make_host: MakeHost) -> Host:
    return await make_host()


# Temporary files


async def test_leftovers_of_downloads_go_after_their_time(host: Host) -> None:
    ended = await host.job(Status.FAILED, kept=False)
    old = host.temp(ended.id, age_s=HOUR_S + 60)
    nobodys = host.temp("nobodys", age_s=HOUR_S + 60)
    stray = aged(write(host.data / "temp" / "stray.log", 10), HOUR_S + 60)
    young = host.temp("young", age_s=HOUR_S - 60)
    assert await host.sweep_temp() == 3
    assert young.exists()
    assert not old.exists() and not nobodys.exists() and not stray.exists()


async def test_zero_keeps_temporary_files(make_host: MakeHost) -> None:
    host = await make_host(retention__temp_retention_s=0)
    old = host.temp("nobodys", age_s=1000 * DAY_S)
    assert await host.sweep_temp() == 0
    assert old.exists()


@pytest.mark.parametrize(
    "status", [Status.DOWNLOADING, Status.PROCESSING, Status.UPLOADING]
)
async def test_job_under_way_is_never_touched(host: Host, status: Status) -> None:
    job = await host.job(status, age_s=1000 * DAY_S)
    temp = host.temp(job.id, age_s=1000 * DAY_S)
    await host.sweep_temp()
    await host.sweep()
    assert (temp / "1" / "files" / "x.part").exists()
    assert await host.has_files(job)


async def test_job_under_way_is_not_swept_for_want_of_room(
    make_host: MakeHost,
) -> None:
    host = await make_host(retention__max_storage=1, retention__min_free_space=2**62)
    job = await host.job(Status.UPLOADING, age_s=DAY_S)
    await host.sweep()
    assert await host.has_files(job)


async def test_attempt_that_starts_during_the_sweep_is_not_touched(host: Host) -> None:
    """The job waited, with leftovers of attempts 0 and 1, when the sweep looked."""
    job = await host.job(Status.QUEUED, kept=False)
    await host.app.queue.patch(job.id, claim_number=1)
    host.temp(job.id, attempt=0)
    host.temp(job.id, attempt=1)
    folder = host.temp(job.id, attempt=2, age_s=DAY_S)
    await host.sweep_temp()
    assert [path.name for path in folder.iterdir()] == ["2"]


# Kept files


async def test_files_go_after_their_time_and_rows_stay(host: Host) -> None:
    old = await host.job(age_s=DAY_S + 60)
    young = await host.job(age_s=DAY_S - 60)
    old_failure = await host.job(Status.FAILED, age_s=6 * HOUR_S + 60)
    young_failure = await host.job(Status.FAILED, age_s=6 * HOUR_S - 60)
    cancelled = await host.job(Status.CANCELLED, age_s=6 * HOUR_S + 60)
    assert await host.sweep() == 3
    assert not await host.has_files(old)
    assert await host.has_files(young)
    assert not await host.has_files(old_failure)
    assert await host.has_files(young_failure)
    assert not await host.has_files(cancelled)
    assert (await host.stored(old)).total_bytes == 10


async def test_zero_keeps_files(make_host: MakeHost) -> None:
    host = await make_host(retention__completed_retention_s=0, retention__failed_retention_s=0, retention__max_storage=0)
    jobs = [await host.job(Status.COMPLETED, age_s=9e8)]
    jobs.append(await host.job(Status.FAILED, age_s=9e8))
    assert await host.sweep() == 0
    assert all([await host.has_files(job) for job in jobs])


async def test_oldest_files_go_when_there_are_too_many(make_host: MakeHost) -> None:
    host = await make_host(retention__max_storage=25 * KIB)
    ages_s = [300, 100, 400, 200]
    jobs = [await host.job(age_s=age_s, size=10 * KIB) for age_s in ages_s]
    assert await host.sweep() == 2
    assert [await host.has_files(job) for job in jobs] == [False, True, False, True]
    assert await host.sweep() == 0


async def test_room_made_by_age_spares_the_young(make_host: MakeHost) -> None:
    host = await make_host(retention__max_storage=15 * KIB)
    old = await host.job(age_s=2 * DAY_S, size=10 * KIB)
    young = await host.job(age_s=60, size=10 * KIB)
    assert await host.sweep() == 1
    assert not await host.has_files(old)
    assert await host.has_files(young)


def disk(monkeypatch: pytest.MonkeyPatch, host: Host, room: int) -> None:
    """A disk with room for so many bytes of kept files."""

    def usage(path: Path) -> SimpleNamespace:
        used = host.module.size_of(host.data / "downloads")
        return SimpleNamespace(total=room, used=used, free=room - used)

    monkeypatch.setattr(host.module.shutil, "disk_usage", usage)


async def test_full_disk_costs_the_oldest_files_alone(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = await make_host(retention__min_free_space=15 * KIB)
    disk(monkeypatch, host, room=40 * KIB)
    too_old = await host.job(age_s=2 * DAY_S, size=10 * KIB)
    jobs = [await host.job(age_s=age_s, size=9 * KIB) for age_s in (300, 100, 200)]
    assert await host.sweep() == 2
    assert not await host.has_files(too_old)
    assert [await host.has_files(job) for job in jobs] == [False, True, True]


async def test_link_is_refused_below_the_floor(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = await make_host(retention__min_free_space=15 * KIB)
    disk(monkeypatch, host, room=16 * KIB)
    host.check()
    disk(monkeypatch, host, room=14 * KIB)
    with pytest.raises(Refused, match="disk is full"):
        host.check()


async def test_link_is_refused_while_too_much_is_under_way(
    make_host: MakeHost,
) -> None:
    host = await make_host(retention__max_temp_storage=100)
    host.check()
    write(host.data / "temp" / "a" / "1" / "files" / "x", 101)
    with pytest.raises(Refused, match="downloaded at once"):
        host.check()


async def test_folder_of_no_job_goes_as_those_of_failures(host: Host) -> None:
    old = write(host.data / "downloads" / "1" / "2026-01-02" / "x" / "a.jpg", 10)
    young = write(host.data / "downloads" / "1" / "2026-01-02" / "y" / "a.jpg", 10)
    aged(old.parent, 6 * HOUR_S + 60)
    assert await host.sweep() == 1
    assert young.exists() and not old.exists()


async def test_empty_days_go(host: Host) -> None:
    day = host.data / "downloads" / "1" / "2025-12-31"
    day.mkdir(parents=True)
    await host.sweep()
    assert day.exists(), "a job may be about to use it"
    aged(day, HOUR_S)
    await host.sweep()
    assert not day.exists()


# Links


async def test_no_link_is_followed(host: Host, tmp_path: Path) -> None:
    outside = write(tmp_path / "outside" / "2026-01-02" / "job" / "1" / "a.jpg", 10)
    top = tmp_path / "outside"
    for path in (outside, *outside.parents):
        aged(path, 1000 * DAY_S)
        if path == top:
            break
    queued = await host.job(Status.QUEUED, kept=False)
    await host.app.queue.patch(queued.id, fence=5)
    day = host.data / "downloads" / "1" / "2026-01-02"
    day.mkdir(parents=True)
    inside = host.data / "temp" / "gone"
    inside.mkdir()
    links = {
        host.data / "temp" / "link": top,
        host.data / "temp" / queued.id: outside.parent.parent,
        inside / "link": top,
        host.data / "downloads" / "2": top,
        host.data / "downloads" / "1" / "2026-01-03": top / "2026-01-02",
        day / "job": outside.parent.parent,
    }
    for link, target in links.items():
        link.symlink_to(target)
        aged(link, 1000 * DAY_S)
    aged(inside, 1000 * DAY_S)
    await host.sweep_temp()
    await host.sweep()
    assert outside.exists()
    assert not inside.exists()
    assert host.module.size_of(host.data / "downloads") < KIB


# Crashes


class Killed(BaseException):
    """Ends a sweep where it is."""


@pytest.mark.parametrize("step", range(9))
async def test_sweep_cut_short_is_made_good_by_the_next(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Three jobs to remove, three steps each: the row, a part of the files, the rest;
    cut short before each of the nine. Failed ones are kept for ever otherwise."""
    host = await make_host(retention__max_storage=15 * KIB, retention__failed_retention_s=0)
    statuses = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)
    jobs = [await host.job(s, age_s=n, size=KIB * 10) for n, s in enumerate(statuses)]
    jobs.append(await host.job(age_s=2 * DAY_S))
    left = step
    patch, rmtree = host.app.queue.patch, shutil.rmtree

    def passed() -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1

    async def killed_patch(*args: Any, **columns: Any) -> None:
        passed()
        await patch(*args, **columns)

    def killed_rmtree(path: Path, **how: Any) -> None:
        passed()
        rmtree(path / "content")
        passed()
        rmtree(path)

    with monkeypatch.context() as cut:
        cut.setattr(host.app.queue, "patch", killed_patch)
        cut.setattr(host.module.shutil, "rmtree", killed_rmtree)
        with pytest.raises(Killed):
            await host.sweep()
    for job in await host.app.queue.list():
        assert not job.folder or (host.data / job.folder / "content").exists()
    await host.sweep()
    assert [await host.has_files(job) for job in jobs] == [True, False, False, False]


async def test_sweep_goes_on_past_what_it_cannot_remove(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = host.temp("aaa", age_s=DAY_S), host.temp("bbb", age_s=DAY_S)
    rmtree = shutil.rmtree

    def stubborn(path: Path, **how: Any) -> None:
        if path != first:
            rmtree(path, **how)

    monkeypatch.setattr(host.module.shutil, "rmtree", stubborn)
    await host.sweep_temp()
    assert first.exists() and not second.exists()


# Clocks


@pytest.mark.parametrize("jump_s", [-DAY_S, DAY_S, 400 * DAY_S])
async def test_clock_set_while_the_bot_runs_costs_no_files(
    host: Host, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    job = await host.job(age_s=60)
    failure = await host.job(Status.FAILED, age_s=60)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    nobodys = host.data / "downloads" / "1" / "2026-01-02" / "x"
    paths = [host.temp("before"), write(nobodys / "a.jpg", 1).parent]
    for path in paths:  # made before the jump
        os.utime(path, (real() - 60, real() - 60))
    paths.append(host.temp("after"))  # and after it
    os.utime(paths[-1], (real() + jump_s, real() + jump_s))
    await host.sweep_temp()
    await host.sweep()
    assert await host.has_files(job)
    assert await host.has_files(failure)
    assert all(path.exists() for path in paths)


# What is written, and when


async def test_each_guild_has_its_figures(host: Host, logged: list[str]) -> None:
    await host.job(guild=7, size=100)
    await host.job(Status.FAILED, guild=7, kept=False)
    await host.job(guild=7, size=100, age_s=2 * DAY_S)
    await host.job(guild=8, size=50)
    assert await host.sweep() == 1
    await host.sweep()  # its own files do not count
    folder = host.data / "downloads" / "7"
    stats = json.loads((folder / ".stats").read_text())
    assert stats["completed"] == 2 and stats["failed"] == 1
    assert stats["bytes"] == 210 and stats["kept_bytes"] == 100
    cleanup = json.loads((folder / ".cleanup").read_text())
    assert abs(cleanup["swept_at"] - bossbot.now()) < 5
    assert (host.data / "downloads" / "8" / ".stats").exists()
    assert logged == [
        "INFO maintenance: files of 1 jobs removed, 150 B kept",
        "INFO maintenance: files of 0 jobs removed, 150 B kept",
    ]


async def test_sweeps_run_at_start_and_again_whatever_they_meet(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    host = await make_host(retention__temp_scan_interval_s=1, retention__main_scan_interval_s=1)
    swept: asyncio.Queue[str] = asyncio.Queue()

    def sweep(name: str) -> Callable[[App], Awaitable[int]]:
        async def sweep(_: App) -> int:
            swept.put_nowait(name)
            raise OSError("met trouble")

        return sweep

    monkeypatch.setattr(host.module, "sweep_temp", sweep("temp"))
    monkeypatch.setattr(host.module, "sweep_downloads", sweep("main"))
    bot: Any = SimpleNamespace(app=host.app)
    await host.app.plugins.call("bot_started", bot=bot)
    async with asyncio.timeout(10):
        assert {await swept.get(), await swept.get()} == {"temp", "main"}
        assert {await swept.get(), await swept.get()} == {"temp", "main"}
    await host.app.plugins.call("bot_stopping", bot=bot)
    assert any("a sweep failed" in line for line in logged)
