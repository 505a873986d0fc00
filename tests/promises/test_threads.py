"""Albums in threads: the message in the channel names the post, and the files are in a
thread on it, in order and once, whatever happens on the way."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from discord_support import Stage, job_at, job_id, link, module
from fake_discord import VOICE, Channel, Message

from bossbot import BossBot, Status

pytest_plugins = ("discord_fixtures",)

TITLE = "A  \u202etour\nof <@1>"  # as a site might have it
NAME = "A tour of <@1>"


@pytest.fixture
def stage(stage: Stage) -> Stage:
    settings = '[progress]\nstatus_when_done = "keep"\n'
    for guild_id in (0, stage.fake.guild.id):
        above = "[discord_courier]\nthread_above = 10\n"
        stage.guild_settings(settings + above, guild_id)
    return stage


def album(stage: Stage, count: int = 12, **facts: Any) -> str:
    return link(stage.facts("album", title=TITLE, **facts), *stage.images(count))


def threads(stage: Stage) -> list[Channel]:
    return [one for one in stage.fake.channels.values() if one.parent]


def contents(messages: list[Message]) -> list[bytes]:
    return [file.data for message in messages for file in message.files]


def wanted(stage: Stage, count: int = 12) -> list[bytes]:
    return [stage.bytes_of(step) for step in stage.images(count)]


async def asked(stage: Stage, bot: BossBot, url: str) -> str:
    """The job of a link, once it has completed."""
    [*before] = await bot.app.queue.list()
    await stage.says(f"$download {url}")
    status = await stage.hears("Download started")
    await stage.fake.wait_for(lambda: "Done in" in status.content)
    assert len(await bot.app.queue.list()) == len(before) + 1
    return (await job_at(bot, job_id(status), Status.COMPLETED)).id


async def test_album_above_the_setting_is_posted_in_a_thread(stage: Stage) -> None:
    for name in ("privacy", "history", "queue"):
        stage.add_plugin(name)
    async with stage.bot():
        await stage.says(f"$download {album(stage, 10)}")
        await stage.gets(10)  # not above
        assert not threads(stage)
        await stage.hears("Done in")
        await stage.says(f"$download {album(stage)}")
        await stage.hears("12 files", "Done in")
        [thread] = threads(stage)
        assert (thread.name, thread.auto_archive_minutes) == (NAME, 1440)
        head = stage.fake.all_messages[thread.id]
        assert head.replied_to and not head.files
        assert "12 files, " in head.content and "(1" not in head.content
        posted = stage.said(thread.id)
        assert [message.content for message in posted] == ["(1/2)", "(2/2)"]
        assert contents(posted) == wanted(stage)
        module("privacy").PAUSE_S = 0
        answer = await stage.fake.slash(
            stage.channel_id, "privacy forget", {"messages": True}
        )
        await stage.fake.answered(answer)
        await stage.fake.wait_for(lambda: thread.archived)
        assert thread.name == "Album" and not stage.said(thread.id)
        assert not stage.posted() and stage.fake.all_messages[head.id].deleted


async def test_slash_command_gets_a_thread_and_other_places_have_none(
    stage: Stage,
) -> None:
    fake = stage.fake
    voice = fake._new_channel("talk", guild=fake.guild, kind=VOICE)
    async with stage.bot(download__direct_messages=True) as bot:
        inner = await fake.add_thread(stage.channel_id, "inner")
        for place in (inner, voice, fake.open_dm(fake.member.id)):
            await stage.says(f"$download {album(stage)}", place.id)
            messages = await stage.gets(12, place.id)
            assert [len(message.files) for message in messages] == [10, 2]
        assert threads(stage) == [inner] and not stage.requested("thread")
        bot.get_channel = lambda number: None  # type: ignore[method-assign,misc]
        await fake.slash(stage.channel_id, "download", {"url": album(stage)})
        await fake.wait_for(lambda: len(threads(stage)) == 2)
        await stage.gets(12, threads(stage)[1].id)


async def test_missing_permission_is_said_once_and_the_channel_gets_the_files(
    stage: Stage,
) -> None:
    async with stage.bot():
        await stage.fake.deny(stage.channel_id, "send_messages_in_threads")
        for count in (12, 24):
            await stage.says(f"$download {album(stage)}")
            await stage.gets(count)
        assert not stage.requested("thread")
        said = [m.content for m in stage.posted() if "`thread_above`" in m.content]
        assert len(said) == 1 and "give me: Send Messages in Threads." in said[0]
        assert "12 files, " in said[0]
        await stage.fake.deny(stage.channel_id)
        await stage.says(f"$download {album(stage)}")
        await stage.fake.wait_for(lambda: threads(stage))
        await stage.gets(12, threads(stage)[0].id)
        # It has been there, so it is said again.
        await stage.fake.deny(stage.channel_id, "create_public_threads")
        await stage.says(f"$download {album(stage)}")
        await stage.hears("give me: Create Public Threads.")


# As it also comes to light only then without the gateway's cache.
async def test_thread_that_cannot_be_used_is_left(stage: Stage) -> None:
    fake = stage.fake
    async with stage.bot() as bot:
        for number, how in enumerate(("locked", "gone", "not made", "not written in")):
            fault = fake.fault("thread" if how == "not made" else "upload", "hang")
            asked = await stage.says(f"$download {album(stage)}")
            await fake.wait_for(lambda: fault.hits)  # noqa: B023
            match how:
                case "locked":
                    threads(stage)[-1].locked = True
                case "gone":
                    await fake.delete_channel(threads(stage)[-1].id)
                case "not made":
                    await fake.deny(stage.channel_id, "create_public_threads")
                case _:
                    await fake.deny(stage.channel_id, "send_messages_in_threads")
            fault.release()
            posted = await stage.gets(12 * (number + 1))
            messages = [message for message in posted if message.id > asked.id]
            status = await stage.hears("12 files", "Done in", after=asked.id)
            job = await job_at(bot, job_id(status), Status.COMPLETED)
            assert contents(messages) == wanted(stage), how
            said = "`thread_above`" in messages[0].content
            assert said == how.startswith("not"), how
            assert [post.thread_id for post in job.posts] == [None] * 3, how
            await fake.deny(stage.channel_id)


async def test_name_that_discord_refuses_is_replaced(stage: Stage) -> None:
    stage.fake.filtered_names.add("tour")
    async with stage.bot() as bot:
        await asked(stage, bot, album(stage))
        [thread] = threads(stage)
        assert thread.name == "Album"
        assert contents(stage.said(thread.id)) == wanted(stage)
        long = stage.facts("long", title="x" * 300)
        await stage.says(f"$download {link(long, *stage.images(11))}")
        await stage.fake.wait_for(lambda: len(threads(stage)) == 2)
        assert threads(stage)[1].name == "x" * 99 + "…"


async def test_words_that_a_filter_refuses_cost_no_thread(stage: Stage) -> None:
    facts = stage.facts("album", title=TITLE)
    async with stage.bot():
        url = link(facts, "wait=gate", *stage.images(12))
        await stage.says(f"$download {url}")
        await stage.hears("Downloading")
        fault = stage.fake.fault("send", 400, code=200000)  # of AutoMod
        stage.open_gate("gate")
        await stage.fake.wait_for(lambda: threads(stage))
        [thread] = threads(stage)
        await stage.gets(12, thread.id)
    head = stage.fake.all_messages[thread.id]
    assert fault.hits and "12 files, " in head.content and "tour" not in head.content


@pytest.mark.parametrize("known", [True, False])
async def test_thread_is_made_while_the_rest_is_downloaded(
    stage: Stage, known: bool
) -> None:
    above = 12  # and the first files come when 11 are there
    stage.guild_settings(f"[discord_courier]\nthread_above = {above}\n")
    steps = stage.images(25)
    facts = stage.facts("album", title=TITLE, **({"items": 25} if known else {}))
    async with stage.bot() as bot:
        bot.app.worker.early_s = 0.05  # type: ignore[attr-defined]
        url = link(facts, *steps[:11], "wait=gate", *steps[11:])
        await stage.says(f"$download {url}")
        if known:
            await stage.fake.wait_for(lambda: threads(stage))
            await stage.gets(10, threads(stage)[0].id)
            assert not stage.posted()
        else:
            await stage.gets(10)
        stage.open_gate("gate")
        await stage.fake.wait_for(lambda: threads(stage))
        [thread] = threads(stage)
        await stage.gets(25 if known else 15, thread.id)
    first = [] if known else stage.posted()
    posted = [*first, *stage.said(thread.id)]
    assert contents(posted) == wanted(stage, 25)
    assert posted[-1].content == "(3/3)"
    assert "first 10" in stage.fake.all_messages[thread.id].content


@pytest.mark.parametrize("made", [True, False])
async def test_kill_around_the_making_of_a_thread(stage: Stage, made: bool) -> None:
    """The answer that it is there was never stored; or nothing was asked for."""
    stage.fake.nonce_window_s = 0
    async with stage.bot() as bot:
        job = await asked(stage, bot, album(stage))
    [thread] = threads(stage)
    for message in stage.said(thread.id):
        await stage.fake.delete_message(message.id)
    if not made:
        del stage.fake.channels[thread.id]
    stage.database("UPDATE jobs SET status = 'uploading', finished_at = 0")
    for number in (2, 3):
        stage.set_post(number, state="waiting", message_id=0, sending_at=0, thread_id=0)
    async with stage.bot() as bot:
        await job_at(bot, job, Status.COMPLETED)
    [thread] = threads(stage)
    assert contents(stage.said(thread.id)) == wanted(stage)
    assert stage.requested("thread") == 2


async def test_post_sent_before_a_kill_is_found_in_the_thread(stage: Stage) -> None:
    stage.fake.nonce_window_s = 0
    async with stage.bot() as bot:
        job = await asked(stage, bot, album(stage))
    [thread] = threads(stage)
    for number, requests in ((1, 3), (3, 3)):  # what is in the channel, too
        stage.database("UPDATE jobs SET status = 'uploading', finished_at = 0")
        stage.set_post(number, state="sending", message_id=0)
        async with stage.bot() as bot:
            await job_at(bot, job, Status.COMPLETED)
        assert stage.requested("upload") == requests - 1
    assert threads(stage) == [thread]
    assert contents(stage.said(thread.id)) == wanted(stage)
    heads = [m for m in stage.said() if "12 files, " in m.content]
    assert [head.id for head in heads] == [thread.id]


async def test_spoiler_hides_everything_that_tells_what_it_is(stage: Stage) -> None:
    shutil.copy(Path(__file__).parent / "plugins" / "title.py", stage.plugins)
    facts = stage.facts("secret", title="Butler", uploader="Ms. Christie")
    large = stage.padded(60_000)
    url = link(facts, *stage.images(11), "wait=gate", large)
    async with stage.bot(discord_courier__upload_limits=[50_000] * 4) as bot:
        await stage.says(f"$download ||{url}||")
        status = await stage.hears("Downloading")
        stage.open_gate("gate")
        await stage.fake.wait_for(lambda: threads(stage))
        [thread] = threads(stage)
        await stage.gets(11, thread.id)
        await stage.fake.wait_for(lambda: "Done in" in status.content)
        await stage.says(f"$download ||{link(facts, large)}||")
        failed = await stage.hears("Download failed")
        await stage.says("$download ||https://user@toy.example/facts=/||")
        await stage.hears("||<https://user@toy.example/facts=/>||")
        assert not [p for p in bot.app.plugins.all.values() if p.off]
    assert thread.name == "Album"
    told = [*stage.said(), *stage.said(thread.id)]
    texts = [text for message in told for text in [*message.versions, message.text]]
    open_text = "\n".join("".join(text.split("||")[::2]) for text in texts)
    for secret in ("Butler", "Christie", "facts=", ".jpg"):
        assert any(secret in text for text in texts) or secret == ".jpg"
        known = {".jpg": f"{job_id(failed)}_01.jpg"}.get(secret, "")
        assert secret not in open_text.replace(known or "\n", "")
    names = [file.filename for message in told for file in message.files]
    assert all(name.startswith("SPOILER_") for name in names)
    assert "Butler" not in json.dumps(names) and not any(m.embeds for m in told)
    assert "11 files, " in open_text
