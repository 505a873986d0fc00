"""Links that are posted without a command: the bot reacts to them, or downloads them."""

import asyncio
import contextlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import discord
import pytest
from bossbot_plugins import auto_links
from discord_support import Stage, job_at, link, module, until
from fake_discord import SUPPRESS_EMBEDS, Message

from bossbot import BossBot, Job, JobFailed, Status

pytest_plugins = ("discord_fixtures",)

READY, FAILED = auto_links.READY, auto_links.FAILED


@pytest.fixture
def room(stage: Stage) -> Stage:
    """A server in which the bot reacts to links."""
    for name in ("auto_links", "limits"):
        stage.add_plugin(name)
    allow(stage, "react")
    return stage


def allow(stage: Stage, modes: str, more: str = "") -> None:
    stage.guild_settings(
        f"[auto_links]\nauto_links = {{ {modes} }}\n{more}"
        if "=" in modes
        else f'[auto_links]\nauto_links = "{modes}"\n{more}'
    )


async def offered(stage: Stage, message: Message, emoji: str = READY) -> Message:
    await stage.fake.wait_for(lambda: emoji in message.reactions)
    return message


async def is_left_alone(stage: Stage, *messages: Message) -> None:
    """Fails if the bot does anything about them; it has heard a later message."""
    after = await stage.says(link(stage.image(9)))
    await offered(stage, after)
    assert not any(message.reactions for message in messages)


# Reactions


async def test_click_downloads_what_was_posted_once_whoever_clicks_how_often(
    room: Stage,
) -> None:
    fake, clicker = room.fake, room.fake.add_member("carl")
    async with room.bot() as bot:
        message = await room.says(f"Look: {link(room.image(1))}, nice")
        await offered(room, message)
        assert message.reactions == {READY: [fake.bot]}
        await fake.member_reacts(message, READY, clicker.id)
        [post] = await room.gets(1)
        [job] = await bot.app.queue.list()
        assert job.user_id == clicker.id and post.replied_to is message
        await fake.member_reacts(message, READY)
        await fake.member_reacts(message, READY, clicker.id)
        await fake.member_reacts(message, FAILED)
        await is_left_alone(room)
        assert room.said() == [post]
        await bot.app.database.all("INSERT INTO auto_links VALUES (1, 'of long ago')")
    async with room.bot() as bot:  # also when the queue knows nothing of it any more
        assert await bot.app.queue.forget(job.guild_id)
        await fake.member_reacts(message, READY)
        await fake.member_edits(message, f"{link(room.image(2))} {message.content}")
        await fake.member_reacts(message, READY)
        await room.gets(2)
        assert len(await bot.app.queue.list()) == 1
        rows = await bot.app.database.all("SELECT DISTINCT message_id FROM auto_links")
        assert [row[0] for row in rows] == [message.id]
    assert room.said() == room.posted()


async def test_what_counts_is_the_message_as_it_is_when_it_is_clicked(
    room: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = room.fake
    async with room.bot() as bot:
        edited = await offered(room, await room.says(link(room.image(1))))
        deleted = await offered(room, await room.says(link(room.image(2))))
        emptied = await offered(room, await room.says(link(room.image(3))))
        await fake.member_edits(edited, f"||{link(room.image(4))}||")
        await fake.member_edits(emptied, "nothing to see")
        command = await offered(room, await room.says(link(room.image(6))))
        await fake.member_edits(command, f"$download {command.content}")
        await fake.delete_message(deleted.id)
        old = await offered(room, await room.says(link(room.image(7))))
        cleared = await offered(room, await room.says(link(room.image(5))))
        cleared.reactions.clear()  # by a moderator
        with monkeypatch.context() as patch:
            patch.setattr(module("auto_links"), "KEPT_DAYS", -1)  # it is too old
            await fake.member_reacts(old, READY)
            await fake.settle()
        for message in (deleted, emptied, cleared, command, edited):
            await fake.member_reacts(message, READY)
        [post] = await room.gets(1)
        assert len(await bot.app.queue.list()) == 1
    assert post.files[0].data == room.bytes_of(room.image(4))
    assert post.files[0].filename.startswith("SPOILER_")


async def test_nothing_else_gets_a_reaction(room: Stage) -> None:
    fake = room.fake
    robot = fake.add_member("robot", bot=True)
    url = link(room.image(1))
    async with room.bot(limits__download_cooldown_s=0):
        quiet = [
            await fake.member_says(room.channel_id, url, robot.id),
            await fake.webhook_says(room.channel_id, url),
            await room.says(f"<{url}> `{url}` ```\n{url}```"),
            await room.says("https://unknown.example/page https://e.example/a.jpg"),
            await room.says(f"https://discord.com/channels/1/2/3 {url[:12]}"),
            await room.says("no link at all / or is there"),
            await room.says(f"$ping {url}"),
            await room.says(f"$download {url}"),
        ]
        await room.gets(1)
        await is_left_alone(room, *quiet, *room.said())
        # Nor does it count when somebody else brings the reaction.
        for message in quiet[:3]:
            await fake.member_reacts(message, READY)
        ready = await offered(room, await room.says(url))
        await fake.member_reacts(ready, READY, robot.id)
        await fake.member_reacts(ready, READY)
        await room.gets(2)
    assert len(room.posted()) == 2


async def test_rule_of_a_channel_covers_its_threads_and_no_other_channel(
    stage: Stage,
) -> None:
    stage.add_plugin("auto_links")
    fake = stage.fake
    other = await fake.add_thread(stage.channel_id, "news")
    thread = await fake.add_thread(stage.channel_id, "talk")
    allow(stage, f'0 = "off", {stage.channel_id} = "react", {other.id} = "off"')
    async with stage.bot() as bot:
        silent = await stage.says(link(stage.image()), other.id)
        message = await stage.says(link(stage.image()), thread.id)
        await offered(stage, message)
        await fake.member_reacts(message, READY)
        await stage.gets(1, thread.id)
        assert not silent.reactions
        allow(stage, "off")
        message = await stage.says(link(stage.image()))
        await stage.says("$nothing")
        await fake.settle()
        assert not message.reactions and bot.app
    assert not stage.said()


async def test_site_that_the_server_does_not_allow_is_not_offered(room: Stage) -> None:
    allow(room, "react", '[permissions]\nplatforms = ["Pics"]\n')
    room.copy_plugin(Path(__file__).parent / "plugins" / "pics.py")
    async with room.bot() as bot:
        refused = await room.says(link(room.image(2)))
        await offered(
            room, await room.says(link(room.image(1)).removeprefix("https://"))
        )
        assert not refused.reactions
        engines = cast(auto_links.Links, bot.get_cog("Links")).engines
        assert not engines.waiting and not engines.known, "it is not even asked about"


@pytest.mark.parametrize(
    ("kind", "counts"),
    [
        ("default", True),
        ("reply", True),
        ("thread_created", False),
        ("pins_add", False),
    ],
)
def test_what_discord_says_in_a_members_name_is_not_theirs(
    kind: str, counts: bool
) -> None:
    message: Any = SimpleNamespace(
        guild=1,
        author=SimpleNamespace(bot=False),
        webhook_id=None,
        type=discord.MessageType[kind],
    )
    assert auto_links.is_a_member_s(message) is counts


async def test_who_may_not_download_there_clicks_in_vain(room: Stage) -> None:
    fake = room.fake
    role = await fake.add_role("crew")
    friend = fake.add_member("frieda")
    fake.give_role(friend, role)
    allow(room, "react", f"[permissions]\ndownload_roles = [{role.id}]\n")
    async with room.bot() as bot:
        message = await offered(room, await room.says(link(room.image())))
        await fake.member_reacts(message, READY)
        await fake.member_reacts(message, READY, friend.id)
        await room.gets(1)
        [job] = await bot.app.queue.list()
    assert job.user_id == friend.id
    assert FAILED not in message.reactions


async def test_missing_permission_is_said_once_in_the_log_and_in_the_settings(
    room: Stage, logged: list[str]
) -> None:
    fake = room.fake
    room.add_plugin("settings")
    await fake.deny_member(room.channel_id, fake.bot.id, "add_reactions")

    async def told() -> list[str]:
        return [line for line in logged if "Add Reactions" in line]

    async with room.bot():
        await room.says(link(room.image(1)))
        await until(told)
        await room.says(link(room.image(2)))
        shown = await fake.slash(
            room.channel_id, "settings view", {"setting": "auto_links"}
        )
        text = (await fake.answered(shown)).text
        await fake.deny_member(room.channel_id, fake.bot.id)
        await offered(room, await room.says(link(room.image(3))))
        assert len(await told()) == 1
        assert not room.posted()
        # Where nothing is to be clicked on, only failures could not be shown.
        await fake.deny_member(room.channel_id, fake.bot.id, "add_reactions")
        allow(room, "on")
        await room.says(link(room.image(4)))
        await room.gets(1)
    assert f"<#{room.channel_id}>: Add Reactions" in text


# At once


async def test_every_link_of_a_post_is_downloaded_at_once_without_a_word(
    room: Stage,
) -> None:
    room.add_plugin("request")
    allow(room, "on", "[request]\ndelete_request = true\nsuppress_preview = true\n")
    one, two, three = (link(room.image(number)) for number in (1, 2, 3))
    async with room.bot() as bot:
        message = await room.says(f"{one} ||{two}|| <{three}> {one} https://x.example/")
        posts = await room.gets(2)
        jobs = await bot.app.queue.list()
        assert {job.url for job in jobs} == {one, two}
        told = bot.app.queue.untold()
        await until(lambda: has_none(told))
    names = {post.files[0].data: post.files[0].filename for post in posts}
    spoilers = [name.startswith("SPOILER_") for name in names.values()]
    assert spoilers.count(True) == 1
    assert names[room.bytes_of(room.image(2))].startswith("SPOILER_")
    assert all(post.replied_to is message for post in posts)
    assert room.said() == posts and not message.reactions
    assert message.flags == SUPPRESS_EMBEDS and not message.deleted


async def has_none(jobs: Any) -> bool:
    return not [job async for job in jobs]


async def test_rate_and_quota_count_and_the_cooldown_does_not(room: Stage) -> None:
    allow(room, "on", "[limits]\nrate_per_minute = 3\ncooldown_s = 60\n")
    async with room.bot() as bot:
        for number in (1, 2):
            await room.says(link(room.image(number)))
        await room.gets(2)
        await room.says(f"$download {link(room.image(3))}")  # no cooldown after those
        await room.gets(3)
        over = await room.says(link(room.image(4)))
        await offered(room, over, FAILED)
        assert len(await bot.app.queue.list()) == 3
        # Who is not over the limit can have it, where a click is enough.
        allow(room, "react", "[limits]\nrate_per_minute = 3\n")
        friend = room.fake.add_member("frieda")
        await room.fake.member_says(room.channel_id, "$ping", friend.id)
        over.reactions[READY] = [room.fake.bot]
        await room.fake.member_reacts(over, READY)
        await room.fake.member_reacts(over, READY, friend.id)
        await room.gets(4)
        await room.fake.wait_for(lambda: FAILED not in over.reactions)
    assert len([said for said in room.said() if "minute" in said.content]) == 0


async def test_failure_is_a_reaction_and_no_message_also_after_a_restart(
    room: Stage,
) -> None:
    allow(room, "on")
    async with room.bot() as bot:
        first = await room.says(link("fail=gone"))
        await offered(room, first, FAILED)
        fault = room.fake.fault("react", 503, times=9)
        second = await room.says(link("fail=private"))
        await room.fake.wait_for(lambda: fault.hits)
        [job] = [one for one in await bot.app.queue.list() if "private" in one.url]
        await job_at(bot, job.id, Status.FAILED)
    assert FAILED not in second.reactions
    fault.times = 0
    async with room.bot() as bot:
        await offered(room, second, FAILED)
        # A later try that succeeds takes the mark away.
        key = f"{job.request_key}#1"
        again = replace(job, status=Status.COMPLETED, request_key=key)
        await auto_links.tell(bot.app, again)
        assert FAILED not in second.reactions
    assert not room.said()


# A busy channel


class Asked:
    """A runner that answers slowly, or not at all."""

    def __init__(self) -> None:
        self.questions: list[list[str]] = []
        self.at_once = self.most_at_once = 0

    async def supports(self, urls: list[str], own: bool) -> list[str]:
        assert own
        self.questions.append(urls)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if "broken" in urls[0]:
            raise JobFailed("internal", "broken")  # type: ignore[arg-type]
        return ["toy" if "toy" in url else "" for url in urls]


async def test_flood_of_links_is_asked_about_in_few_questions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(auto_links, "PAUSE_S", 0)
    runner = Asked()
    engines = auto_links.Engines(SimpleNamespace(runner=runner))  # type: ignore[arg-type]
    urls = [f"https://{'toy' if n % 2 else 'no'}.example/{n % 150}" for n in range(600)]
    answers = await asyncio.gather(*map(engines.know, urls))
    assert answers == ["toy" in url for url in urls]
    assert len(runner.questions) == 8 and runner.most_at_once == 1
    assert max(map(len, runner.questions)) <= auto_links.MAX_ASKED
    many = [f"https://toy.example/x{n}" for n in range(auto_links.MAX_WAITING + 50)]
    answers = await asyncio.gather(*map(engines.know, many))
    assert answers.count(False) == 50 and not engines.waiting
    assert not await engines.know("https://broken.example/")
    assert not await engines.know("https://broken.example/")
    assert [q[0] for q in runner.questions[-2:]] == ["https://broken.example/"] * 2
    assert len(engines.known) <= auto_links.MAX_KNOWN


def test_no_more_links_and_messages_are_looked_at_than_there_is_room_for() -> None:
    plugins = SimpleNamespace(registered=lambda kind: {})
    bot: Any = SimpleNamespace(app=SimpleNamespace(plugins=plugins))
    links = auto_links.Links(bot)
    text = " ".join(f"https://a.example/{number}" for number in range(60))
    message: Any = SimpleNamespace(content=text, message_snapshots=[])
    assert len(links.find(message)) == auto_links.MAX_LINKS
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        free = [enter(links.room(1)) for _ in range(auto_links.MAX_BUSY + 1)]
        assert free == [*[True] * auto_links.MAX_BUSY, False]
        assert enter(links.room(2)), "a flood is its server's own"
    assert not links.busy


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a `b` c", "a   c"),
        ("a ```b\nc``` d", "a   d"),
        ("a ` b", "a ` b"),
        ("<https://a.example/> https://b.example/", "  https://b.example/"),
        ("[x](<https://a.example/>)", "[x]( )"),
        ("<@1> https://b.example/", "<@1> https://b.example/"),
    ],
)
def test_code_and_links_without_a_preview_are_left_out(text: str, left: str) -> None:
    assert auto_links.without_code(text) == left


async def test_link_that_is_under_way_or_here_is_answered_with_where_it_is(
    room: Stage,
) -> None:
    room.add_plugin("already_here")
    allow(room, "on", "[limits]\nrate_per_minute = 0\ncooldown_s = 0\n")
    otto = room.fake.add_member("otto")
    url = link("wait=gate", room.image())
    async with room.bot() as bot:
        await room.says(url)
        [first, *_] = await jobs_of(bot, 1)
        await job_at(bot, first.id, Status.DOWNLOADING)
        second = await room.fake.member_says(room.channel_id, url, otto.id)
        await jobs_of(bot, 2)
        room.open_gate("gate")
        [post] = await room.gets(1)
        told = await room.hears("is here: https://discord.com/channels/", str(post.id))
        assert told.replied_to is second
        other = link(room.image(2))
        await room.says(other)
        await room.gets(2)
        await until(partial(posted_in, bot, 2))
        asked = await room.says(f"{url} {other}")
        told = await room.hears("already posted", after=asked.id)
        assert told.buttons == ["Post again (1)", "Post again (2)"]
        # Two who click at the same moment get one answer.
        allow(room, "react", "[limits]\nrate_per_minute = 0\ncooldown_s = 0\n")
        asked = await offered(room, await room.says(url))
        clicks = (room.fake.member_reacts(asked, READY, u) for u in (None, otto.id))
        await asyncio.gather(*clicks)
        await room.hears("already posted", after=asked.id)
        busy = cast(auto_links.Links, bot.get_cog("Links")).busy
        await until(partial(is_empty, busy))
        answers = [said for said in room.said() if said.id > asked.id]
        assert len(answers) == 1


async def is_empty(table: Any) -> bool:
    return not table


async def posted_in(bot: BossBot, count: int) -> bool:
    rows = await bot.app.database.all("SELECT DISTINCT message_id FROM already_here")
    return len(rows) >= count


async def jobs_of(bot: BossBot, count: int) -> list[Job]:
    """All jobs, once there are so many."""

    async def there() -> bool:
        return len(await bot.app.queue.list()) == count

    await until(there)
    return await bot.app.queue.list()
