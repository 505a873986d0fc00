"""Delivery: whatever Discord or the network does, files are posted once."""

import asyncio
import shutil
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from discord_support import Stage, job_at, job_id, link, module
from fake_discord import Action

from bossbot import BossBot, Cause, Job, Status

pytest_plugins = ("discord_fixtures",)

PLUGINS = Path(__file__).parent / "plugins"

ACTIONS: list[Action] = [
    *(429, 500, 502, 503, 520, "reset", "lost_answer", "hang", "hang_answer")
]
SLOW = (500, 502)  # discord.py itself waits for a second
HANGS = ("hang", "hang_answer")


def be_quick(bot: BossBot, timeout_s: float = 5) -> None:
    """Lets a bot wait for less long."""
    courier: Any = bot.app.courier
    courier.retry_wait_s, courier.send_timeout_s = 0.05, timeout_s
    module("progress").tracker.edit_timeout_s = timeout_s


async def last_job(bot: BossBot, status: Status) -> Any:
    job = (await bot.app.queue.list())[-1]
    return await job_at(bot, job.id, status)


async def only_job(bot: BossBot, status: Status) -> Any:
    assert len(await bot.app.queue.list()) == 1
    return await last_job(bot, status)


async def given_up(bot: BossBot, status: Status = Status.UPLOADING) -> Any:
    """The only job, once the worker has no more to do with it; it is still claimed."""
    await only_job(bot, status)
    worker: Any = bot.app.worker
    if tasks := list(worker.running.values()):
        _, pending = await asyncio.wait(tasks, timeout=60)
        assert not pending
    return await only_job(bot, status)


# Uploads


async def test_upload_whose_file_a_disk_holds_back_is_tried_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, go, read = list[Path](), threading.Event(), Path.read_bytes

    def hold_first(path: Path) -> bytes:
        if not held:
            held.append(path)
            go.wait(60)
        return read(path)

    async with stage.bot() as bot:
        be_quick(bot, 0.3)
        monkeypatch.setattr(Path, "read_bytes", hold_first)
        await stage.says(f"$download {link(stage.image())}")
        await stage.gets(1)
        assert held
        go.set()


async def test_upload_that_meets_a_fault_is_posted_once(stage: Stage) -> None:
    steps = stage.images(12)
    async with stage.bot() as bot:
        for number, action in enumerate(ACTIONS, 1):
            print(action)  # shown when it fails
            times = 1 if action in SLOW else 2
            fault = stage.fake.fault("upload", action, times)
            be_quick(bot, 0.3 if action in HANGS else 5)
            await stage.says(f"$download {link(*steps)}")
            messages = (await stage.gets(12 * number))[-2:]
            await last_job(bot, Status.COMPLETED)
            assert fault.hits == fault.times
            posted = [file.data for message in messages for file in message.files]
            assert posted == [stage.bytes_of(step) for step in steps]
            assert len(stage.posted()) == 2 * number


async def test_upload_is_given_up_after_five_tries_and_that_is_said(
    stage: Stage,
) -> None:
    stage.fake.fault("upload", 503, times=99)
    async with stage.bot() as bot:
        be_quick(bot)
        await stage.says(f"$download {link(stage.image())}")
        await stage.hears("**Download failed** (network)", "Try again later.")
        assert (await only_job(bot, Status.FAILED)).cause is Cause.NETWORK
    assert stage.requested("upload") == 5
    assert not stage.posted()


async def test_rate_limit_of_more_than_the_time_limit_is_waited_for(
    stage: Stage,
) -> None:
    stage.fake.fault("upload", 429, retry_after_s=1)
    async with stage.bot() as bot:
        be_quick(bot, 0.3)
        bot.http.max_ratelimit_timeout = 0.2  # ours is 60 s
        await stage.says(f"$download {link(stage.image())}")
        await stage.gets(1)
    first, second, *_ = (r.at for r in stage.fake.requests if r.kind == "upload")
    assert second - first >= 1


async def test_upload_holds_no_download_slot(stage: Stage) -> None:
    fault = stage.fake.fault("upload", "hang")
    async with stage.bot(max_concurrent_downloads=1):
        await stage.says(f"$download {link(stage.image(1))}")
        await stage.fake.wait_for(lambda: fault.hits)
        await stage.says(f"$download {link(stage.image(2))}")
        [second] = await stage.gets(1)
        fault.release()
        await stage.gets(2)
    assert second.files[0].data == stage.bytes_of(stage.image(2))


async def test_413_for_everything_ends(stage: Stage) -> None:
    stage.fake.guild.upload_limit_bytes = 10
    async with stage.bot():
        await stage.says(f"$download {link(*stage.images(3))}")
        await stage.hears("**Download failed** (too_large)", "the limit is 1 B")
    assert stage.requested("upload") < 20
    assert not stage.posted()


@pytest.mark.parametrize(("fault", "count"), [(413, 2), (0, 11)])
async def test_files_of_several_messages_are_on_the_disk_before_the_first(
    stage: Stage, fault: int, count: int
) -> None:
    if fault:  # which splits one
        stage.fake.fault("upload", fault)
    async with stage.bot() as bot:
        storage, posted = bot.app.storage, list[int]()
        sync = storage.sync

        async def watched(job: Job) -> None:
            await sync(job)
            posted.append(len(stage.posted()))

        storage.sync = watched  # type: ignore[method-assign]
        await stage.says(f"$download {link(*stage.images(count))}")
        await stage.gets(count)
    assert posted == [0]


async def test_limit_that_413_teaches_is_remembered_for_the_next_link(
    stage: Stage,
) -> None:
    mib = 2**20
    stage.fake.guild.upload_limit_bytes = 7 * mib
    step = stage.padded(9 * mib)
    async with stage.bot():
        await stage.says(f"$download {link(step)}")
        await stage.hears("**Download failed** (too_large)", "the limit is 8 MiB")
        tries = stage.requested("upload")
    assert tries == 1
    async with stage.bot() as bot:  # also after a restart
        await stage.says(f"$download {link(stage.padded(9 * mib, 2))}")
        await stage.fake.wait_for(
            lambda: sum("the limit is 8 MiB" in m.content for m in stage.said()) == 2
        )
        limits = [job.limit_bytes for job in await bot.app.queue.list()]
        assert limits == [8 * mib] * 2  # what the files of each were made for
        assert stage.requested("upload") == tries
        # It is not low enough yet: the next file teaches the rest.
        await stage.says(f"$download {link(stage.padded(15 * mib // 2))}")
        await stage.hears("the limit is 4 MiB")
        await stage.says(f"$download {link(stage.image())}")
        await stage.gets(1)
        assert [job.limit_bytes for job in await bot.app.queue.list()][-1] == 4 * mib


async def test_limit_that_was_learnt_meanwhile_holds_for_a_job_under_way(
    stage: Stage,
) -> None:
    mib = 2**20
    stage.fake.guild.upload_limit_bytes = 9 * mib
    async with stage.bot() as bot:
        await stage.says(f"$download {link('wait=gate', stage.padded(12 * mib))}")
        await stage.hears("Downloading")
        await bot.app.facts.set(
            f"limit:{stage.fake.guild.id}:{20 * mib}", f"{10 * mib}"
        )
        stage.open_gate("gate")
        await stage.hears("**Download failed** (too_large)", "the limit is 10 MiB")
    assert not stage.requested("upload")


async def lose_claims(bot: BossBot) -> None:
    """Another worker takes every job that is under way."""
    await bot.app.database.all("UPDATE jobs SET claim_number = claim_number + 1")


async def test_post_whose_claim_was_lost_is_not_sent(
    stage: Stage, logged: list[str]
) -> None:
    shutil.copy(PLUGINS / "lose.py", stage.plugins)
    async with stage.bot() as bot:
        await stage.says(f"$download {link(*stage.images(11))}")
        await stage.hears("Download started")
        job = await given_up(bot, Status.DOWNLOADING)
    assert not job.posts  # nothing was stored for another claim
    assert not stage.requested("upload")
    assert not [line for line in logged if line.startswith(("ERROR", "CRITICAL"))]


@pytest.mark.parametrize("heard", ["by the claim", "by a cancel of the task"])
async def test_job_that_is_cancelled_just_before_its_message_leaves_nothing(
    stage: Stage, heard: str
) -> None:
    shutil.copy(PLUGINS / "cancel_late.py", stage.plugins)
    if "task" in heard:
        with (stage.plugins / "cancel_late.py").open("a") as plugin:
            plugin.write("    await asyncio.Event().wait()\n")
    async with stage.bot() as bot:
        await stage.says(f"$download {link(stage.image())}")
        status = await stage.hears("Download started")
        job = await job_at(bot, job_id(status), Status.CANCELLED)
        while bot.app.worker.running:  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)
    assert not stage.requested("upload")
    assert job.id not in {path.name for path in stage.folder.rglob("downloads/*/*/*")}
    assert not [*stage.folder.rglob(f"{job.id}*")], "an attempt is left"


async def test_courier_stops_at_once_when_its_claim_is_lost_while_it_posts(
    stage: Stage,
) -> None:
    fault = stage.fake.fault("upload", "hang")
    async with stage.bot() as bot:
        await stage.says(f"$download {link(*stage.images(21))}")
        await stage.fake.wait_for(lambda: fault.hits)
        await lose_claims(bot)
        fault.release()
        await given_up(bot)
    assert len(stage.posted()) == 1  # which was on its way
    assert stage.requested("upload") == 1
    states = [post["state"] for post in stage.posts()]
    assert states == ["sending", "waiting", "waiting"]


async def test_try_again_after_a_lost_claim_sends_nothing(stage: Stage) -> None:
    fault = stage.fake.fault("upload", "hang", times=9)
    async with stage.bot() as bot:
        be_quick(bot, 3)
        await stage.says(f"$download {link(stage.image())}")
        await stage.fake.wait_for(lambda: fault.hits)
        await lose_claims(bot)
        await given_up(bot)
        fault.release()
    assert stage.requested("upload") == 1


async def test_lease_is_kept_while_a_post_takes_its_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = stage.fake.fault("upload", "hang")
    async with stage.bot() as bot:
        worker: Any = bot.app.worker
        worker.lease_s = 6
        keep, kept = bot.app.queue.keep, asyncio.Event()

        async def noted(job: Job, lease_s: float) -> bool:
            answer = await keep(job, lease_s)
            if job.status is Status.UPLOADING and answer:
                kept.set()
            return answer

        monkeypatch.setattr(bot.app.queue, "keep", noted)
        await stage.says(f"$download {link(stage.image())}")
        await stage.fake.wait_for(lambda: fault.hits)
        async with asyncio.timeout(60):
            await kept.wait()
        await lose_claims(bot)  # the next beat finds out, long before an answer
        await given_up(bot)
        fault.release()
    assert stage.requested("upload") == 1


async def test_decoration_far_too_large_arrives_clipped_with_the_files(
    stage: Stage,
) -> None:
    shutil.copy(PLUGINS / "decor.py", stage.plugins)
    async with stage.bot():
        await stage.says(f"$download {link(*stage.images(2))}")
        [message] = await stage.gets(2)
    assert stage.requested("upload") == 1
    assert len(message.content) == 2000 and message.content.endswith("yyy")
    [embed] = message.embeds
    assert embed["title"] == "t" * 255 + "…"
    assert embed["description"] == "d" * 4095 + "…"
    assert embed["author"]["name"] == "a" * 255 + "…"
    assert embed["footer"]["text"] == "f" * 100
    fields = [(field["name"], field["value"]) for field in embed["fields"]]
    assert fields == [("0" * 255 + "…", "v" * 1023 + "…")]


# Status messages


async def test_edit_that_meets_a_fault_neither_delays_nor_fails_the_job(
    stage: Stage,
) -> None:
    async with stage.bot() as bot:
        be_quick(bot, 600)
        for number, action in enumerate(ACTIONS, 1):
            print(action)  # shown when it fails
            # The first one and, for most, the last one.
            times = 1 if action in SLOW else 2
            fault, gate = stage.fake.fault("edit", action, times), f"gate{number}"
            url = link(f"wait={gate}", stage.image())
            after = (await stage.says(f"$download {url}")).id
            status = await stage.hears("Download started", after=after)
            await stage.fake.wait_for(lambda fault=fault: fault.hits)
            stage.open_gate(gate)
            await stage.gets(number)
            await last_job(bot, Status.COMPLETED)
            if action in HANGS:
                fault.release()
            await stage.fake.wait_for(lambda status=status: "Done in" in status.content)
            assert len(stage.said()) == 2 * number


async def test_last_edit_is_made_again_when_it_fails(stage: Stage) -> None:
    async with stage.bot(edit_interval_s=1):
        await stage.says(f"$download {link('wait=gate', stage.image())}")
        await stage.hears("Downloading")
        stage.fake.fault("edit", "reset")
        stage.open_gate("gate")
        await stage.hears("Done in")


async def test_failure_that_comes_before_the_answer_is_told_in_the_end(
    stage: Stage,
) -> None:
    fault = stage.fake.fault("send", "hang")
    async with stage.bot() as bot:
        await stage.says(f"$download {link('fail=gone')}")
        await stage.fake.wait_for(lambda: fault.hits)
        await only_job(bot, Status.FAILED)
        fault.release()
        await stage.hears("**Download failed** (gone)")
    assert len(stage.said()) == 1


async def test_answer_that_cannot_be_sent_stops_neither_job_nor_other_links(
    stage: Stage,
) -> None:
    actions: list[Action] = [500, 503, "reset", "lost_answer", 403]
    first, second = (link(step) for step in stage.images(2))
    wanted = sorted(stage.bytes_of(step) for step in stage.images(2))
    async with stage.bot():
        for number, action in enumerate(actions, 1):
            print(action)  # shown when it fails
            fault = stage.fake.fault("send", action)
            await stage.says(f"$download {first} {second}")
            messages = (await stage.gets(2 * number))[-2:]
            assert sorted(message.files[0].data for message in messages) == wanted
            await stage.fake.wait_for(lambda fault=fault: fault.hits)


async def test_slash_command_survives_a_lost_answer(stage: Stage) -> None:
    actions: list[Action] = [503, "reset", "lost_answer"]
    cases = [(kind, one) for kind in ("callback", "followup") for one in actions]
    options = {"url": link(stage.image())}
    async with stage.bot() as bot:
        for number, (kind, action) in enumerate(cases, 1):
            print(kind, action)  # shown when it fails
            fault = stage.fake.fault(kind, action)
            await stage.fake.slash(stage.channel_id, "download", options)
            await stage.gets(number)
            await last_job(bot, Status.COMPLETED)
            await stage.fake.wait_for(lambda fault=fault: fault.hits)
            assert len(stage.posted()) == number


# Things that go away while a job runs


async def while_downloading(
    stage: Stage, happen: Callable[[Any, Any], Awaitable[Any]], *steps: str
) -> tuple[Any, Any]:
    """Lets something happen to a request and its status message before the download
    goes on; returns both."""
    request = await stage.says(f"$download {link('wait=gate', *steps)}")
    status = await stage.hears("Downloading")
    await happen(request, status)
    stage.open_gate("gate")
    return request, status


async def test_deleted_request_gets_its_file_without_a_reply(stage: Stage) -> None:
    async with stage.bot() as bot:
        await while_downloading(
            stage, lambda r, s: stage.fake.delete_message(r.id), stage.image()
        )
        [message] = await stage.gets(1)
        await only_job(bot, Status.COMPLETED)
    assert message.replied_to is None


async def test_deleted_status_message_stays_away_when_the_job_ends_well(
    stage: Stage,
) -> None:
    async with stage.bot() as bot:
        await while_downloading(
            stage, lambda r, s: stage.fake.delete_message(s.id), stage.image()
        )
        await stage.gets(1)
        await only_job(bot, Status.COMPLETED)
        await stage.fake.settle()
    assert len(stage.said()) == 1


async def test_failure_is_said_anew_when_the_status_message_was_deleted(
    stage: Stage,
) -> None:
    async with stage.bot():
        await while_downloading(
            stage, lambda r, s: stage.fake.delete_message(s.id), "fail=gone"
        )
        await stage.hears("**Download failed** (gone)")


async def test_deleted_channel_ends_the_job_and_its_member_is_told(
    stage: Stage,
) -> None:
    direct = stage.fake.open_dm(stage.fake.member.id)
    async with stage.bot() as bot:
        await while_downloading(
            stage,
            lambda r, s: stage.fake.delete_channel(stage.channel_id),
            stage.image(),
        )
        job = await only_job(bot, Status.FAILED)
        await stage.hears(
            "**Download failed** (permission)", job.id, channel_id=direct.id
        )
    assert job.cause is Cause.PERMISSION
    assert "does not exist any more" in job.error


async def test_lost_permission_ends_the_job_and_is_said(stage: Stage) -> None:
    async with stage.bot() as bot:
        await while_downloading(
            stage,
            lambda r, s: stage.fake.deny(stage.channel_id, "attach_files"),
            stage.image(),
        )
        await stage.hears("**Download failed** (permission)", "Attach Files")
        job = await only_job(bot, Status.FAILED)
    assert (stage.folder / "data" / job.folder / "content").is_dir()  # for its time
    assert stage.requested("upload") == 1


async def test_lost_access_is_told_in_a_direct_message(stage: Stage) -> None:
    direct = stage.fake.open_dm(stage.fake.member.id)
    async with stage.bot():
        await while_downloading(
            stage,
            lambda r, s: stage.fake.deny(stage.channel_id, "view_channel"),
            stage.image(),
        )
        await stage.hears("**Download failed** (permission)", channel_id=direct.id)


# The gateway


@pytest.mark.parametrize(
    "ways", [["drop", "op 7", "op 9", "op 9, resumable"], ["silence"]], ids=" ".join
)
async def test_jobs_go_on_while_the_gateway_comes_back(
    stage: Stage, ways: list[str]
) -> None:
    fake = stage.fake
    options = {}
    if ways == ["silence"]:
        fake.heartbeat_interval_s = 0.1
        options = {"heartbeat_timeout": 0.5}
    async with stage.bot(options) as bot:
        for number, how in enumerate(ways, 1):
            print(how)  # shown when it fails
            # No progress: its events would be signs of life.
            url = link(f"hang=gate{number}", stage.image(1))
            after = (await stage.says(f"$download {url}")).id
            await stage.hears("Downloading", after=after)
            connects = fake.sessions["connect"]
            match how:
                case "drop":
                    await fake.drop_gateway()
                case "op 7":
                    await fake.reconnect_op7()
                case "silence":
                    fake.ack_heartbeats = False
                case _:
                    await fake.invalid_session(how == "op 9, resumable")
            await fake.wait_for(lambda n=connects: fake.sessions["connect"] > n)
            fake.ack_heartbeats = True
            await fake.wait_for(lambda: fake.connected)
            await stage.says(f"$download {link(stage.image(2))}")
            await stage.gets(2 * number - 1)
            stage.open_gate(f"gate{number}")
            await stage.gets(2 * number)
            assert len(await bot.app.queue.list()) == 2 * number
    assert len(stage.posted()) == 2 * len(ways)


async def test_what_was_said_during_an_outage_is_taken_once(stage: Stage) -> None:
    async with stage.bot() as bot:
        await stage.fake.drop_gateway()
        await stage.says(f"$download {link(stage.image())}")  # RESUME delivers it
        await stage.gets(1)
        await stage.fake.drop_gateway()
        await stage.fake.wait_for(lambda: stage.fake.sessions["resume"] == 2)
        await stage.fake.settle()
        assert len(await bot.app.queue.list()) == 1
    assert len(stage.posted()) == 1


# After a crash: a first bot ends well, then the database is put back to the crash


async def crash_in_uploads(
    stage: Stage, *links: list[str], sending_s_ago: Sequence[float]
) -> list[str]:
    """Posts links, then makes it look as if the bot had died before it stored that the
    last message of each was sent; returns the jobs' ids."""
    jobs, last = list[str](), 0
    async with stage.bot() as bot:
        for steps in links:
            last = (await stage.says(f"$download {link(*steps)}")).id
            jobs.append(job_id(await stage.hears("Done in", after=last)))
            await last_job(bot, Status.COMPLETED)
    stage.database("UPDATE jobs SET status = 'uploading', finished_at = 0")
    for job, ago in zip(jobs, sending_s_ago, strict=True):
        sending_at = time.time() - ago
        stage.set_post(-1, job, state="sending", message_id=0, sending_at=sending_at)
    return jobs


async def crash_in_upload(stage: Stage, *steps: str, sending_s_ago: float) -> str:
    """The same with one link."""
    [job] = await crash_in_uploads(stage, [*steps], sending_s_ago=[sending_s_ago])
    return job


async def test_post_that_the_channel_does_not_show_yet_is_sent_with_its_nonce(
    stage: Stage,
) -> None:
    job = await crash_in_upload(stage, *stage.images(11), sending_s_ago=30)
    before = [message.id for message in stage.posted()]
    stage.fake.shows_history = False
    async with stage.bot() as bot:
        await job_at(bot, job, Status.COMPLETED)
    assert stage.requested("upload") == 3
    assert [message.id for message in stage.posted()] == before
    numbers = [message.nonce and message.nonce[-2:] for message in stage.posted()]
    assert numbers == ["-1", "-2"]


async def test_post_sent_before_a_crash_is_found_in_the_channel(stage: Stage) -> None:
    stage.fake.nonce_window_s = 0  # Discord has forgotten it
    # By the clock of the bot, which may have been a day ahead, or have lost time since.
    ago = [1, 30, 90, 86400, -30, -86400]
    links = [stage.images(11)] * len(ago)
    jobs = await crash_in_uploads(stage, *links, sending_s_ago=ago)
    before = [message.id for message in stage.posted()]
    async with stage.bot() as bot:
        for job in jobs:
            await job_at(bot, job, Status.COMPLETED)
    assert stage.requested("upload") == len(before) == 12
    for number, job in enumerate(jobs):
        found = [post["message_id"] for post in stage.posts(job)]
        assert found == before[2 * number :][:2], ago[number]


async def take_over(stage: Stage, job: str) -> None:
    """Lets a job be claimed anew, as by another worker, and end."""
    stage.database("UPDATE jobs SET status = 'queued', crashes = 0")
    async with stage.bot() as bot:
        await job_at(bot, job, Status.COMPLETED)


# Discord remembers the nonce at first; later the message is found in the channel.
@pytest.mark.parametrize("sending_s_ago", [30, 90])
async def test_takeover_keeps_what_was_sent_and_posts_the_rest(
    stage: Stage, sending_s_ago: float
) -> None:
    if sending_s_ago > 60:
        stage.fake.nonce_window_s = 0
    steps = stage.images(25)
    job = await crash_in_upload(stage, *steps, sending_s_ago=sending_s_ago)
    # The second is on its way, the third not begun.
    second = stage.posts()[1]
    sending_at = time.time() - sending_s_ago
    stage.set_post(2, state="sending", message_id=0, sending_at=sending_at)
    stage.set_post(3, state="waiting", message_id=0, sending_at=0)
    third = stage.posted()[2]
    third.nonce = None  # nor was it ever
    await stage.fake.delete_message(third.id)
    before = [message.id for message in stage.posted()]
    assert len(before) == 2
    await take_over(stage, job)
    posted = stage.posted()
    assert [message.id for message in posted[:2]] == before
    assert len(posted) == 3
    assert [file.data for message in posted for file in message.files] == [
        stage.bytes_of(step) for step in steps
    ]
    nonces = [message.nonce or "" for message in posted]
    assert [nonce.rpartition("-")[2] for nonce in nonces] == ["1", "2", "3"]
    assert posted[2].content == "(3/3)"
    posts = stage.posts()
    assert [post["state"] for post in posts] == ["sent"] * 3
    assert posts[1]["message_id"] == second["message_id"]
    assert stage.database("SELECT file_count FROM jobs") == [(25,)]


async def test_takeover_that_finds_everything_posted_posts_nothing(
    stage: Stage,
) -> None:
    job = await crash_in_upload(stage, *stage.images(11), sending_s_ago=30)
    before = [message.id for message in stage.posted()]
    await take_over(stage, job)
    assert [message.id for message in stage.posted()] == before


@pytest.mark.parametrize("sending_s_ago", [30, 90])
async def test_takeover_knows_its_files_under_another_title_and_content(
    stage: Stage, sending_s_ago: float
) -> None:
    """The site has changed the post since."""
    if sending_s_ago > 60:
        stage.fake.nonce_window_s = 0
    title = stage.facts("title", title="Before")
    file = stage.media / f"changing-{sending_s_ago}.jpg"
    file.write_bytes(stage.bytes_of(stage.image(1)))
    steps = [title, f"file={file.name}"]
    job = await crash_in_upload(stage, *steps, sending_s_ago=sending_s_ago)
    before = [message.id for message in stage.posted()]
    stage.facts("title", title="After")
    file.write_bytes(stage.bytes_of(stage.image(2)))
    await take_over(stage, job)
    assert [message.id for message in stage.posted()] == before
    [post] = stage.posts()
    assert (post["state"], post["message_id"]) == ("sent", before[0])


async def test_post_that_never_arrived_is_sent(stage: Stage) -> None:
    stage.fake.nonce_window_s = 0
    ago, steps = [30, 90], stage.images(2)
    jobs = await crash_in_uploads(stage, *([s] for s in steps), sending_s_ago=ago)
    for message in stage.posted():
        await stage.fake.delete_message(message.id)
    await stage.says("something else")
    async with stage.bot() as bot:
        for job in jobs:
            await job_at(bot, job, Status.COMPLETED)
    sent = sorted(message.files[0].data for message in stage.posted())
    assert sent == sorted(map(stage.bytes_of, steps))


async def test_text_sent_long_before_is_found_in_the_channel(stage: Stage) -> None:
    stage.fake.nonce_window_s = 0
    text = stage.facts("text", text="Only words.")
    job = await crash_in_upload(stage, text, sending_s_ago=90)
    async with stage.bot() as bot:
        await job_at(bot, job, Status.COMPLETED)
    assert sum("Only words" in said.content for said in stage.said()) == 1


async def test_history_that_cannot_be_read_at_once_is_asked_for_again(
    stage: Stage,
) -> None:
    stage.fake.nonce_window_s = 0
    job = await crash_in_upload(stage, stage.image(), sending_s_ago=90)
    stage.fake.fault("history", 503, times=2)
    async with stage.bot() as bot:
        be_quick(bot)
        await job_at(bot, job, Status.COMPLETED)
    assert len(stage.posted()) == 1


async def test_older_copy_of_the_queue_posts_nothing_twice(stage: Stage) -> None:
    """It knows of no post. Of one that is there in part only, the rest counts."""
    stage.fake.nonce_window_s = 0
    links = [stage.images(11), stage.images(22)[11:]]
    jobs = await crash_in_uploads(stage, *links, sending_s_ago=[0, 0])
    before = [message.id for message in stage.posted()]
    stage.posted()[2].files.pop()
    sql = "UPDATE jobs SET status = 'queued', crashes = 0, posts = '[]', sources = '[]'"
    stage.database(f"{sql}, folder = '', attempts = 0")
    shutil.copy(PLUGINS / "lag.py", stage.plugins)
    async with stage.bot() as bot:
        for job in jobs:
            await job_at(bot, job, Status.COMPLETED)
    [again] = [message.id for message in stage.posted()][len(before) :]
    posts = [[post["message_id"] for post in stage.posts(job)] for job in jobs]
    assert posts == [before[:2], [again, before[3]]]


async def test_post_is_found_without_a_request_to_look_after(stage: Stage) -> None:
    """A slash command whose status message never came."""
    stage.fake.nonce_window_s = 0
    job = await crash_in_upload(stage, stage.image(), sending_s_ago=-86400)
    before = [message.id for message in stage.posted()]
    for key in ("999:0", "key"):  # an interaction's number, or none of Discord's
        sql = "UPDATE jobs SET status = 'uploading', message_id = 0, request_key = ?"
        stage.database(f"{sql}, status_message_id = 0", key)
        stage.set_post(-1, state="sending", message_id=0)
        async with stage.bot() as bot:
            await job_at(bot, job, Status.COMPLETED)
        assert [message.id for message in stage.posted()] == before


async def test_two_bots_with_one_token_post_once(stage: Stage) -> None:
    files = link(stage.image())
    async with stage.bot():
        request = await stage.says(f"$download {files}")
        await stage.gets(1)
        await stage.hears("Done in")
    async with stage.bot(data_dir=stage.folder / "other") as bot:
        for number, uploads in ((0, 2), (1, 3)):
            accepted = await bot.app.intake(
                Job(
                    url=files,
                    guild_id=stage.fake.guild.id,
                    channel_id=stage.channel_id,
                    user_id=stage.fake.member.id,
                    request_key=f"{request.id}:{number}",
                    message_id=request.id,
                )
            )
            assert accepted and accepted.job
            await job_at(bot, accepted.job.id, Status.COMPLETED)
            assert stage.requested("upload") == uploads
            assert len(stage.posted()) == number + 1, "another link is another post"


async def test_kept_file_that_is_gone_is_downloaded_again_if_nothing_was_sent(
    stage: Stage,
) -> None:
    """As after a power cut, on a file system that kept the database's changes only."""
    stage.fake.nonce_window_s = 0
    ways, steps = ("gone", "cut", "all gone", "a folder"), stage.images(8)
    downloads = stage.folder / "data" / "downloads"
    links = [steps[n : n + 2] for n in range(0, 8, 2)]
    jobs = await crash_in_uploads(stage, *links, sending_s_ago=[30] * 4)
    for message in stage.posted():
        await stage.fake.delete_message(message.id)
    for how, job in zip(ways, jobs, strict=True):
        first, _ = sorted(downloads.rglob(f"{job}/*/*_0?.jpg"))
        match how:
            case "gone":
                first.unlink()
            case "cut":
                first.write_bytes(b"")
            case "all gone":
                shutil.rmtree(first.parents[1])
                for known in downloads.glob(f".contents/*/{job}"):
                    known.unlink()  # which leads to it
                stage.database("UPDATE jobs SET folder = '' WHERE id = ?", job)
            case _:
                first.unlink()
                first.mkdir()
    async with stage.bot() as bot:
        for how, job in zip(ways, jobs, strict=True):
            assert (await job_at(bot, job, Status.COMPLETED)).attempts == 2, how
    sent = [[file.data for file in message.files] for message in stage.posted()]
    assert sorted(sent) == sorted([*map(stage.bytes_of, one)] for one in links)


async def test_file_that_does_not_stay_is_given_up(stage: Stage) -> None:
    async with stage.bot() as bot:
        keep = bot.app.storage.keep

        async def lose(job: Job, files: Any) -> Any:
            kept = await keep(job, files)
            kept[0].path.unlink()
            return kept

        bot.app.storage.keep = lose  # type: ignore[method-assign]
        await stage.says(f"$download {link(stage.image())}")
        await stage.hears("**Download failed** (internal)")
        stored = await only_job(bot, Status.FAILED)
    assert stored.attempts == 3 and "a kept file is gone" in stored.detail
    assert not stage.posted()


async def test_post_that_arrived_needs_no_file_any_more(stage: Stage) -> None:
    job = await crash_in_upload(stage, stage.image(), sending_s_ago=30)
    shutil.rmtree(stage.folder / "data" / "downloads")
    async with stage.bot() as bot:
        await job_at(bot, job, Status.COMPLETED)
    assert len(stage.posted()) == 1


async def test_kept_file_that_has_changed_is_not_posted(stage: Stage) -> None:
    stage.fake.nonce_window_s = 0
    job = await crash_in_upload(stage, *stage.images(11), sending_s_ago=30)
    await stage.fake.delete_message(stage.posted()[1].id)
    [last] = (stage.folder / "data" / "downloads").rglob("*_11.jpg")
    last.write_bytes(stage.bytes_of(stage.image(12)))
    async with stage.bot() as bot:
        stored = await job_at(bot, job, Status.FAILED)
    assert stored.detail == "a kept file has changed"
    assert stage.requested("upload") == 2


async def test_job_that_crashed_the_bot_three_times_is_failed_and_that_is_said(
    stage: Stage,
) -> None:
    async with stage.bot() as bot:
        await stage.says(f"$download {link('wait=gate')}")
        status = await stage.hears("Download started")
        job = job_id(status)
        await stage.fake.wait_for(lambda: "Downloading" in status.content)
    assert stage.database("SELECT status, crashes FROM jobs") == [("queued", 0)]
    for crashes in (0, 1, 2):
        assert stage.database("SELECT crashes FROM jobs") == [(0,)]  # a stop is none
        stage.database(
            f"UPDATE jobs SET status = 'downloading', crashes = {crashes + 1}"
        )
        async with stage.bot() as bot:
            if crashes == 2:
                await job_at(bot, job, Status.FAILED)
                await stage.hears("**Download failed** (internal)", "it gave up")
            else:
                await job_at(bot, job, Status.DOWNLOADING)


async def test_upload_that_a_stop_cuts_off_has_not_crashed_the_bot(
    stage: Stage,
) -> None:
    for start in range(2):
        fault = stage.fake.fault("upload", "hang")
        async with stage.bot() as bot:
            if start == 0:
                await stage.says(f"$download {link(stage.image())}")
            await stage.fake.wait_for(lambda fault=fault: fault.hits)
            bot.app.worker.grace_s = 0.1  # type: ignore[attr-defined]
        fault.release()
        states = stage.database("SELECT status, crashes FROM jobs")
        assert states == [("uploading", 0)]
    async with stage.bot():
        await stage.gets(1)


async def test_stop_lets_an_upload_end_and_says_so(stage: Stage) -> None:
    fault = stage.fake.fault("upload", "hang")
    async with stage.bot() as bot:
        await stage.says(f"$download {link(stage.image())}")
        await stage.fake.wait_for(lambda: fault.hits)
        stage.fake.fault("edit", "hang", for_s=0.5)
        closing = asyncio.create_task(bot.app.stop())
        await stage.fake.settle()
        fault.release()
        await closing
    assert stage.database("SELECT status FROM jobs") == [("completed",)]
    assert len(stage.posted()) == 1
    await stage.hears("Done in")


async def test_start_that_is_cut_off_has_not_crashed_the_uploads_it_took_up(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await crash_in_upload(stage, stage.image(), sending_s_ago=30)
    fault = stage.fake.fault("history", "hang")
    app = stage.app(discord_token=stage.fake.token)
    worker: Any = app.worker
    worker.grace_s = 0.1
    recover, claimed, cut_off = app.queue.recover, asyncio.Event(), asyncio.Event()

    async def slow(name: str, lease_s: float) -> Any:
        jobs = await recover(name, lease_s)
        claimed.set()
        await cut_off.wait()
        return jobs

    monkeypatch.setattr(app.queue, "recover", slow)
    with stage.fake.redirect():
        starting = asyncio.create_task(app.start())
        await claimed.wait()
        starting.cancel()
        await asyncio.wait([starting])
        cut_off.set()
        await app.stop()
    fault.release()
    assert stage.database("SELECT status, crashes FROM jobs") == [("uploading", 0)]
    async with stage.bot() as bot:
        await only_job(bot, Status.COMPLETED)
    assert len(stage.posted()) == 1


async def test_stop_gives_a_download_back_though_the_disk_is_full_at_first(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage.bot() as bot:
        worker: Any = bot.app.worker
        worker.insist_s = 0.05
        await stage.says(f"$download {link('wait=gate', stage.image())}")
        await stage.hears("Downloading")
        release, failures = bot.app.queue.release, [1, 2, 3]

        async def full(job: Job, delay_s: float = 0) -> bool:
            if failures:
                failures.pop()
                raise sqlite3.OperationalError("database or disk is full")
            return await release(job, delay_s)

        monkeypatch.setattr(bot.app.queue, "release", full)
    assert stage.database("SELECT status, crashes FROM jobs") == [("queued", 0)]
    stage.open_gate("gate")
    async with stage.bot():
        await stage.gets(1)


async def test_stop_while_a_failure_is_stored_leaves_no_half_of_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage.bot() as bot:
        forget, ending = bot.app.storage.forget_attempt, asyncio.Event()

        async def slow(job: Job) -> None:
            if job.status is Status.FAILED:
                ending.set()
                await asyncio.Event().wait()
            await forget(job)

        monkeypatch.setattr(bot.app.storage, "forget_attempt", slow)
        await stage.says(f"$download {link('fail=gone')}")
        await ending.wait()
    states = stage.database("SELECT status, cause, error, finished_at FROM jobs")
    assert states == [("queued", None, "", 0)]
    async with stage.bot():
        await stage.hears("**Download failed** (gone)")


async def test_state_that_cannot_be_stored_is_written_until_it_can(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage.bot() as bot:
        worker: Any = bot.app.worker
        worker.insist_s = 0.01
        finish, failures = bot.app.queue.finish, [1, 2, 3]

        async def full(job: Job) -> bool:
            if failures:
                failures.pop()
                raise sqlite3.OperationalError("database or disk is full")
            return await finish(job)

        monkeypatch.setattr(bot.app.queue, "finish", full)
        await stage.says(f"$download {link(stage.image())}")
        await stage.hears("Done in")
    assert not failures
    assert len(stage.posted()) == 1
