"""The bot is killed, told to stop, started twice: nothing is lost, nothing is posted
twice, no process is left behind."""

import asyncio
import os
import time

import pytest
from conftest import SUPPORT_PLUGINS
from discord_support import BotProcess, Stage, Whom, job_at, link
from fake_discord import Action
from soak import soak

from bossbot import BossbotError, StartError, Status

pytest_plugins = ("discord_fixtures",)


@pytest.mark.parametrize(
    ("whom", "action"),
    [("bot", "hang_answer"), ("bot and server", "hang"), ("tree", "hang_answer")],
)
async def test_kill_during_an_upload_and_a_download_posts_both_once(
    stage: Stage, process: BotProcess, whom: Whom, action: Action
) -> None:
    *steps, last = stage.images(12)
    fault = stage.fake.fault("upload", action)
    await process.start()
    await stage.says(f"$download {link(*steps)}")
    await stage.fake.wait_for(lambda: fault.hits)
    if action == "hang_answer":  # it has arrived, which the bot never learns
        await stage.gets(10)
    asked = await stage.says(f"$download {link('hang=gate', last)}")
    await stage.hears("Downloading", after=asked.id)
    assert len(process.family()) >= 3  # the bot, the fork server, the child
    await process.kill(whom)
    await process.family_ended()
    stage.open_gate("gate")
    async with stage.bot() as bot:
        fault.release()  # by now it is known that the client has gone
        await stage.gets(12)
        for job in await bot.app.queue.list():
            await job_at(bot, job.id, Status.COMPLETED)
    rows = stage.database("SELECT attempts, crashes FROM jobs ORDER BY seq")
    assert rows[1:] == [(2, 0)]
    posted = [[file.data for file in message.files] for message in stage.posted()]
    one = [stage.bytes_of(last)]
    assert posted.count(one) == 1
    posted.remove(one)
    first, rest = posted
    assert first + rest == [stage.bytes_of(step) for step in steps]
    arrived = action == "hang_answer"  # which the channel shows
    assert stage.requested("upload") == 4 - arrived
    assert list((stage.folder / "data" / "temp").iterdir()) == []


async def test_what_a_kill_kept_from_the_member_is_told_at_the_next_start(
    stage: Stage, process: BotProcess
) -> None:
    status_of = "SELECT status_message_id FROM jobs WHERE url LIKE ?"
    await process.start()

    # Sent as the bot died: the file is there before it has heard that its message is.
    unheard = stage.fake.fault("followup", "hang_answer")
    options = {"url": link(stage.image())}
    await stage.fake.slash(stage.channel_id, "download", options)
    await stage.fake.wait_for(lambda: unheard.hits)
    started = await stage.hears("Download started")
    await stage.gets(1)
    async with asyncio.timeout(60):
        while stage.database("SELECT status FROM jobs") != [("completed",)]:
            await asyncio.sleep(0.02)

    # An end that no message was about.
    await stage.says(f"$download {link('hang=gone')}")
    untold = await stage.hears("Downloading", "1 B")  # the last edit of it
    async with asyncio.timeout(60):
        while not stage.database(status_of, "%hang=gone%")[0][0]:
            await asyncio.sleep(0.02)

    # An end whose message does not arrive.
    edit = stage.fake.fault("edit", "hang")
    await stage.says(f"$download {link('fail=gone')}")
    await stage.fake.wait_for(lambda: edit.hits)
    failed = "SELECT status FROM jobs WHERE url LIKE '%fail=gone%'"
    assert stage.database(failed) == [("failed",)]

    # A link that is stored, and whose answer does not arrive.
    answer = stage.fake.fault("send", "hang")
    await stage.says(f"$download {link('wait=gate', stage.image(2))}")
    await stage.fake.wait_for(lambda: answer.hits)

    await process.kill("bot")
    await process.family_ended()
    for fault in (unheard, answer):
        fault.release()
    stage.open_gate("gate")
    # As when the kill came between the end's commit and its message.
    stage.database(
        "UPDATE jobs SET status = 'failed', cause = 'gone', error = 'It is gone.', "
        f"finished_at = {time.time()} WHERE url LIKE '%hang=gone%'"
    )
    async with stage.bot():
        edit.release()  # by now it is known that the client has gone
        told = await stage.hears("Download failed", "deleted or never existed")
        await stage.fake.wait_for(lambda: "It is gone." in untold.content)
        await stage.fake.wait_for(lambda: "Done in" in started.content)
        await stage.gets(2)
        async with asyncio.timeout(60):
            while stage.database("SELECT id FROM jobs WHERE untold"):
                await asyncio.sleep(0.02)
    async with stage.bot():
        await stage.says(f"$download {link(stage.image(3))}")
        await stage.gets(3)
    assert len(told.versions) == 2  # "started" and "failed": it was told once
    # Of each link a status and its files, except of those that failed.
    assert len(stage.said()) == 5 + 3


async def test_claim_that_had_not_begun_is_no_crash(
    stage: Stage, process: BotProcess
) -> None:
    await process.start()
    await stage.says(f"$download {link('wait=gate', stage.image())}")
    await stage.hears("Downloading")
    crashes = "SELECT status, crashes FROM jobs"
    assert stage.database(crashes) == [("downloading", 1)]  # should the bot end now
    await process.kill("bot")
    await process.family_ended()
    # Claimed, then killed before the download began.
    stage.database("UPDATE jobs SET status = 'downloading', crashes = 0")
    fault = stage.fake.fault("me", "hang")
    await process.launch()
    await stage.fake.wait_for(lambda: fault.hits)
    await process.kill("bot")
    fault.release()
    await process.family_ended()
    assert stage.database(crashes)[0][1] == 0
    stage.open_gate("gate")
    async with stage.bot():
        await stage.gets(1)


async def test_sigterm_ends_the_uploads_and_puts_the_rest_back_and_a_second_ends_all(
    stage: Stage, process: BotProcess
) -> None:
    steps = stage.images(4)
    stage.copy_plugin(SUPPORT_PLUGINS / "slow.py", HOOK="process_files", PART="slow")
    fault = stage.fake.fault("upload", "hang")
    await process.start(max_concurrent_per_user="3")
    await stage.says(f"$download {link(steps[0])}")
    await stage.fake.wait_for(lambda: fault.hits)
    links = [link("wait=gate", step) for step in steps[1:3]]
    await stage.says(f"$download {' '.join([*links, link(steps[3]) + '?slow'])}")

    def at_work() -> bool:
        said = "".join(message.content for message in stage.said())
        return said.count("gate.mp4") == 2 and "Making it fit" in said

    await stage.fake.wait_for(at_work)
    process.terminate()
    await process.logged("stopping")
    fault.release()
    assert await process.ended() == 0, process.output()
    await process.family_ended()
    assert "Traceback" not in process.output()
    states = "SELECT status, crashes FROM jobs ORDER BY seq"
    assert stage.database(states) == [("completed", 0), *[("queued", 0)] * 3]
    assert len(stage.posted()) == 1

    (stage.plugins / "slow.py").unlink()
    process.log = process.log.with_name("second.txt")
    fault = stage.fake.fault("upload", "hang")
    await process.start(max_concurrent_per_user="3")
    await stage.fake.wait_for(lambda: fault.hits)
    process.terminate()
    await process.logged("stopping")
    process.terminate()
    assert await process.ended() == 1  # it would end with 0 if it waited
    await process.family_ended()
    fault.release()
    stage.open_gate("gate")
    async with stage.bot() as bot:
        messages = await stage.gets(4)
        for job in await bot.app.queue.list():
            await job_at(bot, job.id, Status.COMPLETED)
    posted = [file.data for message in messages for file in message.files]
    assert sorted(posted) == sorted(map(stage.bytes_of, steps))


async def test_second_bot_on_one_data_folder_exits_2(
    stage: Stage, process: BotProcess
) -> None:
    async with stage.bot():
        await process.launch()
        assert await process.ended() == 2
        assert f"Another Boss-Bot (process {os.getpid()})" in process.output()
        await stage.says(f"$download {link(stage.image())}")
        await stage.gets(1)


async def test_random_kills_lose_nothing_and_post_nothing_twice(stage: Stage) -> None:
    figures = await soak(stage, jobs=12, kills=4, seed=1, life_s=1)
    assert figures.ok, figures
    assert figures.jobs >= 12
    assert figures.posted > figures.jobs // 2


async def test_sigterm_at_any_moment_of_the_start_leaves_the_database_whole(
    stage: Stage, process: BotProcess
) -> None:
    async def ends() -> None:
        process.terminate()
        assert await process.ended() == 0, process.output()
        await process.family_ended()

    for kind in ("me", "commands"):
        fault = stage.fake.fault(kind, "hang")
        await process.launch()
        await stage.fake.wait_for(lambda fault=fault: fault.hits)
        await ends()
        fault.release()
    assert stage.fake.sessions["identify"] == 0
    async with stage.bot():
        await stage.says(f"$download {link('wait=gate', stage.image())}")
        await stage.hears("Downloading")
    for moment in range(0, 12, 4):
        before = stage.requested("me")
        await process.launch()
        await stage.fake.wait_for(lambda n=before: stage.requested("me") > n)
        await asyncio.sleep(moment * 0.001)
        await ends()
    await process.start()
    await ends()
    assert "Traceback" not in process.output()
    assert stage.database("SELECT status FROM jobs") == [("queued",)]
    assert not list((stage.folder / "data").glob("*damaged*"))


async def test_upload_that_ends_the_bot_three_times_is_given_up(
    stage: Stage, process: BotProcess
) -> None:
    fault = stage.fake.fault("upload", "hang", times=9)
    for crash in range(1, 4):
        await process.start()
        if crash == 1:
            await stage.says(f"$download {link(stage.image())}")
        await stage.fake.wait_for(lambda: fault.hits >= crash)  # noqa: B023
        await process.kill("bot")
        await process.family_ended()
    async with stage.bot():
        await stage.hears("so it gave up")
    assert stage.database("SELECT status FROM jobs") == [("failed",)]


async def test_discord_that_is_down_at_the_start_is_said_and_worth_a_restart(
    stage: Stage, process: BotProcess
) -> None:
    stage.fake.fault("application", 503, times=9)
    with pytest.raises(BossbotError, match="Discord cannot be reached") as raised:
        async with stage.bot():
            pass
    assert not isinstance(raised.value, StartError)
    stage.fake.fault("me", 503, times=9)
    await process.launch()
    assert await process.ended() == 1  # systemd tries again; at 2 it would not
    assert "Discord cannot be reached" in process.output()
    assert "Traceback" not in process.output()
