"""The bot is killed, told to stop, started twice: nothing is lost, nothing is posted
twice, no process is left behind."""

import time

import pytest
from discord_support import BotProcess, Stage, Whom, link
from soak import soak

pytest_plugins = ("discord_support",)

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
    await stage.hears("Done in")
    [message] = stage.posted()
    assert message.files[0].data == stage.bytes_of(stage.image())
    assert list((stage.folder / "data" / "temp").iterdir()) == []
    crashes = stage.database("SELECT status, attempts, crashes FROM jobs")
    assert crashes == [("completed", 2, 1)]


@pytest.mark.parametrize("action", ["hang", "hang_answer"])
@WHOM
async def test_kill_during_an_upload_posts_once(
    stage: Stage, process: BotProcess, action: str, whom: Whom
) -> None:
    steps = stage.images(11)
    fault = stage.fake.fault("upload", action)  # type: ignore[arg-type]
    await process.start()
    await stage.says(f"$download {link(*steps)}")
    await stage.fake.wait_for(lambda: fault.hits)
    if action == "hang_answer":  # it has arrived, which the bot never learns
        await stage.gets(10)
    await process.kill(whom)
    fault.release()
    await process.family_ended()
    await process.start()
    await stage.hears("Done in")
    posted = [file.data for message in stage.posted() for file in message.files]
    assert posted == [stage.bytes_of(step) for step in steps]
    assert len(stage.posted()) == 2
    assert stage.requested("upload") == 3


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


@pytest.mark.parametrize("phase", ["idle", "downloading", "uploading", "logging in"])
async def test_sigterm_ends_it_cleanly_in_each_phase(
    stage: Stage, process: BotProcess, phase: str
) -> None:
    steps = stage.images(2)
    kind = {"uploading": "upload", "logging in": "me"}.get(phase)
    fault = stage.fake.fault(kind, "hang") if kind else None
    if phase == "logging in":
        await process.launch()
    else:
        await process.start()
    if phase in ("downloading", "uploading"):
        await stage.says(f"$download {link(steps[0])}")
        await stage.says(f"$download {link('wait=gate', steps[1])}")
        await stage.hears("Downloading")
    if fault:
        await stage.fake.wait_for(lambda: fault.hits)
    started_s = time.monotonic()
    process.terminate()
    if phase == "uploading":
        assert fault
        fault.release()
    assert await process.ended(25) == 0, process.output()
    assert time.monotonic() - started_s < 10
    await process.family_ended()
    assert "Traceback" not in process.output()
    if phase in ("idle", "logging in"):
        return
    states = stage.database("SELECT status, crashes FROM jobs ORDER BY seq")
    assert states == [("completed", 0), ("queued", 0)]
    assert len(stage.posted()) == 1
    stage.open_gate("gate")
    await process.start()
    await stage.gets(2)
    assert [m.files[0].data for m in stage.posted()] == [
        stage.bytes_of(step) for step in steps
    ]


async def test_second_sigterm_ends_it_at_once_and_the_upload_is_made_later(
    stage: Stage, process: BotProcess
) -> None:
    fault = stage.fake.fault("upload", "hang")
    await process.start()
    await stage.says(f"$download {link(stage.image())}")
    await stage.fake.wait_for(lambda: fault.hits)
    process.terminate()
    while "stopping" not in process.output():
        await stage.fake.settle()
    process.terminate()
    started_s = time.monotonic()
    assert await process.ended() == 1
    assert time.monotonic() - started_s < 1
    await process.family_ended()
    fault.release()
    await process.start()
    await stage.hears("Done in")
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
    figures = await soak(stage, jobs=20, kills=8, seed=1)
    assert figures.ok, figures
    assert figures.jobs >= 20
    assert figures.posted > figures.jobs // 2
