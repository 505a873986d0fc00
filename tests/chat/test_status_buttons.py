"""The buttons of status messages, and when these messages go."""

import pytest
from conftest import SUPPORT_PLUGINS
from discord_support import (
    BotProcess,
    Stage,
    job_at,
    job_id,
    job_ids,
    link,
    module,
)

from bossbot import Status

pytest_plugins = ("discord_fixtures",)

DOORS = pytest.mark.parametrize("door", ["$", "/"])


async def ask(stage: Stage, door: str, *links: str) -> int:
    words = " ".join(links)
    if door == "$":
        return (await stage.says(f"$download {words}")).id
    return await stage.fake.slash(stage.channel_id, "download", {"url": words})


# Buttons


async def test_buttons_are_those_that_can_be_used(stage: Stage) -> None:
    fault = stage.fake.fault("upload", "hang")
    async with stage.bot():
        await ask(stage, "$", link("wait=gate", stage.image()))
        status = await stage.hears("Download")
        assert status.buttons == ["Cancel"]
        stage.open_gate("gate")
        await stage.fake.wait_for(lambda: "Uploading" in status.content)
        assert fault.hits and status.buttons == []
        fault.release()
        await stage.fake.wait_for(lambda: "Done in" in status.content)
        assert status.buttons == []
        asked = await ask(stage, "$", link("fail=gone"))
        failed = await stage.hears("(gone)", after=asked)
        assert failed.buttons == ["Try again", "Details"]


@DOORS
async def test_cancel_works_and_after_it_try_again(stage: Stage, door: str) -> None:
    async with stage.bot() as bot:
        await ask(stage, door, link("wait=gate", stage.image()))
        status = await stage.hears("Downloading")
        first = job_id(status)
        await stage.fake.click(status.id, "Cancel")
        await stage.fake.wait_for(lambda: status.buttons == ["Try again"])
        assert status.content == f"Cancelled · `{first}`"
        stage.open_gate("gate")
        await stage.fake.click(status.id, "Try again")
        await stage.gets(1)
        await stage.fake.wait_for(lambda: "Done in" in status.content)
        again = await bot.app.queue.get(job_id(status))
        assert again and again.id != first
    assert len(stage.said()) == 2


async def test_click_twice_is_one_more_try(stage: Stage) -> None:
    async with stage.bot() as bot:
        await ask(stage, "$", link("fail=gone"))
        status = await stage.hears("(gone)")
        event = {"button": "Try again"}
        await stage.fake.click(status.id, **event)
        await stage.fake.click(status.id, **event)
        await stage.hears("has been tried again already")
        assert len(await bot.app.queue.list()) == 2


async def test_buttons_go_on_working_after_a_restart(
    stage: Stage, process: BotProcess
) -> None:
    """Status messages are brought up to date, too."""
    stage.add_plugin("queue")
    fake = stage.fake
    away = await fake.add_guild("Away")  # where they go when the files are there
    steps = ["fail=gone"], [stage.image(1)], ["hang=1", "fail=gone"]
    more = ["hang=1", stage.image(2)], ["fail=private"]
    slots = dict.fromkeys(("downloads", "per_guild", "per_user"), "5")
    slots = {f"max_concurrent_{name}": count for name, count in slots.items()}
    await process.start(**slots)
    await ask(stage, "/", link("hang=never", stage.image()))
    waits = await stage.hears("Downloading")
    await stage.says(f"$download {link('hang=gate', stage.image(3))}", away.id)
    left = await stage.hears("Downloading", channel_id=away.id)
    after = await ask(stage, "$", *(link(*one) for one in (*steps, *more)))
    status = await stage.hears("(gone)", "Done in", "(private)", after=after)
    await fake.wait_for(lambda: status.content.count("Downloading") == 2)
    old = job_ids(status)
    hold = fake.fault("delete", "hang")
    stage.open_gate("gate")
    await fake.wait_for(lambda: hold.hits)
    await process.kill()
    assert not left.deleted
    stage.open_gate("1")
    await process.start(**slots)
    await fake.wait_for(lambda: left.deleted)
    await stage.gets(1, away.id)
    assert len(stage.said(away.id)) == 1
    await fake.click(waits.id, "Cancel")
    await fake.wait_for(lambda: "Cancelled" in waits.content)
    await fake.wait_for(lambda: status.content.count("(gone)") == 2)
    await fake.wait_for(lambda: status.content.count("Done in") == 2)
    lines = [line.partition(" · ")[0] for line in status.content.split("\n")]
    assert lines[0] == lines[3] == "**Download failed** (gone)"
    assert lines[2].startswith("Done in") and lines[5].startswith("Done in")
    assert lines[6] == "**Download failed** (private)"
    details = await fake.answered(await fake.click(status.id, "Details"))
    assert details.only_for is fake.member and len(details.embeds) == 3
    await process.kill()
    await process.start(**slots)

    async def tried_again(*changed: int) -> None:
        def so() -> bool:
            new = job_ids(status)
            pairs = enumerate(zip(old, new, strict=True))
            return [n for n, (one, two) in pairs if one != two] == [*changed]

        await fake.wait_for(so)
        await fake.wait_for(lambda: status.content.count("(gone)") == 2)
        old[:] = job_ids(status)

    await fake.slash(stage.channel_id, "queue retry", {"id": old[2]})
    await tried_again(2)
    await fake.click(status.id, "Try again")
    await tried_again(0, 2, 4)
    assert status.content.count("Done in") == 2
    said = fake.messages(stage.channel_id, bot_only=True)
    assert len(said) == 4  # with two pictures


async def test_strangers_change_nothing_and_moderators_may(stage: Stage) -> None:
    fake = stage.fake
    stranger = fake.add_member("otto")
    moderator = await fake.add_moderator("mona")
    async with stage.bot() as bot:
        await ask(stage, "$", link("wait=gate", stage.image()))
        status = await stage.hears("Downloading")
        clicked = await fake.click(status.id, "Cancel", stranger.id)
        answer = await fake.answered(clicked)
        assert answer.text == "You may not do that here. You need Manage Messages."
        assert answer.only_for is stranger
        await fake.click(status.id, "Cancel", moderator.id)
        await job_at(bot, job_id(status), Status.CANCELLED)


async def test_click_counts_as_its_command_and_a_confirmation_as_none(
    stage: Stage,
) -> None:
    stage.add_plugin("limits")
    stage.add_plugin("queue")
    fake = stage.fake
    moderator = await fake.add_moderator("mona")
    limits = {"limits__queue_change_per_minute": 1, "limits__queue_clear_per_minute": 1}
    async with stage.bot(**limits, limits__download_cooldown_s=0):
        await ask(stage, "$", link("wait=gate"))
        status = await stage.hears("Downloading")
        await fake.click(status.id, "Cancel")
        await stage.hears("Cancelled")
        asked = await fake.slash(
            stage.channel_id, "queue retry", {"id": job_id(status)}
        )
        assert "Try again in" in (await fake.answered(asked)).text
        clicked = await fake.click(status.id, "Try again")
        assert "Try again in" in (await fake.answered(clicked)).text
        await ask(stage, "$", link("wait=gate", stage.image()))
        await stage.hears("Downloading", after=status.id)
        options = {"running": True}
        asked = await fake.slash(stage.channel_id, "queue clear", options, moderator.id)
        question = await fake.answered(asked)
        await fake.click(question.id, "Remove", moderator.id)
        await fake.wait_for(lambda: question.content == "1 link removed.")
        asked = await fake.slash(stage.channel_id, "queue clear", options, moderator.id)
        assert "Try again in" in (await fake.answered(asked)).text


async def test_details_say_why_and_the_log_only_to_the_owner(stage: Stage) -> None:
    fake = stage.fake
    async with stage.bot():
        await ask(stage, "$", link("fail=private"))
        status = await stage.hears("(private)")
        answer = await fake.answered(await fake.click(status.id, "Details"))
        assert "Only its followers can see it." in answer.text
        assert "private" in answer.text and "toy" in answer.text
        assert "as the link says" not in answer.text
        clicked = await fake.click(status.id, "Details", fake.owner.id)
        assert "as the link says" in (await fake.answered(clicked)).text


async def test_click_is_acknowledged_before_slow_checks_end(
    stage: Stage,
) -> None:
    stage.copy_plugin(SUPPORT_PLUGINS / "slow.py")
    async with stage.bot() as bot:
        may_go_on = module("slow").may_go_on
        may_go_on.set()
        await ask(stage, "$", link("fail=gone"))
        status = await stage.hears("(gone)")
        first = job_id(status)
        may_go_on.clear()
        clicked = await stage.fake.click(status.id, "Try again")
        await stage.fake.wait_for(lambda: stage.fake.interactions[clicked].callback)
        assert job_id(status) == first
        may_go_on.set()
        await stage.fake.wait_for(lambda: job_id(status) != first)
        assert len(await bot.app.queue.list()) == 2


async def test_retry_of_a_lost_message_gets_a_new_one(stage: Stage) -> None:
    stage.add_plugin("queue")
    async with stage.bot():
        await ask(stage, "$", link("fail=gone"))
        status = await stage.hears("(gone)")
        await stage.fake.delete_message(status.id)
        options = {"id": job_id(status)}
        await stage.fake.slash(stage.channel_id, "queue retry", options)
        again = await stage.hears("(gone)", after=status.id)
        assert job_id(again) != job_id(status)


# When the files are there


@pytest.fixture
def tidy(stage: Stage) -> Stage:
    stage.keep_status_messages(False)
    return stage


@DOORS
async def test_status_message_goes_when_the_files_are_there(
    tidy: Stage, door: str
) -> None:
    async with tidy.bot():
        await ask(tidy, door, link("wait=gate", tidy.image()))
        status = await tidy.hears("Downloading")
        tidy.open_gate("gate")
        await tidy.fake.wait_for(lambda: status.deleted)
        await tidy.gets(1)
    assert len(tidy.said()) == 1
    assert tidy.requested("delete") == 1


async def test_delete_is_the_default(stage: Stage) -> None:
    stage.guild_settings("")
    async with stage.bot():
        await ask(stage, "$", link(stage.image()))
        await stage.gets(1)
        await stage.fake.wait_for(lambda: len(stage.said()) == 1)


@DOORS
async def test_quick_link_leaves_only_its_files(tidy: Stage, door: str) -> None:
    """Also when nothing could be said before the end."""
    tidy.fake.fault("followup", "reset")
    tidy.fake.fault("send", 503)
    async with tidy.bot():
        asked = await ask(tidy, door, link(tidy.image()))
        [post] = await tidy.gets(1)
        if door == "/":
            status = await tidy.fake.answered(asked)
            await tidy.fake.wait_for(lambda: status.deleted)
    assert tidy.said() == [post]


async def test_message_of_several_goes_when_all_are_there(tidy: Stage) -> None:
    async with tidy.bot():
        await ask(tidy, "$", link(tidy.image(1)), link("wait=gate", tidy.image(2)))
        status = await tidy.hears("Done in")
        await tidy.gets(1)
        assert not status.deleted
        tidy.open_gate("gate")
        await tidy.fake.wait_for(lambda: status.deleted)
        await tidy.gets(2)


async def test_failure_stays_until_another_try_brings_the_file(tidy: Stage) -> None:
    async with tidy.bot():
        await ask(tidy, "$", link(tidy.image(1)), link("wait=gate", tidy.image(2)))
        status = await tidy.hears("Done in", "Download")
        await tidy.fake.click(status.id, "Cancel")
        await tidy.fake.wait_for(lambda: "Cancelled" in status.content)
        await tidy.gets(1)
        assert not status.deleted and "Done in" in status.content
        tidy.open_gate("gate")
        await tidy.fake.click(status.id, "Try again")
        await tidy.fake.wait_for(lambda: status.deleted)
        await tidy.gets(2)
    assert len(tidy.said()) == 2


async def test_late_link_gets_a_message_of_its_own(tidy: Stage) -> None:
    """The message of its request has gone by then."""
    tidy.copy_plugin(SUPPORT_PLUGINS / "slow.py", PART="gone")
    async with tidy.bot():
        await ask(tidy, "$", link(tidy.image(1)), link("fail=gone"))
        await tidy.gets(1)
        await tidy.fake.wait_for(lambda: tidy.requested("delete"))
        module("slow").may_go_on.set()
        status = await tidy.hears("(gone)", "Check the link.")
    assert not status.deleted
    assert len(tidy.said()) == 2


async def test_delete_that_fails_is_tried_again(tidy: Stage) -> None:
    tidy.fake.fault("delete", 503, times=2)
    async with tidy.bot():
        await ask(tidy, "$", link(tidy.image()))
        await tidy.gets(1)
        await tidy.fake.wait_for(lambda: len(tidy.said()) == 1)
