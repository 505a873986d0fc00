"""The bot is killed, told to stop, started twice: nothing is lost, nothing is posted
twice, no process is left behind."""

import asyncio
import time

import pytest
from discord_support import BotProcess, Stage, Whom, link
from fake_discord import Action
from soak import soak

pytest_plugins = ("discord_fixtures",)

WHOM = pytest.mark.parametrize("whom", ["bot", "bot and server", "tree"])


@WHOM
async def test_kill_during_a_download_posts_once(
    stage: Stage, process: BotProcess, whom: Whom
) -> None:
    await process.start()
    await stage.says(f"$download {link('hang=gate', stage.image())}")
    await stage.hears("Downloading")
    assert len(process.family()) >= 3  # the bot, the fork server, the child
    await process.kill(whom)
    await process.family_ended()
    stage.open_gate("gate")
    await process.start()
    [message] = await stage.gets(1)
    process.terminate()
    assert await process.ended() == 0
    assert message.files[0].data == stage.bytes_of(stage.image())
    assert list((stage.folder / "data" / "temp").iterdir()) == []
    crashes = stage.database("SELECT status, attempts, crashes FROM jobs")
    assert crashes == [("completed", 2, 0)]


@pytest.mark.parametrize(
    ("action", "whom"),
    [("hang", "bot"), ("hang_answer", "bot"), ("hang_answer", "tree")],
)
async def test_kill_during_an_upload_posts_once(
    stage: Stage, process: BotProcess, action: Action, whom: Whom
) -> None:
    steps = stage.images(11)
    fault = stage.fake.fault("upload", action)
    await process.start()
    await stage.says(f"$download {link(*steps)}")
    await stage.fake.wait_for(lambda: fault.hits)
    if action == "hang_answer":  # it has arrived, which the bot never learns
        await stage.gets(10)
    await process.kill(whom)
    await process.family_ended()
    await process.start()
    fault.release()  # by now it is known that the client has gone
    await stage.gets(11)
    process.terminate()
    assert await process.ended() == 0
    assert stage.database("SELECT status FROM jobs") == [("completed",)]
    posted = [file.data for message in stage.posted() for file in message.files]
    assert posted == [stage.bytes_of(step) for step in steps]
    assert len(stage.posted()) == 2
    arrived = action == "hang_answer"  # which the channel shows
    assert stage.requested("upload") == 3 - arrived


async def test_failure_that_a_kill_kept_from_the_member_is_told_at_the_next_start(
    stage: Stage, process: BotProcess
) -> None:
    fault = stage.fake.fault("edit", "hang")
    await process.start()
    await stage.says(f"$download {link('fail=gone')}")
    await stage.fake.wait_for(lambda: fault.hits)
    assert stage.database("SELECT status FROM jobs") == [("failed",)]
    await process.kill("bot")
    await process.family_ended()
    await process.start()
    fault.release()  # by now it is known that the client has gone
    status = await stage.hears("Download failed", "deleted or never existed")
    async with asyncio.timeout(60):
        while stage.database("SELECT id FROM jobs WHERE untold"):
            await asyncio.sleep(0.02)
    await process.kill("bot")
    await process.family_ended()
    await process.start()
    await stage.says(f"$download {link(stage.image())}")
    await stage.hears("Done in")
    assert len(status.versions) == 2  # "started" and "failed": it was told once


async def test_end_that_no_message_was_about_is_told_at_the_next_start(
    stage: Stage, process: BotProcess
) -> None:
    await process.start()
    await stage.says(f"$download {link('wait=gate')}")
    status = await stage.hears("Downloading")
    while not stage.database("SELECT status_message_id FROM jobs")[0][0]:
        await asyncio.sleep(0.02)
    await process.kill("bot")
    await process.family_ended()
    # As when the kill came between the end's commit and its message.
    stage.database(
        "UPDATE jobs SET status = 'failed', cause = 'gone', error = 'It is gone.', "
        f"finished_at = {time.time()}"
    )
    await process.start()
    await stage.fake.wait_for(lambda: "It is gone." in status.content)
    assert len(stage.said()) == 1


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
    for _ in range(4):  # claimed, then killed before the download began
        stage.database("UPDATE jobs SET status = 'downloading', crashes = 0")
        fault = stage.fake.fault("me", "hang")
        await process.launch()
        await stage.fake.wait_for(lambda fault=fault: fault.hits)
        await process.kill("bot")
        fault.release()
        await process.family_ended()
        assert stage.database(crashes)[0][1] == 0
    stage.open_gate("gate")
    await process.start()
    await stage.gets(1)


async def test_kill_before_the_answer_loses_nothing_that_was_committed(
    stage: Stage, process: BotProcess
) -> None:
    fault = stage.fake.fault("send", "hang")
    await process.start()
    await stage.says(f"$download {link('wait=gate', stage.image())}")
    await stage.fake.wait_for(lambda: fault.hits)
    await process.kill("bot")
    fault.release()
    stage.open_gate("gate")
    await process.start()
    await stage.gets(1)


async def test_status_message_that_was_sent_as_the_bot_died_does_not_stay_as_it_was(
    stage: Stage, process: BotProcess
) -> None:
    """The file is there before the bot has heard that its first message is."""
    stage.keep_status_messages()
    fault = stage.fake.fault("followup", "hang_answer")
    await process.start()
    options = {"url": link(stage.image())}
    await stage.fake.slash(stage.channel_id, "download", options)
    await stage.fake.wait_for(lambda: fault.hits)
    status = await stage.hears("Download started")
    await stage.gets(1)
    while stage.database("SELECT status FROM jobs") != [("completed",)]:
        await asyncio.sleep(0.02)
    await process.kill("bot")
    fault.release()
    await process.family_ended()
    await process.start()
    await stage.fake.wait_for(lambda: "Done in" in status.content)
    assert len(stage.said()) == 2


@pytest.mark.parametrize("phase", ["idle", "me", "commands"])
async def test_sigterm_ends_a_bot_without_jobs(
    stage: Stage, process: BotProcess, phase: str
) -> None:
    if phase == "idle":
        await process.start()
    else:
        fault = stage.fake.fault(phase, "hang")
        await process.launch()
        await stage.fake.wait_for(lambda: fault.hits)
    process.terminate()
    assert await process.ended() == 0, process.output()
    assert stage.fake.sessions["identify"] == (phase == "idle")
    await process.family_ended()
    assert "Traceback" not in process.output()


async def test_sigterm_ends_the_uploads_and_puts_the_downloads_back(
    stage: Stage, process: BotProcess
) -> None:
    steps = stage.images(4)
    fault = stage.fake.fault("upload", "hang")
    await process.start(max_concurrent_per_user="3")
    await stage.says(f"$download {link(steps[0])}")
    await stage.fake.wait_for(lambda: fault.hits)
    links = [link("wait=gate", step) for step in steps[1:]]
    await stage.says(f"$download {' '.join(links)}")

    def downloading() -> bool:
        return sum(said.content.count("gate.mp4") for said in stage.said()) == 3

    await stage.fake.wait_for(downloading)
    process.terminate()
    await process.logged("stopping")
    fault.release()
    assert await process.ended() == 0, process.output()
    await process.family_ended()
    assert "Traceback" not in process.output()
    states = stage.database("SELECT status, crashes FROM jobs ORDER BY seq")
    assert states == [("completed", 0), *[("queued", 0)] * 3]
    assert len(stage.posted()) == 1
    stage.open_gate("gate")
    await process.start()
    messages = await stage.gets(4)
    assert {message.files[0].data for message in messages} == {
        stage.bytes_of(step) for step in steps
    }


async def test_second_sigterm_ends_it_at_once_and_the_upload_is_made_later(
    stage: Stage, process: BotProcess
) -> None:
    fault = stage.fake.fault("upload", "hang")
    await process.start()
    await stage.says(f"$download {link(stage.image())}")
    await stage.fake.wait_for(lambda: fault.hits)
    process.terminate()
    await process.logged("stopping")
    process.terminate()
    assert await process.ended() == 1  # it would end with 0 if it waited
    await process.family_ended()
    fault.release()
    await process.start()
    await stage.gets(1)
    process.terminate()
    assert await process.ended() == 0
    assert stage.database("SELECT status FROM jobs") == [("completed",)]
    assert len(stage.posted()) == 1


async def test_second_bot_on_one_data_folder_exits_2(
    stage: Stage, process: BotProcess
) -> None:
    await process.start()
    second = BotProcess(stage)
    await second.launch()
    assert await second.ended() == 2
    assert f"Another Boss-Bot (process {process.process.pid})" in second.output()
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
    await process.start()
    await stage.says(f"$download {link('wait=gate', stage.image())}")
    await stage.hears("Downloading")
    process.terminate()
    assert await process.ended() == 0

    def logins() -> int:
        return sum(request.kind == "me" for request in stage.fake.requests)

    for moment in range(0, 12, 3):
        before = logins()
        await process.launch()
        await stage.fake.wait_for(lambda before=before: logins() > before)
        await asyncio.sleep(moment * 0.001)
        process.terminate()
        assert await process.ended() == 0, process.output()
    assert stage.database("SELECT status FROM jobs") == [("queued",)]
    assert not list((stage.folder / "data").glob("*damaged*"))


async def test_sigterm_while_a_job_is_processed_puts_it_back(
    stage: Stage, process: BotProcess
) -> None:
    stage.hook("slow", "async def process_files(job):\n    await asyncio.sleep(600)\n")
    await process.start()
    await stage.says(f"$download {link(stage.image())}")
    await stage.hears("Making it fit")
    process.terminate()
    assert await process.ended() == 0
    assert stage.database("SELECT status FROM jobs") == [("queued",)]
    (stage.plugins / "slow.py").unlink()
    await process.start()
    [message] = await stage.gets(1)
    assert message.files


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
    await process.start()
    await stage.hears("so it gave up")
    process.terminate()
    assert await process.ended() == 0
    assert stage.database("SELECT status FROM jobs") == [("failed",)]


@pytest.mark.parametrize("kind", ["me", "application"])
async def test_discord_that_is_down_at_the_start_is_said_and_worth_a_restart(
    stage: Stage, process: BotProcess, kind: str
) -> None:
    stage.fake.fault(kind, 503, times=9)
    await process.launch()
    assert await process.ended() == 1  # systemd tries again; at 2 it would not
    assert "Discord cannot be reached" in process.output()
    assert "Traceback" not in process.output()
