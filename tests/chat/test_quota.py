"""What a server may post in a day, and how large a file may be."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import SmallApp, make_job
from discord_support import Stage, job_id, link, module

import bossbot
from bossbot import App, Cause, Job, MediaFile, Post, Refused, Status

pytest_plugins = ("discord_fixtures",)

MIB = 2**20
OWNER = 30
StartApp = Callable[..., Any]


@pytest.fixture
async def start(small_app: SmallApp) -> AsyncIterator[StartApp]:
    """Starts an app with quotas; the keywords are settings."""

    async def start(daily_quota: int = 10 * MIB, **values: Any) -> App:
        app = small_app("quota", quota__daily_quota=daily_quota, **values)

        async def is_owner(user: Any) -> bool:
            return bool(user.id == OWNER)

        app.client.bot = SimpleNamespace(is_owner=is_owner)  # type: ignore[assignment]
        await app.start(gateway=False, work=False)
        return app

    yield start


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets time pass, for the quota only."""
    passed_s = 0.0

    def wait(seconds: float) -> None:
        nonlocal passed_s
        passed_s += seconds
        monkeypatch.setattr(module("_quota"), "now", lambda: bossbot.now() + passed_s)

    return wait


def job_of(limit_mib: float = 4, **fields: Any) -> Job:
    return make_job(limit_bytes=int(limit_mib * MIB), claim_number=1, **fields)


async def attempt(app: App, job: Job) -> None:
    # What is in no queue is set free when there is no room.
    waiting = dataclasses.replace(job, status=Status.QUEUED, claim_number=0)
    await app.queue.add(waiting)
    await app.plugins.call("check_attempt", job=job)


def file(job: Job, size_mib: float, number: int = 1) -> MediaFile:
    return MediaFile(Path(f"{job.id}_{number}"), int(size_mib * MIB), "", "image/png")


async def post(app: App, job: Job, *sizes_mib: float, number: int = 1) -> None:
    """A message with files of these sizes is about to be sent, and is sent."""
    first = 100 * number
    files = [file(job, size, first + n) for n, size in enumerate(sizes_mib)]
    channel = None
    await app.plugins.call("check_upload", job=job, files=files, channel=channel)
    names = {one.name: "" for one in files}
    job.posts.append(Post(number, "", names, "sent", number))


async def end(app: App, job: Job, status: Status = Status.COMPLETED) -> None:
    job.status = status
    await app.plugins.call("job_changed", job=job, previous=Status.UPLOADING)


async def take(app: App, **fields: Any) -> Job:
    job = job_of(**fields)
    await app.plugins.call("check_job", job=job)
    return job


async def spend(app: App, size_mib: float, **fields: Any) -> Job:
    """A job posts so much, from its claim to its end."""
    job = job_of(**fields)
    await attempt(app, job)
    await post(app, job, size_mib)
    await end(app, job)
    return job


async def spent(app: App, holder: int = 1) -> tuple[float, float]:
    posted, reserved = await module("_quota").used(app, holder)
    return posted / MIB, reserved / MIB


# What is counted


async def test_job_reserves_its_largest_file_and_settles_what_it_posted(
    start: StartApp,
) -> None:
    app = await start()
    job = job_of(4)
    await attempt(app, job)
    assert await spent(app) == (0, 4)
    await post(app, job, 1, 0.5)
    await end(app, job)
    assert await spent(app) == (1.5, 0)


async def test_everything_may_be_done_twice(start: StartApp) -> None:
    app = await start()
    job = job_of(4)
    for _number in range(2):
        await attempt(app, job)
        await post(app, job, 1)
        del job.posts[1:]
    for _number in range(3):
        await end(app, job)
    assert await spent(app) == (1, 0)


@pytest.mark.parametrize(
    "status", [Status.FAILED, Status.CANCELLED, Status.QUEUED, Status.COMPLETED]
)
async def test_what_was_not_posted_is_free_again(
    start: StartApp, status: Status
) -> None:
    app = await start()
    job = job_of(4)
    await attempt(app, job)
    await end(app, job, status)
    assert await spent(app) == (0, 0)


async def test_part_that_was_posted_counts(start: StartApp) -> None:
    app = await start()
    job = job_of(4, status=Status.DOWNLOADING)
    await attempt(app, job)
    await post(app, job, 3)
    assert await spent(app) == (0, 4)  # until the message is known to be sent
    await end(app, job, Status.CANCELLED)
    assert await spent(app) == (3, 0)


async def test_older_attempt_changes_nothing(start: StartApp) -> None:
    app = await start()
    job, older = job_of(4, id="0" * 10), job_of(4, id="0" * 10)
    job.claim_number = 2
    await attempt(app, job)
    await end(app, older, Status.QUEUED)
    assert await spent(app) == (0, 4)


async def test_days_and_servers_are_apart(start: StartApp, clock: Any) -> None:
    app = await start()
    await spend(app, 3)
    await spend(app, 2, guild_id=2)
    assert (await spent(app), await spent(app, 2)) == ((3, 0), (2, 0))
    clock(86400)
    assert await spent(app) == (0, 0)
    await spend(app, 1)
    assert await spent(app) == (1, 0)


async def test_each_direct_message_has_a_quota_and_its_member_is_not_stored(
    start: StartApp,
) -> None:
    app = await start(2 * MIB)
    await spend(app, 2, guild_id=0, channel_id=5, user_id=987654321)
    with pytest.raises(Refused, match="used up"):
        await take(app, guild_id=0, channel_id=5)
    await take(app, guild_id=0, channel_id=6)
    assert "987654321" not in await app.facts.get("quota:-5") != ""
    rows = await app.database.all("SELECT * FROM quota_holders")
    assert [[*row] for row in rows] == [[-5, int(bossbot.now() // 86400)]]


# What is refused


async def test_job_over_the_quota_is_refused_with_when_it_starts_anew(
    start: StartApp, clock: Any
) -> None:
    app = await start(4 * MIB)
    await take(app)
    await spend(app, 4)
    midnight = (int(bossbot.now() // 86400) + 1) * 86400
    with pytest.raises(Refused, match=f"4 MiB.*<t:{midnight}:R>") as caught:
        await take(app)
    assert caught.value.cause is Cause.QUOTA
    with pytest.raises(Refused, match="used up"):  # it was queued before
        await attempt(app, job_of())
    clock(86400)
    await take(app)


async def test_what_runs_is_counted_with_what_it_may_bring(start: StartApp) -> None:
    app = await start(8 * MIB)
    for _number in range(2):
        await attempt(app, job_of(4))
    with pytest.raises(Refused, match="reserved for running downloads"):
        await take(app)
    with pytest.raises(Refused, match="used up"):
        await attempt(app, job_of(4))


@pytest.mark.parametrize("count", [2, 5])
async def test_two_jobs_at_once_cannot_both_take_the_last_megabyte(
    start: StartApp, count: int
) -> None:
    app = await start(10 * MIB)
    await spend(app, 9)

    async def one() -> None:
        await spend(app, 1)

    done = await asyncio.gather(*(one() for _ in range(count)), return_exceptions=True)
    assert sum(one is None for one in done) == 1
    assert all(one is None or isinstance(one, Refused) for one in done)
    assert await spent(app) == (10, 0)


async def test_jobs_that_post_at_once_stay_within_what_is_left(start: StartApp) -> None:
    app = await start(10 * MIB)
    jobs = [job_of(6), job_of(6)]
    for job in jobs:  # the second one gets what the first one leaves
        await attempt(app, job)
    assert await spent(app) == (0, 10)
    await post(app, jobs[1], 4)
    with pytest.raises(Refused, match=r"only 4 MiB is left") as caught:
        await post(app, jobs[1], 1, number=2)
    assert caught.value.cause is Cause.QUOTA
    await post(app, jobs[0], 6)


async def test_post_that_is_larger_than_what_is_left_is_not_begun(
    start: StartApp,
) -> None:
    app = await start(10 * MIB)
    job = job_of(4, status=Status.UPLOADING, total_bytes=11 * MIB)
    await attempt(app, job)
    with pytest.raises(
        Refused, match=r"is 11 MiB, but only 10 MiB is left of.*\(10 MiB\)"
    ):
        await post(app, job, 4)


async def test_owner_is_under_no_quota_but_counts(start: StartApp) -> None:
    app = await start(4 * MIB)
    await spend(app, 9, user_id=OWNER)
    await take(app, user_id=OWNER)
    assert await spent(app) == (9, 0)
    with pytest.raises(Refused, match="used up"):
        await take(app)


# The settings


@pytest.mark.parametrize(
    ("owner_mib", "quotas"),  # of a server, as it is set and as it counts
    [
        (500, [(None, 500), (100, 100), (900, 500), (0, 500)]),
        (0, [(None, 0), (100, 100), (0, 0)]),
    ],
)
async def test_quota_of_a_server_is_never_above_the_owner_s(
    start: StartApp, owner_mib: int, quotas: list[tuple[int | None, int]]
) -> None:
    app = await start(owner_mib * MIB)
    for guild_mib, mib in quotas:
        table = {} if guild_mib is None else {"daily_quota": guild_mib * MIB}
        job = job_of(guild_settings={"quota": table})
        guild: Any = app.plugins.guild_config(app.plugins.all["quota"], job)
        assert guild.daily_quota == mib * MIB


@pytest.mark.parametrize(
    ("channel_mib", "guild_mib", "mib"),
    [(20, None, 20), (20, 5, 5), (4, 5, 4), (20, 90, 20), (0, 5, 5), (0, 90, 50)],
)
async def test_largest_file_of_a_server_reaches_the_job(
    start: StartApp, channel_mib: int, guild_mib: int | None, mib: int
) -> None:
    app = await start()
    table = {} if guild_mib is None else {"max_file_size": guild_mib * MIB}
    job = await take(app, limit_mib=channel_mib, guild_settings={"quota": table})
    assert job.limit_bytes == mib * MIB


async def test_without_a_quota_nothing_is_refused(start: StartApp) -> None:
    app = await start(0)
    await spend(app, 900)
    await take(app)
    assert await module("_quota").told(app, 1) == "900 MiB, no limit"


async def test_stats_show_what_is_used_and_reserved(start: StartApp) -> None:
    app = await start()
    await spend(app, 3)
    told = module("_quota").told
    assert await told(app, 1) == "3 MiB of 10 MiB"
    await attempt(app, job_of(4))
    reserved = "4 MiB reserved for running downloads"
    assert await told(app, 1) == f"3 MiB of 10 MiB\n{reserved}"


# A restart


async def test_quota_survives_a_restart_and_frees_what_is_gone(
    start: StartApp,
) -> None:
    app = await start()
    await spend(app, 3)
    job = job_of(4)
    await attempt(app, job)
    await app.database.all("DELETE FROM jobs WHERE id = ?", job.id)
    await app.stop()
    app = await start()
    assert await spent(app) == (3, 4)
    await spend(app, 7)  # the job is not in the queue any more
    assert await spent(app) == (10, 0)


async def test_days_that_are_over_are_forgotten(start: StartApp) -> None:
    app = await start()
    await spend(app, 3)
    await spend(app, 2, guild_id=2)
    sql = "UPDATE quota_holders SET day = day - 2 WHERE holder = 1"
    await app.database.all(sql)
    await app.stop()
    app = await start()
    async with asyncio.timeout(60):
        while await app.database.all("SELECT 1 FROM quota_holders WHERE holder = 1"):
            await asyncio.sleep(0.01)
    assert await app.facts.get("quota:1") == "" != await app.facts.get("quota:2")


# In Discord


async def test_member_reads_that_the_quota_is_used_up(stage: Stage) -> None:
    stage.add_plugin("quota")
    url = link(stage.padded(600_000))
    async with stage.bot(quota__daily_quota="500KiB") as bot:
        await stage.says(f"$download {url}")
        failed = await stage.hears(
            "**Download failed** (quota)", "only 500 KiB is left"
        )
        job = await bot.app.queue.get(job_id(failed))
        assert job and job.cause is Cause.QUOTA
        await stage.says(f"$download {link(stage.padded(500 * 1024))}")
        await stage.gets(1)
        await stage.hears("Done in")
        said = await stage.says(f"$download {url}")
        await stage.hears("used up", "resets <t:", after=said.id)
        used = await stage.fake.slash(stage.channel_id, "download", {"url": url})
        answer = await stage.hears("used up", "resets <t:", after=used)
        assert answer.only_for is stage.fake.member
        assert len(await bot.app.queue.list()) == 2


async def test_files_are_within_the_size_of_the_server(stage: Stage) -> None:
    stage.add_plugin("quota")
    folder = stage.folder / "data" / "guilds"
    folder.mkdir(parents=True, exist_ok=True)
    setting = "[quota]\nmax_file_size = 100_000\n"
    (folder / f"{stage.fake.guild.id}.toml").write_text(setting)
    async with stage.bot():
        await stage.says(f"$download {link(stage.padded(200_000), stage.image())}")
        [message] = await stage.gets(1)
        assert "the limit is 97.7 KiB" in message.content
