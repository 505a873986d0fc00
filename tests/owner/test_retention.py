"""Retention: what is old goes, rows stay, and a sweep harms nothing else."""

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bossbot_plugins._files import remove_tree, size_of
from conftest import PARTS, AddPlugin, MakeApp, MakeSettings, make_job, our_plugins
from discord_support import module
from platform_support import NOWHERE, listening

import bossbot
from bossbot import (
    ATTEMPT_STATUSES,
    SENTENCES,
    App,
    Cause,
    Job,
    PluginConfig,
    Refused,
    Status,
)

HOUR_S, DAY_S = 3600, 86400
KIB = 1024
MIB = 2**20

PLUGINS = Path(__file__).parent / "plugins"


class Bot:
    """A bot's folders and rows, and its sweeps."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.data = app.settings.data_dir
        self.module = module("retention")

    @property
    def config(self) -> PluginConfig:
        return self.app.plugins.all["retention"].config

    async def job(
        self,
        status: Status = Status.COMPLETED,
        *,
        age_s: float = 0,
        size: int = 10,
        guild: int = 1,
        kept: bool = True,
        claims: int = 1,
    ) -> Job:
        """A row, and the folder of its kept files."""
        queue = self.app.queue
        job = make_job(guild_id=guild, created_at=bossbot.now() - age_s)
        assert await queue.add(job) is not None
        for _ in range(claims):
            claimed = await queue.claim("worker", 60)
            assert claimed and claimed.id == job.id
            job = claimed
            if status is Status.QUEUED:
                assert await queue.release(job)
        if status is Status.QUEUED:
            return job
        job.status, job.total_bytes, job.file_count = status, size, 1
        if kept:
            folder = self.data / "downloads" / str(guild) / "2026-01-02" / job.id
            write(folder / "content" / "a.jpg", size)
            write(folder / "metadata.json", 0)
            aged(folder, age_s)
            job.folder = str(folder.relative_to(self.data))
        if status in (*ATTEMPT_STATUSES, Status.UPLOADING):
            assert await queue.save(job, 60)
        else:
            job.finished_at = bossbot.now() - age_s
            assert await queue.finish(job)
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
        return int(await self.module.sweep_temp(self.app, self.config))

    async def sweep(self) -> int:
        return int(await self.module.sweep_downloads(self.app, self.config))

    async def check(self) -> None:
        """A member pastes a link."""
        await self.app.plugins.call("check_job", job=make_job())


def write(path: Path, size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    return path


def aged(path: Path, age_s: float) -> Path:
    """The path, as if it had last changed so long ago."""
    changed = time.time() - age_s
    os.utime(path, (changed, changed), follow_symlinks=False)
    return path


MakeBot = Callable[..., Awaitable[Bot]]


@pytest.fixture
async def make_bot(
    make_settings: MakeSettings, make_app: MakeApp, tmp_path: Path
) -> AsyncIterator[MakeBot]:
    ours = our_plugins(*PARTS, "retention")

    async def make(*, started: bool = False, **values: Any) -> Bot:
        settings = make_settings(**values)
        (settings.plugins_dir / NOWHERE.name).symlink_to(NOWHERE)
        bot = Bot(make_app(settings, ours))
        assert not any(plugin.off for plugin in bot.app.plugins.all.values())
        if not started:
            await bot.app.database.start()
        return bot

    yield make


@pytest.fixture
async def bot(make_bot: MakeBot) -> Bot:
    return await make_bot()


# Temporary files


async def test_leftovers_of_downloads_go_after_their_time(bot: Bot) -> None:
    ended = await bot.job(Status.FAILED, kept=False)
    old = bot.temp(ended.id, age_s=HOUR_S + 60)
    nobodys = bot.temp("nobodys", age_s=HOUR_S + 60)
    stray = aged(write(bot.data / "temp" / "stray.log", 10), HOUR_S + 60)
    young = bot.temp("young", age_s=HOUR_S - 60)
    assert await bot.sweep_temp() == 3
    assert young.exists()
    assert not old.exists() and not nobodys.exists() and not stray.exists()


async def test_zero_keeps_temporary_files(make_bot: MakeBot) -> None:
    bot = await make_bot(retention__temp_retention_s=0)
    old = bot.temp("nobodys", age_s=1000 * DAY_S)
    assert await bot.sweep_temp() == 0
    assert old.exists()


@pytest.mark.parametrize(
    "status", [Status.DOWNLOADING, Status.PROCESSING, Status.UPLOADING]
)
async def test_job_under_way_is_never_touched(bot: Bot, status: Status) -> None:
    job = await bot.job(status, age_s=1000 * DAY_S)
    temp = bot.temp(job.id, age_s=1000 * DAY_S)
    await bot.sweep_temp()
    await bot.sweep()
    assert (temp / "1" / "files" / "x.part").exists()
    assert await bot.has_files(job)


async def test_job_under_way_is_not_swept_for_want_of_room(
    make_bot: MakeBot,
) -> None:
    bot = await make_bot(retention__max_storage=1, retention__min_free_space=2**60)
    job = await bot.job(Status.UPLOADING, age_s=DAY_S)
    await bot.sweep()
    assert await bot.has_files(job)


async def test_attempt_that_starts_during_the_sweep_is_not_touched(bot: Bot) -> None:
    """The job waited, with leftovers of attempts 0 and 1, when the sweep looked."""
    job = await bot.job(Status.QUEUED, claims=1)
    bot.temp(job.id, attempt=0)
    bot.temp(job.id, attempt=1)
    folder = bot.temp(job.id, attempt=2, age_s=DAY_S)
    await bot.sweep_temp()
    assert [path.name for path in folder.iterdir()] == ["2"]


# Kept files


async def test_files_go_after_their_time_and_rows_stay(bot: Bot) -> None:
    old = await bot.job(age_s=DAY_S + 60)
    young = await bot.job(age_s=DAY_S - 60)
    old_failure = await bot.job(Status.FAILED, age_s=6 * HOUR_S + 60)
    young_failure = await bot.job(Status.FAILED, age_s=6 * HOUR_S - 60)
    cancelled = await bot.job(Status.CANCELLED, age_s=6 * HOUR_S + 60)
    assert await bot.sweep() == 3
    assert not await bot.has_files(old)
    assert await bot.has_files(young)
    assert not await bot.has_files(old_failure)
    assert await bot.has_files(young_failure)
    assert not await bot.has_files(cancelled)
    assert (await bot.stored(old)).total_bytes == 10


async def test_zero_keeps_files(make_bot: MakeBot) -> None:
    bot = await make_bot(
        retention__completed_retention_s=0,
        retention__failed_retention_s=0,
        retention__max_storage=0,
    )
    jobs = [await bot.job(Status.COMPLETED, age_s=9e8)]
    jobs.append(await bot.job(Status.FAILED, age_s=9e8))
    assert await bot.sweep() == 0
    assert all([await bot.has_files(job) for job in jobs])


async def test_oldest_files_go_when_there_are_too_many(make_bot: MakeBot) -> None:
    bot = await make_bot(retention__max_storage=25 * KIB)
    ages_s = [300, 100, 400, 200]
    jobs = [await bot.job(age_s=age_s, size=10 * KIB) for age_s in ages_s]
    assert await bot.sweep() == 2
    assert [await bot.has_files(job) for job in jobs] == [False, True, False, True]
    assert await bot.sweep() == 0


async def test_content_of_several_jobs_counts_once(make_bot: MakeBot) -> None:
    bot = await make_bot(retention__max_storage=25 * KIB)
    jobs = [await bot.job(age_s=age_s, size=10 * KIB) for age_s in (400, 300, 200)]
    paths = [bot.data / job.folder / "content" / "a.jpg" for job in jobs]
    for path in paths[1:]:
        path.unlink()
        os.link(paths[0], path)
    assert await bot.sweep() == 0
    # What is removed for want of room frees none, until the last one that shares it is.
    other = await bot.job(age_s=100, size=20 * KIB)
    assert await bot.sweep() == 3
    assert [await bot.has_files(job) for job in (*jobs, other)] == [*[False] * 3, True]


async def test_room_made_by_age_spares_the_young(make_bot: MakeBot) -> None:
    bot = await make_bot(retention__max_storage=15 * KIB)
    old = await bot.job(age_s=2 * DAY_S, size=10 * KIB)
    young = await bot.job(age_s=60, size=10 * KIB)
    assert await bot.sweep() == 1
    assert not await bot.has_files(old)
    assert await bot.has_files(young)


def disk(monkeypatch: pytest.MonkeyPatch, bot: Bot, room: int) -> None:
    """A disk with room for so many bytes of kept files."""

    def usage(path: Path) -> SimpleNamespace:
        used = size_of(bot.data / "downloads")
        return SimpleNamespace(total=room, used=used, free=room - used)

    monkeypatch.setattr(shutil, "disk_usage", usage)


async def test_full_disk_costs_only_the_oldest_files(
    make_bot: MakeBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = await make_bot(retention__min_free_space=15 * KIB)
    disk(monkeypatch, bot, room=40 * KIB)
    too_old = await bot.job(age_s=2 * DAY_S, size=10 * KIB)
    jobs = [await bot.job(age_s=age_s, size=9 * KIB) for age_s in (300, 100, 200)]
    assert await bot.sweep() == 2
    assert not await bot.has_files(too_old)
    assert [await bot.has_files(job) for job in jobs] == [False, True, True]


async def test_link_is_refused_below_the_floor(
    make_bot: MakeBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = await make_bot(retention__min_free_space=15 * KIB)
    disk(monkeypatch, bot, room=16 * KIB)
    await bot.check()
    disk(monkeypatch, bot, room=14 * KIB)
    with pytest.raises(Refused, match="disk is full"):
        await bot.check()


async def test_link_is_refused_when_the_disk_is_gone(
    make_bot: MakeBot,
) -> None:
    bot = await make_bot(retention__min_free_space=15 * KIB)
    away = bot.data.rename(bot.data.with_name("away"))
    with pytest.raises(Refused, match="disk is full"):
        await bot.check()
    assert await module("_health").disk(bot.app) == "No such file or directory"
    away.rename(bot.data)


async def test_links_in_the_queue_wait_while_the_disk_is_low(
    make_bot: MakeBot, monkeypatch: pytest.MonkeyPatch, add_plugin: AddPlugin
) -> None:
    add_plugin(PLUGINS / "words.py")
    bot = await make_bot(started=True, retention__min_free_space=15 * KIB)
    queue, job = bot.app.queue, make_job(engine="words")
    disk(monkeypatch, bot, room=14 * KIB)
    bot.app.worker.refused_s = 0.05  # type: ignore[attr-defined]
    await bot.app.start(gateway=False)
    async with asyncio.timeout(60):
        with listening("no job is started now: The bot's disk is full") as heard:
            await queue.add(job)
            await heard.wait()
        with pytest.raises(Refused, match="disk is full"):
            await bot.app.plugins.call("check_claim")
        assert (await bot.stored(job)).attempts == 0
        disk(monkeypatch, bot, room=1024 * KIB)
        async for _ in queue.changes():
            if (await bot.stored(job)).status is Status.COMPLETED:
                break


async def test_what_runs_is_ended_before_the_disk_is_full(
    make_bot: MakeBot, monkeypatch: pytest.MonkeyPatch, add_plugin: AddPlugin
) -> None:
    add_plugin(PLUGINS / "endless.py")
    floor = 40 * MIB
    bot = await make_bot(
        started=True, retention__min_free_space=floor, max_download_size=0
    )
    cache, room = bot.data / "cache", 100 * MIB

    def usage(path: Path) -> SimpleNamespace:
        used = size_of(cache)
        return SimpleNamespace(total=room, used=used, free=room - used)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    bot.app.worker.refused_s = 0.05  # type: ignore[attr-defined]
    await bot.app.start(gateway=False)
    queue, jobs = bot.app.queue, [make_job(engine="endless") for _ in range(3)]
    async with asyncio.timeout(60):
        with listening("no job is started now: The bot's disk is full") as heard:
            for job in jobs:
                await queue.add(job)
            await heard.wait()
        async for _ in queue.changes():
            if (await bot.stored(jobs[0])).status is Status.FAILED:
                break
    first, *others = [await bot.stored(job) for job in jobs]
    assert (first.cause, first.error) == (Cause.DISK_FULL, SENTENCES[Cause.DISK_FULL])
    assert {job.status for job in others} == {Status.QUEUED}
    assert floor - 16 * MIB < room - size_of(cache) < floor


async def test_claim_leaves_room_for_what_runs(
    make_bot: MakeBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = await make_bot(retention__min_free_space=15 * KIB, max_job_size=10 * KIB)
    check = bot.app.plugins.call
    disk(monkeypatch, bot, room=16 * KIB)
    await check("check_claim")  # a small disk takes one at a time
    running = await bot.job(Status.DOWNLOADING, kept=False)
    nothing = asyncio.get_running_loop().create_future()
    at_work: dict[str, Any] = {running.id: nothing}
    monkeypatch.setattr(bot.app.worker, "running", at_work)
    with pytest.raises(Refused, match="may need the room"):
        await check("check_claim")
    disk(monkeypatch, bot, room=36 * KIB)
    await check("check_claim")
    for status in (Status.PROCESSING, Status.UPLOADING):  # of that, all is there
        at_work[(await bot.job(status, kept=False)).id] = nothing
    with pytest.raises(Refused, match="may need the room"):
        await check("check_claim")
    # What a job has on the disk already, it needs no more.
    write(bot.data / "temp" / running.id / "1" / "files" / "x", 8 * KIB)
    with pytest.raises(Refused, match="may need the room"):
        await check("check_claim")
    write(bot.data / "temp" / running.id / "1" / "files" / "y", 1 * KIB)
    await check("check_claim")


async def test_job_of_any_size_reserves_nothing(
    make_bot: MakeBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = await make_bot(retention__min_free_space=15 * KIB, max_job_size=0)
    disk(monkeypatch, bot, room=16 * KIB)
    await bot.job(Status.DOWNLOADING, kept=False)
    await bot.app.plugins.call("check_claim")


async def test_link_is_refused_while_too_much_is_under_way(
    make_bot: MakeBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = await make_bot(retention__max_temp_storage=100)
    nothing = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(bot.app.worker, "running", {"a": nothing})
    write(bot.data / "temp" / "b" / "1" / "files" / "x", 101)
    await bot.check()  # a crash has left that
    write(bot.data / "temp" / "a" / "1" / "files" / "x", 101)
    with pytest.raises(Refused, match="downloaded at once"):
        await bot.check()


async def test_folder_of_no_job_goes_as_those_of_failures(bot: Bot) -> None:
    old = write(bot.data / "downloads" / "1" / "2026-01-02" / "x" / "a.jpg", 10)
    young = write(bot.data / "downloads" / "1" / "2026-01-02" / "y" / "a.jpg", 10)
    aged(old.parent, 6 * HOUR_S + 60)
    assert await bot.sweep() == 1
    assert young.exists() and not old.exists()


async def test_empty_days_go(bot: Bot) -> None:
    day = bot.data / "downloads" / "1" / "2025-12-31"
    day.mkdir(parents=True)
    await bot.sweep()
    assert day.exists(), "a job may be about to use it"
    aged(day, HOUR_S)
    await bot.sweep()
    assert not day.exists()


# Links


async def test_no_link_is_followed(bot: Bot, tmp_path: Path) -> None:
    outside = write(tmp_path / "outside" / "2026-01-02" / "job" / "1" / "a.jpg", 10)
    top = tmp_path / "outside"
    for path in (outside, *outside.parents):
        aged(path, 1000 * DAY_S)
        if path == top:
            break
    queued = await bot.job(Status.QUEUED, claims=5)
    day = bot.data / "downloads" / "1" / "2026-01-02"
    day.mkdir(parents=True)
    inside = bot.data / "temp" / "gone"
    inside.mkdir()
    links = {
        bot.data / "temp" / "link": top,
        bot.data / "temp" / queued.id: outside.parent.parent,
        inside / "link": top,
        bot.data / "downloads" / "2": top,
        bot.data / "downloads" / "1" / "2026-01-03": top / "2026-01-02",
        day / "job": outside.parent.parent,
    }
    for link, target in links.items():
        link.symlink_to(target)
        aged(link, 1000 * DAY_S)
    aged(inside, 1000 * DAY_S)
    await bot.sweep_temp()
    await bot.sweep()
    assert outside.exists()
    assert not inside.exists()
    assert size_of(bot.data / "downloads") < KIB


# Crashes


class Killed(BaseException):
    """Ends a sweep where it is."""


def names_of(bot: Bot) -> dict[str, Any]:
    """What the names in the storage's module stand for."""
    storage: Any = bot.app.storage
    return storage.remove.__globals__


@pytest.mark.parametrize("step", range(9))
async def test_sweep_cut_short_is_made_good_by_the_next(
    make_bot: MakeBot, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Three jobs to remove, three steps each: the row, a part of the files, the rest;
    cut short before each of the nine. Failed ones are kept for ever otherwise."""
    bot = await make_bot(
        retention__max_storage=15 * KIB, retention__failed_retention_s=0
    )
    statuses = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)
    jobs = [await bot.job(s, age_s=n, size=KIB * 10) for n, s in enumerate(statuses)]
    jobs.append(await bot.job(age_s=2 * DAY_S))
    left = step
    forget_files = bot.app.queue.forget_files

    def passed() -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1

    async def killed_forget_files(job_id: str) -> None:
        passed()
        await forget_files(job_id)

    def killed_remove(path: Path) -> None:
        passed()
        remove_tree(path / "content")
        passed()
        remove_tree(path)

    with monkeypatch.context() as cut:
        cut.setattr(bot.app.queue, "forget_files", killed_forget_files)
        cut.setitem(names_of(bot), "remove_tree", killed_remove)
        with pytest.raises(Killed):
            await bot.sweep()
    for job in await bot.app.queue.list():
        assert not job.folder or (bot.data / job.folder / "content").exists()
    await bot.sweep()
    assert [await bot.has_files(job) for job in jobs] == [True, False, False, False]


async def test_sweep_goes_on_past_what_it_cannot_remove(
    bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = bot.temp("aaa", age_s=DAY_S), bot.temp("bbb", age_s=DAY_S)

    def stubborn(path: Path) -> None:
        if path != first:
            remove_tree(path)

    monkeypatch.setitem(names_of(bot), "remove_tree", stubborn)
    await bot.sweep_temp()
    assert first.exists() and not second.exists()


# Clocks


@pytest.mark.parametrize("jump_s", [-DAY_S, DAY_S, 400 * DAY_S])
async def test_clock_set_while_the_bot_runs_costs_no_files(
    bot: Bot, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    job = await bot.job(age_s=60)
    failure = await bot.job(Status.FAILED, age_s=60)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    nobodys = bot.data / "downloads" / "1" / "2026-01-02" / "x"
    paths = [bot.temp("before"), write(nobodys / "a.jpg", 1).parent]
    for path in paths:  # made before the jump
        os.utime(path, (real() - 60, real() - 60))
    paths.append(bot.temp("after"))  # and after it
    os.utime(paths[-1], (real() + jump_s, real() + jump_s))
    await bot.sweep_temp()
    await bot.sweep()
    assert await bot.has_files(job)
    assert await bot.has_files(failure)
    assert all(path.exists() for path in paths)


# What is written, and when


async def test_each_guild_has_its_figures(bot: Bot, logged: list[str]) -> None:
    await bot.job(guild=7, size=100)
    await bot.job(Status.FAILED, guild=7, kept=False)
    await bot.job(guild=7, size=100, age_s=2 * DAY_S)
    await bot.job(guild=8, size=50)
    assert await bot.sweep() == 1
    await bot.sweep()  # its own files do not count
    assert module("retention")._kept_bytes == 150
    folder = bot.data / "downloads" / "7"
    stats = json.loads((folder / ".stats").read_text())
    assert stats == {"kept_jobs": 1, "kept_bytes": 100}
    cleanup = json.loads((folder / ".cleanup").read_text())
    assert abs(cleanup["swept_at"] - bossbot.now()) < 5
    assert (bot.data / "downloads" / "8" / ".stats").exists()
    assert logged == [
        "INFO maintenance: files of 1 jobs removed, 150 B kept",
        "INFO maintenance: files of 0 jobs removed, 150 B kept",
    ]


async def test_guild_whose_last_files_go_has_none_in_its_figures(bot: Bot) -> None:
    job = await bot.job(guild=7)
    stats = bot.data / "downloads" / "7" / ".stats"
    await bot.sweep()
    assert json.loads(stats.read_text()) == {"kept_jobs": 1, "kept_bytes": 10}
    await bot.app.queue.forget_files(job.id)
    await bot.sweep()
    assert json.loads(stats.read_text()) == {"kept_jobs": 0, "kept_bytes": 0}


async def test_sweeps_run_at_start_and_again_whatever_they_meet(
    make_bot: MakeBot, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    bot = await make_bot(
        started=True,
        retention__temp_scan_interval_s=1,
        retention__main_scan_interval_s=1,
    )
    swept: asyncio.Queue[str] = asyncio.Queue()

    def sweep(name: str) -> Callable[..., Awaitable[int]]:
        async def sweep(_: App, config: PluginConfig) -> int:
            swept.put_nowait(name)
            raise OSError("met trouble")

        return sweep

    monkeypatch.setattr(bot.module, "sweep_temp", sweep("temp"))
    monkeypatch.setattr(bot.module, "sweep_downloads", sweep("main"))
    await bot.app.start(gateway=False, work=False)
    async with asyncio.timeout(60):
        assert {await swept.get(), await swept.get()} == {"temp", "main"}
        assert {await swept.get(), await swept.get()} == {"temp", "main"}
    assert any("a sweep failed" in line for line in logged)
    await bot.app.stop()
    assert not [t for t in asyncio.all_tasks() if "repeat" in repr(t)]
