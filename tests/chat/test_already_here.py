"""A link that is here already is answered with where; who asks for what is under way joins
it; and what is kept is not fetched again."""

import asyncio
import math
import shutil
import time
import timeit
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import discord
import pytest
from bossbot_plugins._answers import packed
from bossbot_plugins._kept import may_serve
from bossbot_plugins._links import without_tracking
from bossbot_plugins.already_here import AgainButton, keys_of
from bossbot_plugins.local_worker import LocalWorker, has_begun, left_s, logs_in
from conftest import ROOT, SUPPORT_PLUGINS, MakeApp, MakeSettings, make_job
from discord_support import BotProcess, Stage, job_at, job_id, link, module, until
from fake_discord import Guild, Message, User

from bossbot import BossBot, Fetched, Post, Refused, Request, Status

pytest_plugins = ("discord_fixtures",)


QUICK = """
[progress]
status_when_done = "keep"
[limits]
rate_per_minute = 0
cooldown_s = 0
"""


@pytest.fixture
def stage(stage: Stage) -> Stage:
    names = ("already_here", "adult", "history", "limits", "privacy", "queue")
    for name in (*names, "retention", "stats"):
        stage.add_plugin(name)
    stage.guild_settings(QUICK)
    return stage


def once(stage: Stage, *steps: str, name: str = "once") -> str:
    """A link that brings files only the first time: `spent` makes it fail then."""
    return link(stage.steps(name, *steps))


def spent(stage: Stage, name: str = "once") -> None:
    stage.steps(name, "fail=gone")


async def ask(
    stage: Stage, words: str, user: User | None = None, place: int | None = None
) -> Message:
    said = stage.fake.member_says
    return await said(place or stage.channel_id, f"$dl {words}", user and user.id)


def answers(stage: Stage, request: Message) -> list[Message]:
    """What the bot said to a request."""
    said = stage.fake.messages(request.channel.id, bot_only=True)
    return [message for message in said if message.replied_to is request]


async def told(stage: Stage, request: Message, text: str) -> Message:
    def find() -> Message | None:
        found = (m for m in answers(stage, request) if text in m.content)
        return next(found, None)

    message: Message = await stage.fake.wait_for(find)
    return message


async def files_of(stage: Stage, request: Message) -> Message:
    def find() -> Message | None:
        return next((m for m in answers(stage, request) if m.files), None)

    message: Message = await stage.fake.wait_for(find)
    return message


async def posted(stage: Stage, words: str, **who: Any) -> Message:
    """The message with the files of a new link, once the job has ended."""
    request = await ask(stage, words, **who)
    message = await files_of(stage, request)
    await told(stage, request, "Done")
    return message


def address(message: Message) -> str:
    place = message.channel
    guild = place.guild.id if place.guild else "@me"
    return f"https://discord.com/channels/{guild}/{place.id}/{message.id}"


async def counted(bot: BossBot, user: User) -> int:
    sql = "SELECT completed FROM stats_members WHERE user_id = ?"
    row = await bot.app.database.one(sql, user.id)
    return int(row[0]) if row else 0


def copy_of(number: str, at_s: str) -> str:
    """SQL that adds a row like those that are there, of another message."""
    names = [
        *(number, "id || 'x'", "same", "content", "guild_id", "channel_id", "user_id"),
        *("message_id + 1", "posts", "url", "options", at_s, "shared"),
    ]
    return f"INSERT INTO already_here SELECT {', '.join(names)} FROM already_here"


async def has_one_row(bot: BossBot) -> bool:
    rows = await bot.app.database.all("SELECT 1 FROM already_here")
    return len(rows) == 1


def click_of(guild: Guild | None, user: User) -> Any:
    """As much of a click as tells where it was, and whose."""
    return Mock(spec=discord.Interaction, guild=guild, user=user)


# Posted before


async def test_repeated_link_is_answered_with_where_it_is_and_can_be_posted_again(
    stage: Stage,
) -> None:
    otto = stage.fake.add_member("otto")
    url = once(stage, stage.image())
    async with stage.bot() as bot:
        post = await posted(stage, url)
        spent(stage)
        asked = await ask(stage, f"{url}?utm_source=x#:~:text=y", otto)
        answer = await told(stage, asked, "already posted")
        assert address(post) in answer.content
        assert answer.buttons == ["Post again"]
        slash = await stage.fake.slash(stage.channel_id, "download", {"url": url})
        assert address(post) in (await stage.fake.answered(slash)).content
        assert len(await bot.app.queue.list()) == 1
        await bot.app.database.all(copy_of("number + 1", at_s="1"))
        noted = "json_set(posts, '$[0].notes', json_object(?, '720p to fit'))"
        [name] = (await bot.app.queue.list())[0].posts[0].files
        await bot.app.database.all(f"UPDATE jobs SET posts = {noted}", name)
    async with stage.bot() as bot:  # the button outlives the bot
        await until(partial(has_one_row, bot))  # what is too old to count has gone
        await stage.fake.click(answer.id, "Post again", otto.id)
        [_, again] = await stage.gets(2)
        assert again.files[0].data == post.files[0].data
        assert "720p to fit" in again.content, "how it was made to fit stays true"
        await until(partial(counted, bot, otto))
        # Who may not download may not do it by the button.
        stage.guild_settings(f"[permissions]\ndenied_users = [{otto.id}]\n")
        click = await stage.fake.click(answer.id, "Post again", otto.id)
        assert "may not use this bot" in (await stage.fake.answered(click)).text
        assert len(stage.posted()) == 2


async def test_repeated_links_of_a_request_share_a_message(stage: Stage) -> None:
    urls = [link(stage.image(1)), link(stage.image(2))]
    async with stage.bot():
        posts = [await posted(stage, url) for url in urls]
        asked = await ask(stage, f"{urls[0]} {urls[0]}?utm_source=x {urls[1]}")
        answer = await told(stage, asked, "already posted")
        assert [line[:2] for line in answer.content.split("\n")] == ["1.", "2."]
        assert all(address(post) in answer.content for post in posts)
        assert answer.buttons == ["Post again (1)", "Post again (2)"]
        await stage.fake.click(answer.id, "Post again (2)")
        again = (await stage.gets(3))[-1]
        assert again.files[0].data == posts[1].files[0].data
        told_so = [m for m in stage.said() if "already posted" in m.content]
        assert told_so == [answer]


def again(number: int) -> AgainButton:
    return AgainButton(f"{number:010x}")


def answer_of(text: str, *buttons: discord.ui.Item[Any]) -> tuple[str, Any]:
    view = discord.ui.View(timeout=None)
    for button in buttons:
        view.add_item(button)
    return text, view


async def test_answers_are_packed_in_as_few_messages_as_hold_them() -> None:
    many = [answer_of(f"{n} " + 150 * "x", again(n)) for n in range(25)]
    messages = packed([*many, *many, ("the end", None)])
    assert len(messages) == 3
    assert all(len(text) <= 2000 for text, _view in messages)
    labels = [item.item.label for _text, view in messages for item in view.children]
    assert len(labels) == 25
    assert labels[:2] == ["Post again (1)", "Post again (2)"]
    own = answer_of("own", discord.ui.Button(label="Own"))
    alone = packed([answer_of("a", again(0)), own, ("b", None)])
    assert [text for text, _view in alone] == ["a", "own", "b"]
    assert alone[1][1] is own[1]
    [(text, view)] = packed([("b", None), answer_of("a", again(0))])
    assert (text, view.children[0].item.label) == ("b\na", "Post again")


async def test_post_that_was_deleted_does_not_count(stage: Stage) -> None:
    async with stage.bot() as bot:
        for how in ("told", "untold", "channel"):
            print(how)  # shown when it fails
            place = await stage.fake.add_thread(stage.channel_id, how)
            # Two messages, of which one goes.
            url = once(stage, *stage.images(11), name=how)
            request = await ask(stage, url, place=place.id)
            await told(stage, request, "Done")
            post = [m for m in answers(stage, request) if m.files][-1]
            sql = "SELECT * FROM already_here WHERE channel_id = ?"
            rows = partial(bot.app.database.all, sql, place.id)
            assert len(await rows()) == 2
            if how == "told":
                await stage.fake.delete_message(post.id)

                async def gone(rows: Any = rows) -> bool:
                    return not any(row["same"] for row in await rows())

                await until(gone)
            elif how == "untold":
                post.deleted = True
            else:
                await stage.fake.delete_channel(place.id)
            spent(stage, how)
            await files_of(stage, await ask(stage, url))


async def test_post_that_its_asker_cannot_open_is_no_answer(stage: Stage) -> None:
    fake, url = stage.fake, once(stage, stage.image())
    otto, away = fake.add_member("otto"), await fake.add_guild("Away")
    closed = await fake.add_thread(stage.channel_id, "closed")
    async with stage.bot():
        await posted(stage, url)
        spent(stage)
        await fake.deny_member(stage.channel_id, otto.id, "read_message_history")
        # In another server, nothing is here; the files are posted anew all the same.
        for user, place in ((fake.member, away), (otto, fake.channel)):
            asked = await ask(stage, url, user, place.id)
            message = await files_of(stage, asked)
            assert message.files[0].data == stage.bytes_of(stage.image())
        assert closed


async def test_what_is_no_answer_is_downloaded(stage: Stage) -> None:
    async with stage.bot() as bot:
        for why in ("lost", "failed", "old", "spoiler", "quality"):
            print(why)  # shown when it fails
            steps = {"lost": ["lose=gone"], "failed": ["fail=gone"]}.get(why, [])
            url = once(stage, stage.image(), *steps, name=why)
            first = await ask(stage, url)
            await told(stage, first, "failed" if why == "failed" else "Done")
            if why == "old":
                day = "UPDATE already_here SET at_s = at_s - 86401"
                await bot.app.database.all(day)
            stage.steps(why, stage.image(2))
            words = why if why == "spoiler" else "480" * (why == "quality")
            message = await files_of(stage, await ask(stage, f"{words} {url}"))
            kept = why in ("old", "spoiler")  # which is not fetched
            number = 1 if kept else 2
            assert message.files[0].data == stage.bytes_of(stage.image(number))
            hidden = message.files[0].filename.startswith("SPOILER_")
            assert hidden == (why == "spoiler")


async def test_link_is_not_held_up_by_a_discord_that_does_not_answer(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = once(stage, stage.image())
    async with stage.bot() as bot:
        here = bot.app.plugins.all["already_here"]
        await posted(stage, url)
        await bot.app.database.all(copy_of("number + 1", "at_s"))
        monkeypatch.setattr(module("already_here"), "LOOK_S", 0.3)
        monkeypatch.setattr(bot.app.plugins, "quick_limit_s", 30)
        fault = stage.fake.fault("history", "hang", times=9)
        await files_of(stage, await ask(stage, url))
        fault.release()
        assert fault.hits == 1
        assert not here.failures


async def test_direct_message_answers_only_its_own_member(stage: Stage) -> None:
    otto, url = stage.fake.add_member("otto"), once(stage, stage.image())
    mine, theirs = map(stage.fake.open_dm, (stage.fake.member.id, otto.id))
    async with stage.bot(download__direct_messages=True) as bot:
        stage.guild_settings(QUICK, 0)
        post = await posted(stage, url, place=mine.id)
        answer = await told(
            stage, await ask(stage, url, place=mine.id), "already posted"
        )
        assert address(post) in answer.content
        spent(stage)
        await files_of(stage, await ask(stage, url, otto, theirs.id))
        [job, _] = await bot.app.queue.list()
        button = AgainButton(job.id)
        for forgotten in (False, True):  # by the queue, not by what is here
            if forgotten:
                assert await bot.app.queue.forget(user_id=job.user_id)
            for guild, user in ((None, otto), (stage.fake.guild, stage.fake.member)):
                click = click_of(guild, user)
                with pytest.raises(Refused):
                    await button.asked_for(bot.app, click)
            mine_again = click_of(None, stage.fake.member)
            assert (await button.asked_for(bot.app, mine_again))[0] == url


# Under way


async def test_all_who_ask_for_a_link_at_once_are_one_job_and_are_told(
    stage: Stage,
) -> None:
    fake = stage.fake
    otto, ida = fake.add_member("otto"), fake.add_member("ida")
    url = once(stage, "wait=gate", stage.image())
    other = await fake.add_thread(stage.channel_id, "other")
    async with stage.bot() as bot:
        first, second = await asyncio.gather(ask(stage, url), ask(stage, url, otto))
        for request in (first, second):  # whichever of them is taken first
            await told(stage, request, "ownload")
        third = await ask(stage, url, ida, other.id)
        await told(stage, third, "downloaded already")
        listed = await stage.fake.slash(stage.channel_id, "queue list")
        text = (await stage.fake.answered(listed)).text
        assert text.count("joined an earlier request") == 2, text
        assert "1 running, 0 waiting" in text
        stats = await stage.fake.slash(stage.channel_id, "stats")
        assert "1 running, 0 waiting" in (await stage.fake.answered(stats)).text
        stage.open_gate("gate")
        [post] = await stage.gets(1)
        users = {first.id: fake.member, second.id: otto, third.id: ida}
        for request in {first, second, third} - {post.replied_to}:
            assert address(post) in (await told(stage, request, "is here")).content
        for user in users.values():
            await until(partial(counted, bot, user))
        sums = await bot.app.database.one(
            "SELECT sum(completed), max(bytes), sum(bytes) FROM stats WHERE day = 0 AND "
            "guild_id > 0"
        )
        assert sums and sums[0] == 3 and sums[1] == sums[2] == len(post.files[0].data)
        assert len(stage.posted()) == 1
        assert (
            await told(stage, await ask(stage, url, otto), "already posted")
        ).buttons


async def test_short_link_is_the_link_that_it_leads_to(stage: Stage) -> None:
    shutil.copy(SUPPORT_PLUGINS / "toy_site.py", stage.plugins)
    otto, url = stage.fake.add_member("otto"), link(stage.image(2), "fail=gone")
    other = link(stage.image(3))
    first_word = stage.facts("leads", leads_to=url)
    second_word = stage.facts("later", leads_to=other)  # what a page may have said
    short = link(first_word, second_word, "wait=gate", stage.image())
    async with stage.bot() as bot:
        first = await ask(stage, short)
        await told(stage, first, "Downloading")
        second = await ask(stage, url, otto)
        await told(stage, second, "downloaded already")
        stage.open_gate("gate")
        post = await files_of(stage, first)
        assert address(post) in (await told(stage, second, "is here")).content
        await told(stage, first, "Done")
        for known in (url, short):
            answer = await told(stage, await ask(stage, known), "already posted")
            assert address(post) in answer.content
        await files_of(stage, await ask(stage, other))  # which nobody has posted
        forget = await stage.fake.slash(stage.channel_id, "privacy forget")
        await stage.fake.answered(forget)
        await told(stage, await ask(stage, url, otto), "already posted")
        assert await here_is_no_word_of(bot, short)


async def test_link_that_only_a_short_one_has_brought_is_known(stage: Stage) -> None:
    shutil.copy(SUPPORT_PLUGINS / "toy_site.py", stage.plugins)
    url = link(stage.image(2), "fail=gone")
    short = link(stage.facts("leads", leads_to=url), stage.image())
    async with stage.bot():
        post = await files_of(stage, first := await ask(stage, short))
        await told(stage, first, "Done")
        answer = await told(stage, await ask(stage, url), "already posted")
        assert address(post) in answer.content


async def here_is_no_word_of(bot: BossBot, url: str) -> bool:
    """Whether no row names a link, which may say who shared it."""
    rows = await bot.app.database.all("SELECT url FROM already_here")
    rows += await bot.app.database.all("SELECT short FROM already_here_short")
    return url not in [row[0] for row in rows]


async def test_find_posted_gives_up_a_short_link_to_what_is_here(
    stage: Stage,
) -> None:
    shutil.copy(SUPPORT_PLUGINS / "toy_site.py", stage.plugins)
    otto, url = stage.fake.add_member("otto"), link(stage.image())
    leads = stage.facts("leads", leads_to=url)
    short = [link(leads, f"{step}=never", stage.image(2)) for step in ("wait", "hang")]
    away = await stage.fake.add_thread(stage.channel_id, "away")
    async with stage.bot() as bot:
        post = await posted(stage, url)
        status = await told(stage, await ask(stage, short[0], otto), "It is here")
        assert address(post) in status.content and not status.buttons
        job = await bot.app.queue.get(job_id(status))
        assert job and (job.status, job.file_count) == (Status.COMPLETED, 0)
        await until(partial(counted, bot, otto))
        # Now it is known, and answered at once; what is asked for again is posted.
        answer = await told(stage, await ask(stage, short[0], otto), "already posted")
        assert address(post) in answer.content
        await stage.fake.click(answer.id, "Post again", otto.id)
        [_, again] = await stage.gets(2)
        assert again.files[0].data == post.files[0].data
        # Not where it cannot be opened.
        await stage.fake.deny_member(stage.channel_id, otto.id, "read_message_history")
        await told(stage, await ask(stage, short[1], otto, away.id), "Downloading")


@pytest.mark.parametrize("place", ["here", "away"])
async def test_who_has_joined_a_short_link_is_given_what_all_can_open(
    stage: Stage, place: str
) -> None:
    shutil.copy(SUPPORT_PLUGINS / "toy_site.py", stage.plugins)
    otto, url = stage.fake.add_member("otto"), link(stage.image())
    leads = stage.facts("leads", leads_to=url)
    short = link("wait=gate", leads, stage.image(2))
    away = await stage.fake.add_thread(stage.channel_id, "away")
    async with stage.bot():
        post = await posted(stage, url)
        first = await ask(stage, short)
        await told(stage, first, "Downloading")
        at = away.id if place == "away" else None
        second = await ask(stage, short, otto, at)
        await told(stage, second, "downloaded already")
        stage.open_gate("gate")
        if place == "away":
            post = await files_of(stage, first)
        for request in (first, second) if place == "here" else (second,):
            assert address(post) in (await told(stage, request, "is here")).content


@pytest.mark.parametrize("asked", ["facts=loud/", ""])
async def test_link_that_is_no_short_one_leads_nowhere(
    stage: Stage, asked: str
) -> None:
    shutil.copy(SUPPORT_PLUGINS / "toy_site.py", stage.plugins)
    other = link(stage.image(2))
    stage.facts("loud", leads_to=other)
    stage.facts("leads", leads_to="https://other.example/a")
    url = f"https://toy.example/{asked or 'facts=leads/'}{stage.image()}"
    async with stage.bot() as bot:
        await posted(stage, url)
        [job] = await bot.app.queue.list()
        assert "leads_to" not in job.facts
        await files_of(stage, await ask(stage, other))


async def test_failure_is_told_to_all_who_asked(stage: Stage) -> None:
    otto, url = stage.fake.add_member("otto"), link("wait=gate", "fail=gone")
    async with stage.bot():
        first = await ask(stage, url)
        await told(stage, first, "Downloading")
        second = await ask(stage, url, otto)
        await told(stage, second, "downloaded already")
        stage.open_gate("gate")
        for request in (first, second):
            status = await told(stage, request, "deleted or never existed")
            assert "Try again" in status.buttons


async def test_who_cancels_leaves_and_the_other_gets_the_files(stage: Stage) -> None:
    otto, count = stage.fake.add_member("otto"), 0
    async with stage.bot():
        for who in ("first", "second"):
            print(who)  # shown when it fails
            url = link(f"wait={who}", stage.image())
            first = await ask(stage, url)
            mine = job_id(await told(stage, first, "Downloading"))
            second = await ask(stage, url, otto)
            status = await told(stage, second, "downloaded already")
            leaves, stays = (first, second) if who == "first" else (second, first)
            if who == "first":
                await stage.says(f"$queue cancel {mine}")
            else:
                await stage.fake.click(status.id, "Cancel", otto.id)
            await told(stage, leaves, "Cancelled")
            stage.open_gate(who)
            message = await files_of(stage, stays)
            await told(stage, stays, "Done")
            assert stage.posted()[count:] == [message]
            count += 1


async def test_job_in_a_channel_that_cannot_be_opened_is_not_joined(
    stage: Stage,
) -> None:
    fake, url = stage.fake, link("wait=gate", stage.image())
    otto, place = fake.add_member("otto"), await fake.add_thread(stage.channel_id, "x")
    async with stage.bot(max_concurrent_per_guild=1) as bot:
        first = await ask(stage, url, place=place.id)
        await told(stage, first, "Downloading")
        guild = bot.get_guild(fake.guild.id)
        thread = guild and guild.get_thread(place.id)
        assert thread
        thread._type = discord.ChannelType.private_thread
        second = await ask(stage, url, otto)
        await told(stage, second, "queued")
        stage.open_gate("gate")
        await files_of(stage, second)


async def test_kill_loses_nobody_who_has_joined(
    stage: Stage, process: BotProcess
) -> None:
    otto, url = stage.fake.add_member("otto"), link("hang=gate", stage.image())
    fault = stage.fake.fault("upload", "hang_answer")
    await process.start()
    first = await ask(stage, url)
    await told(stage, first, "Downloading")
    second = await ask(stage, url, otto)
    await told(stage, second, "downloaded already")
    stage.open_gate("gate")
    await stage.fake.wait_for(lambda: fault.hits)
    await process.kill("bot")  # it is there, which nobody knows yet
    fault.release()
    await process.family_ended()
    await process.start()
    await told(stage, second, "is here")
    await told(stage, first, "Done")
    assert len(stage.posted()) == 1


# Forgetting


@pytest.mark.parametrize("lost", [False, True])
async def test_forgetting_takes_nothing_of_another_member(
    stage: Stage, lost: bool
) -> None:
    fake = stage.fake
    url = link("wait=gate", stage.image(), *["lose=gone"] * lost)
    otto = fake.add_member("otto")
    async with stage.bot(retention__completed_retention_s=0) as bot:
        await ask(stage, url)
        await stage.hears("Downloading")
        second = await ask(stage, url, otto)
        await told(stage, second, "downloaded already")
        stage.open_gate("gate")
        [post] = await stage.gets(1)
        await told(stage, second, "is here")
        ids = {job.id: job for job in await bot.app.queue.list()}
        for job in ids:
            await job_at(bot, job, Status.COMPLETED)
        for user, left in ((fake.member, [otto.id]), (otto, [])):
            options = {"messages": True}
            forget = await fake.slash(
                stage.channel_id, "privacy forget", options, user.id
            )
            await fake.answered(forget)
            rows = await bot.app.database.all("SELECT user_id FROM already_here")
            assert [row[0] for row in rows] == left
            if user is fake.member:
                assert not post.deleted
            if user is fake.member and not lost:
                again = await told(stage, await ask(stage, url, otto), "already posted")
                assert address(post) in again.content
        await fake.wait_for(lambda: post.deleted)


@pytest.mark.parametrize("who", ["first", "second"])
async def test_who_is_forgotten_after_a_kill_takes_nothing_of_who_joined(
    stage: Stage, who: str
) -> None:
    otto, url = stage.fake.add_member("otto"), link("wait=gate", stage.image())
    async with stage.bot() as bot:
        first = await ask(stage, url)
        await told(stage, first, "Downloading")
        second = await ask(stage, url, otto)
        await told(stage, second, "downloaded already")
        stage.open_gate("gate")
        statuses = {
            "first": await told(stage, first, "Done"),
            "second": await told(stage, second, "is here"),
        }
        [post] = stage.posted()
        job = await bot.app.queue.get(job_id(statuses[who]))
        assert job
        # As after a kill: that they have ended is stored, and no plugin has noted it.
        await until(partial(counted, bot, otto))
        await bot.app.database.all("DELETE FROM already_here")
        row = (job.id, 1, 0)
        await bot.app.database.all("INSERT INTO privacy_jobs VALUES (?, ?, ?)", *row)
        await module("privacy").job_changed(job, bot.app)
        await stage.fake.wait_for(lambda: statuses[who].deleted)  # the last of all
        assert not post.deleted
        assert not await bot.app.queue.get(job.id)


# What is the same


X = "https://x.com/nasa/status/1"
SAME = [
    (X, "https://mobile.twitter.com/NASA/status/1?s=20&t=a", True),
    (X, "https://fxtwitter.com/i/web/status/1/photo/2", True),
    (X, "https://x.com/nasa/status/2", False),
    (
        "https://youtu.be/jNQXAC9IVRw?si=abc",
        "https://music.youtube.com/watch?v=jNQXAC9IVRw&list=x",
        True,
    ),
    (
        "https://old.reddit.com/r/aww/comments/90bu6w/title/",
        "https://redd.it/90bu6w",
        True,
    ),
    (
        "https://www.instagram.com/reel/BQ0eAlwhDrw/?igsh=x",
        "https://ddinstagram.com/nasa/p/BQ0eAlwhDrw",
        True,
    ),
    (
        "https://www.tiktok.com/@nasa/video/7106594312292453675?is_from_webapp=1",
        "https://m.tiktok.com/v/7106594312292453675.html",
        True,
    ),
    ("https://a.example/p?b=2&a=1&fbclid=x", "http://www.a.example/p/?a=1&b=2", True),
    ("https://a.example/p?a=1", "https://a.example/p?a=2", False),
    ("https://a.example/%7Eada/P", "https://a.example/~ada/P#", True),
    ("https://a.example/p", "https://a.example/P", False),
]
OPTIONS = [
    ({"quality": "480"}, {}, False, False),
    ({"spoiler": True}, {}, False, True),
    ({"subtitles": True, "language": "de"}, {"subtitles": True}, False, False),
    ({"language": "de"}, {"again": True, "kept": "x"}, True, True),
    ({"thread": True}, {}, True, True),  # which there is none to be had of
    ({"own": 1}, {}, False, False),
]


async def test_links_and_options_that_mean_the_same_are_known(
    make_settings: MakeSettings, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(make_settings(), ROOT / "plugins")
    restricted = SimpleNamespace(is_nsfw=lambda: True)
    monkeypatch.setattr(app.bot, "get_channel", {9: restricted}.get)

    def keys(url: str, **fields: Any) -> Any:
        route = app.router.route(url)
        job = make_job(url=route.url, platform=route.platform, guild_id=1, **fields)
        return keys_of(app, job)

    for one, other, same in SAME:
        assert (keys(one) == keys(other)) == same, (one, other)
    for first, second, same, files in OPTIONS:
        one, other = keys(X, options=first), keys(X, options=second)
        assert (one.same == other.same, one.content == other.content) == (same, files)
    assert keys(X).content == keys(X, channel_id=5).content
    assert keys(X).same == keys(X, channel_id=5).same != keys(X, channel_id=9).same
    assert keys(X).content == keys(X, channel_id=9).content
    in_guilds = (keys(X), make_job(guild_id=2))
    assert in_guilds[0].same != keys_of(app, in_guilds[1]).same


LEADS = [
    ("https://vm.tiktok.com/ZT/", "https://m.tiktok.com/v/71.html?_r=1", "@/video/71"),
    (
        "https://www.tiktok.com/t/ZT/",
        "https://www.tiktok.com/@a/photo/7?x",
        "@a/photo/7",
    ),
    ("https://vt.tiktok.com/ZT/", "https://www.tiktok.com/login?u=x", ""),
    ("https://vt.tiktok.com/ZT/", "https://vm.tiktok.com/ZZ/", ""),
    ("https://vt.tiktok.com/ZT/", "https://x.com/nasa/status/1", ""),
    ("https://vt.tiktok.com/ZT/", "https://tiktok.com@a.example/@a/video/1", ""),
    ("https://vt.tiktok.com/ZT/", "http://[", ""),
    ("https://www.tiktok.com/@a/video/1", "https://www.tiktok.com/@a/video/2", ""),
    ("https://a.example/", "https://www.tiktok.com/@a/video/2", ""),
    ("https://t.co/a", "https://x.com/nasa/status/1", ""),
    (
        "https://reddit.com/r/a/s/abc456GHIJ",
        "https://redd.it/90bu6w",
        "comments/90bu6w",
    ),
    (
        "https://instagram.com/share/B1",
        "https://instagram.com/reels/BQ0/?x",
        "reel/BQ0/",
    ),
]


async def test_child_is_believed_where_a_short_link_of_its_own_site_leads(
    make_settings: MakeSettings, make_app: MakeApp
) -> None:
    app = make_app(make_settings(), ROOT / "plugins")
    worker = LocalWorker.__new__(LocalWorker)
    worker.app = app
    for asked, told, end in LEADS:
        route = app.router.route(asked)
        job = make_job(url=route.url, platform=route.platform)
        led = worker._leads_to(job, {"leads_to": told})
        assert led.endswith(end) and bool(led) == bool(end), (asked, told)


async def test_what_a_login_has_brought_in_part_is_known(tmp_path: Path) -> None:
    worker = LocalWorker.__new__(LocalWorker)
    for sources, login in (([["1", "sha"]], True), ([], None)):
        job = make_job(sources=sources, facts={"login": True})
        await worker._inspect(job, Fetched(), tmp_path, 0)  # a try without it
        assert job.facts.get("login") is login


@pytest.mark.parametrize(
    ("options", "cookies", "login"),
    [
        ({}, None, False),
        ({"extractor.reddit.client-id": "x", "extractor_args": {"a": {}}}, None, False),
        ({}, Path("cookies.txt"), True),
        ({"extractor.reddit.refresh-token": "x"}, None, True),
        ({"extractor.reddit.refresh-token": ""}, None, False),
        ({"extractor": {"a": {"username": "x"}}}, None, True),
        ({"usenetrc": True}, None, True),
    ],
)
def test_what_a_login_has_fetched_is_known(
    options: dict[str, Any], cookies: Path | None, login: bool
) -> None:
    request = Request(
        url="", folder=Path(), prefix="", engine_options=options, cookies_file=cookies
    )
    assert logs_in(request) == login


def test_comparing_links_takes_time_in_proportion_to_them() -> None:
    def took_s(length: int) -> float:
        link = "https://a.example/" + "%41" * length + "?" + "a&" * length
        look, clock = partial(without_tracking, link), time.process_time
        return min(timeit.repeat(look, timer=clock, number=1, repeat=5))

    took_s(10)
    assert took_s(8000) < 100 * max(took_s(800), 1e-4)


@pytest.mark.parametrize(
    ("kept", "job", "may"),
    [
        ({}, {}, True),
        ({}, {"guild_id": 2}, True),
        ({"facts": {"login": True}}, {}, True),
        ({"facts": {"login": True}}, {"guild_id": 2}, False),
        ({"facts": {"login": True}, "guild_id": 0}, {"guild_id": 0}, True),
        (
            {"facts": {"login": True}, "guild_id": 0},
            {"guild_id": 0, "channel_id": 9},
            False,
        ),
        ({"facts": {"lost": 1}}, {}, False),
        ({"folder": ""}, {}, False),
        ({"status": Status.FAILED}, {}, False),
        ({}, {"limit_bytes": 50}, True),  # it is made to fit
        ({}, {"limit_bytes": 200}, False),  # there may be a better one
        ({"total_bytes": 20}, {"limit_bytes": 200}, True),
    ],
)
def test_kept_files_serve_where_they_may_and_nothing_better_is_to_be_had(
    kept: dict[str, Any], job: dict[str, Any], may: bool
) -> None:
    values: dict[str, Any] = {"guild_id": 1, "channel_id": 3, "limit_bytes": 100}
    was = {"status": Status.COMPLETED, "folder": "f", "total_bytes": 90}
    earlier = make_job(**{**values, **was, **kept})
    assert may_serve(earlier, make_job(**{**values, **job})) == may


def test_thread_alone_is_no_beginning_and_what_comes_soon_is_waited_for() -> None:
    def begun(*posts: Post) -> bool:
        return has_begun(make_job(posts=[*posts]))

    head, file = Post(1, "", {}, "sent"), Post(2, "", {"a": "1"}, "waiting")
    assert begun(head) and not begun(file)
    assert not begun(head, replace(file, thread_id=0))
    assert begun(head, replace(file, thread_id=5, state="sent"))
    came = [Path("1"), Path("2"), Path("3")]
    assert left_s(Fetched(came, {"items": 5}), 4) == 4
    assert left_s(Fetched(came, {"items": 2}), 4) == 0
    assert left_s(Fetched(came), 4) == math.inf
