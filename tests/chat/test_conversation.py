"""The conversation in Discord, from a pasted link to the posted files."""

import re
import shutil
import sqlite3
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any

import discord
import pytest
from conftest import SUPPORT_PLUGINS
from discord_support import BotProcess, Stage, job_at, job_id, job_when, link, module
from fake_discord import MESSAGE_CONTENT, MIB, Message

import bossbot
from bossbot import Status

pytest_plugins = ("discord_fixtures",)

PLUGINS = Path(__file__).parent / "plugins"
DOORS = ("$", "/")
PORTAL = "https://discord.com/developers/applications"


async def ask(stage: Stage, door: str, words: str) -> int:
    """Gives the download command these words; returns the request's id."""
    if door == "$":
        return (await stage.says(f"$download {words}")).id
    return await stage.fake.slash(stage.channel_id, "download", {"url": words})


async def jobs(bot: bossbot.BossBot) -> int:
    return len(await bot.app.queue.list())


# From the link to the files


async def test_files_are_posted_byte_identical_and_in_order(stage: Stage) -> None:
    steps = stage.images(4)
    async with stage.bot():
        for number, door in enumerate(DOORS, 1):
            request = await ask(stage, door, link(*steps))
            status = await stage.hears("Download started", after=request)
            message = (await stage.gets(4 * number))[-1]
            await stage.hears("Done in", "4 files", f"`{job_id(status)}`")
            posted = [file.data for file in message.files]
            assert posted == [stage.bytes_of(step) for step in steps], door
            assert len({file.filename for file in message.files}) == 4
            assert all(job_id(status) in file.filename for file in message.files)
            size = bossbot.format_size(sum(map(len, posted)))
            shown = f"**toy.example** · [link](<{link(*steps)}>) · 4 files, {size}"
            assert message.content == shown
            if door == "$":  # a slash command leaves nothing to reply to but our answer
                assert message.replied_to
                assert message.replied_to.id == request
            assert len(stage.posted()) == number
    assert not any(said.mentions for said in stage.said())


async def test_album_of_12_is_two_messages_in_order(stage: Stage) -> None:
    steps = stage.images(12)
    async with stage.bot():
        await stage.says(f"$download {link(*steps)}")
        first, second = await stage.gets(12)
    assert [len(first.files), len(second.files)] == [10, 2]
    posted = [file.data for message in (first, second) for file in message.files]
    assert posted == [stage.bytes_of(step) for step in steps]
    assert re.search(r"\) · 12 files, [\d.]+ KiB · \(1/2\)$", first.content)
    assert second.content == "(2/2)"


async def test_a_file_over_25_mib_goes_alone(stage: Stage) -> None:
    steps = [
        stage.image(1),
        stage.padded(260_000, 2),
        stage.padded(130_000, 3),
        stage.padded(130_000, 4),
    ]
    async with stage.bot():
        assert module("discord_courier").MAX_MESSAGE_BYTES == 25 * MIB
        module("discord_courier").MAX_MESSAGE_BYTES = 250_000
        await stage.says(f"$download {link(*steps)}")
        messages = await stage.gets(4)
    assert [len(message.files) for message in messages] == [1, 1, 1, 1]
    posted = [file.data for message in messages for file in message.files]
    assert posted == [stage.bytes_of(step) for step in steps]


async def test_waiting_links_are_told_their_position(stage: Stage) -> None:
    async with stage.bot(max_concurrent_downloads=1) as bot:
        await ask(stage, "$", link("wait=gate", stage.image(1)))
        await stage.hears("Download started")
        await ask(stage, "$", link("wait=second", stage.image(2)))
        second = await stage.hears("Download queued. Position in queue: 1 · `")
        await ask(stage, "/", link(stage.image(3)))
        third = await stage.hears("Download queued. Position in queue: 2 · `")
        assert not stage.posted()
        stage.open_gate("gate")
        await stage.fake.wait_for(lambda: "in queue: 1 · `" in third.content)
        assert not any("in queue: 1" in version for version in second.versions[1:])
        stage.open_gate("second")
        messages = await stage.gets(3)
        await job_at(bot, job_id(third), Status.COMPLETED)
        await stage.fake.wait_for(lambda: "Done in" in second.content)
        await stage.fake.wait_for(lambda: "Done in" in third.content)
    # Posting takes no slot, so that the last two may pass each other.
    posted = {message.files[0].data for message in messages}
    assert posted == {stage.bytes_of(step) for step in stage.images(3)}


async def test_slow_links_of_one_member_hold_up_nobody_else(stage: Stage) -> None:
    other = stage.fake.add_member("other")
    async with stage.bot():
        links = [link(f"wait={number}") for number in range(5)]
        await stage.says(f"$download {' '.join(links)}")
        await stage.hears("Download queued")
        await stage.fake.member_says(
            stage.channel_id, f"$download {link(stage.image(1))}", user_id=other.id
        )
        (message,) = await stage.gets(1)
    assert message.files[0].data == stage.bytes_of(stage.image(1))


async def test_status_message_is_edited_once_in_its_interval_at_most(
    stage: Stage,
) -> None:
    async with stage.bot(edit_interval_s=2):
        await stage.says(f"$download {link('wait=clip', stage.image())}")
        status = await stage.hears("Download started")
        await stage.fake.wait_for(lambda: len(status.versions) > 2)
        stage.open_gate("clip")
        await stage.fake.wait_for(lambda: "Done in" in status.content)
    times = [request.at for request in stage.fake.requests if request.kind == "edit"]
    gaps = [b - a for a, b in pairwise(times)]
    assert min(gaps) > 0.5, gaps
    shown = status.versions[2]
    assert re.search(
        r"^Downloading · `\w{10}`\nclip\.mp4\n`█*░+` \d+% · [\d.]+ KiB of 9\.5 MiB"
        r" · 48\.8 KiB/s · \d+ min \d+ s left$",
        shown,
    ), shown
    assert len(stage.said()) == 2  # one status message, and the file


async def test_several_links_in_one_command_are_several_jobs(stage: Stage) -> None:
    first, second, third = (link(step) for step in stage.images(3))
    async with stage.bot(max_concurrent_downloads=1) as bot:
        for number, door in enumerate(DOORS):
            await ask(stage, door, f"<{first}> {second}, and also {third}.")
            messages = (await stage.gets(3 * number + 3))[-3:]
            assert await jobs(bot) == 3 * number + 3, door
            posted = [message.files[0].data for message in messages]
            assert posted == [stage.bytes_of(step) for step in stage.images(3)], door


async def test_dlt_and_dlr_route_by_the_link(stage: Stage) -> None:
    async with stage.bot():
        await stage.says(f"$dlt {link(stage.image(1))}")
        await stage.says(f"$dlr {link(stage.image(2))}")
        await stage.gets(2)


async def test_text_only_post_is_shown_as_text(stage: Stage) -> None:
    facts = stage.facts("post", title="A day", text="Just *words*,\nno picture.")
    async with stage.bot() as bot:
        for door in DOORS:
            asked = await ask(stage, door, link(facts))
            message = await stage.hears("text only", after=asked)
            status = await stage.hears("Done in", after=asked)
            await job_at(bot, job_id(status), Status.COMPLETED)
            assert message.content == (
                f"**toy.example** · A day · [link](<{link(facts)}>) · text only\n"
                "> Just \\*words\\*, no picture."
            ), door
            assert not message.files


async def test_what_could_not_be_fetched_is_said(stage: Stage) -> None:
    facts = stage.facts("post", title="Album", uploader="jo", items=90)
    async with stage.bot():
        await stage.says(f"$download {link(facts, stage.image(), 'lose=gone')}")
        [message] = await stage.gets(1)
    assert message.content.startswith("**toy.example** · jo · Album · [link](<")
    assert "1 of 2, 1 could not be fetched (gone)." in message.content
    assert "The first 2 of 90." in message.content


# What cannot be done is said


async def test_invalid_url_is_named_with_the_reason(stage: Stage) -> None:
    wrong = {
        "https://me:pw@toy.example/": "user names and passwords are not accepted",
        "https://toy.example:99999/": "host or port is malformed",
        "https://toy.example/\\evil": "a space, a backslash or a hidden character",
    }
    async with stage.bot() as bot:
        for door in DOORS:
            asked = await ask(stage, door, " ".join(wrong))
            await stage.hears("Invalid URL: ", *wrong.values(), after=asked)
            for words in ("ftp://toy.example/a", "@everyone"):
                asked = await ask(stage, door, words)
                reason = "it must start with http:// or https://"
                await stage.hears(f"Invalid URL: {reason}", after=asked)
        assert await jobs(bot) == 0
    assert len(stage.said()) == 6
    assert not any(said.mention_everyone for said in stage.said())


async def test_unsupported_site_is_named(stage: Stage) -> None:
    told = "Not supported: I cannot download from unknown.example"
    async with stage.bot() as bot:
        for door in DOORS:
            asked = await ask(stage, door, "https://Unknown.Example/a/b")
            failed = "**Download failed** (unsupported)"
            message = await stage.hears(failed, after=asked)
            assert told in message.content, door
            await job_at(bot, job_id(message), Status.FAILED)


async def test_command_without_a_link_asks_for_one(stage: Stage) -> None:
    async with stage.bot():
        [url, *others] = stage.fake.commands["download"]["options"]
        assert url["required"] and not any(one.get("required") for one in others)
        await stage.says("$download")
        await stage.hears("Give me a link", "download https://…")


async def test_failure_is_told_with_cause_next_step_and_job_id(stage: Stage) -> None:
    async with stage.bot() as bot:
        for door in DOORS:
            asked = await ask(stage, door, link("fail=gone"))
            told = ("**Download failed** (gone)", "Check the link.")
            message = await stage.hears(*told, after=asked)
            job = await job_at(bot, job_id(message), Status.FAILED)
            assert f"`{job.id}`" in message.content, door
            assert job.detail == "as the link says"
    assert len(stage.said()) == 2


async def test_failure_without_a_status_message_is_still_told(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.fake.fault("send", 403)  # the answer to the request
    async with stage.bot():
        await stage.says(f"$download {link('fail=private')}")
        await stage.hears("**Download failed** (private)")


async def test_missing_permission_is_said_before_any_download(stage: Stage) -> None:
    thread = await stage.fake.add_thread(stage.channel_id, "chat")
    denied = ("attach_files", "read_message_history")
    await stage.fake.deny_member(stage.channel_id, stage.fake.bot.id, *denied)
    async with stage.bot() as bot:
        for door in DOORS:
            asked = await ask(stage, door, link(stage.image()))
            named = "Attach Files, Read Message History"
            await stage.hears("cannot post files here", named, after=asked)
        await stage.says(f"$download {link(stage.image())}", thread.id)
        await stage.hears("cannot post files", "Attach Files", channel_id=thread.id)
        assert await jobs(bot) == 0


async def test_full_queue_is_said_and_nothing_is_enqueued(stage: Stage) -> None:
    async with stage.bot(max_concurrent_downloads=1, max_queue_size=1) as bot:
        for door, step, answer in (
            ("$", "wait=a", "Download started"),
            ("/", "wait=b", "Position in queue: 1"),
            ("$", "wait=c", "The queue is full: 1 links are waiting"),
            ("/", "wait=d", "The queue is full: 1 links are waiting"),
        ):
            asked = await ask(stage, door, link(step))
            await stage.hears(answer, after=asked)
        assert await jobs(bot) == 2


async def test_owner_is_told_once_a_day_that_a_site_wants_a_login(
    stage: Stage,
) -> None:
    owner = stage.fake.open_dm(stage.fake.owner.id)
    stage.add_plugin("problems")
    shutil.copy(SUPPORT_PLUGINS / "toy_site.py", stage.plugins)
    links = [link("wait=gate", f"fail={cause}") for cause in ("login", "age", "gone")]
    async with stage.bot() as bot:
        await stage.says(f"$download {' '.join(links)}")
        await stage.hears("Download started")
        stage.open_gate("gate")
        notice = await stage.hears("A link to Toys failed", channel_id=owner.id)
        for cause in ("login", "age", "gone"):
            await stage.hears(f"**Download failed** ({cause})")
        assert await jobs(bot) == 3
    assert "as the link says" in notice.content
    async with stage.bot():
        await stage.says(f"$download {link('fail=login')}")
        await stage.hears("**Download failed** (login)", after=stage.said()[-1].id)
    assert len(stage.said(owner.id)) == 1


# Sizes


async def test_too_large_file_is_named_and_the_others_are_posted(stage: Stage) -> None:
    steps = [stage.image(1), stage.padded(60_000), stage.image(2)]
    async with stage.bot(discord_courier__upload_limits=[50_000] * 4) as bot:
        await stage.says(f"$download {link(*steps)}")
        [message] = await stage.gets(2)
        job = await job_at(
            bot, job_id(await stage.hears("Done in", "2 files")), Status.COMPLETED
        )
    posted = [file.data for file in message.files]
    assert posted == [stage.bytes_of(steps[0]), stage.bytes_of(steps[2])]
    assert re.search(
        r"Too large for this channel: \S+_02\.jpg is 58\.6 KiB, the limit is 48\.8 KiB",
        message.content,
    )
    assert f"[link](<{link(*steps)}>) · 2 files, " in message.content
    assert (job.file_count, job.total_bytes) == (2, sum(map(len, posted)))


async def test_nothing_but_too_large_files_is_a_failure(stage: Stage) -> None:
    url = link(stage.padded(60_000))
    async with stage.bot(max_file_size=50_000):
        await stage.says(f"$download {url}")
        message = await stage.hears("**Download failed** (too_large)")
    assert "58.6 KiB, the limit is 48.8 KiB" in message.content
    assert f"Source: <{url}>" in message.content
    assert not stage.posted()


async def test_the_guilds_boosts_decide_the_limit(stage: Stage) -> None:
    boosted = await stage.fake.add_guild("Boosted", premium_tier=2)
    url = link(stage.padded(60_000))
    limits = [50_000, 50_000, 100_000, 100_000]
    async with stage.bot(discord_courier__upload_limits=limits):
        await stage.says(f"$download {url}")
        await stage.hears("Download failed", "the limit is 48.8 KiB")
        await stage.says(f"$download {url}", boosted.id)
        await stage.gets(1, boosted.id)
        await stage.fake.set_premium_tier(3)
        await stage.says(f"$download {url}")
        await stage.gets(1)


async def test_a_413_steps_the_guild_down_and_is_remembered(stage: Stage) -> None:
    stage.fake.guild.upload_limit_bytes = 3 * MIB
    large, small = stage.padded(3 * MIB + 1), stage.image(2)

    def uploaded() -> int:
        return sum(request.kind == "upload" for request in stage.fake.requests)

    async with stage.bot():
        await stage.says(f"$download {link(large, small)}")
        [message] = await stage.gets(1)
        await stage.hears("Done in", "1 file ")
        assert [file.data for file in message.files] == [stage.bytes_of(small)]
        assert "is 3 MiB, the limit is 2 MiB" in message.content
        assert message.content.count("toy.example") == 2  # the site, and the link
        assert uploaded() == 3  # both, the large one, the small one
    async with stage.bot():  # a restart forgets nothing
        await stage.says(f"$download {link(large)}")
        await stage.hears("Download failed", "the limit is 2 MiB")
    assert uploaded() == 3


async def test_files_too_much_together_are_posted_apart(stage: Stage) -> None:
    stage.fake.request_limit_bytes = 100_000
    steps = [stage.padded(60_000, number) for number in (1, 2, 3)]
    async with stage.bot():
        await stage.says(f"$download {link(*steps)}")
        messages = await stage.gets(3)
    assert [len(message.files) for message in messages] == [1, 1, 1]
    posted = [message.files[0].data for message in messages]
    assert posted == [stage.bytes_of(step) for step in steps]
    said = "".join(message.content for message in messages)
    assert said.count("**toy.example**") == 1
    assert " · 3 files, " in messages[0].content


# Requests, places, intents


async def replay(stage: Stage, event: str) -> None:
    """Sends the last event of a kind once more, as Discord does now and then."""
    for session in stage.fake._sessions.values():
        last = [data for name, data in session.events if name == event][-1]
        await session.dispatch(event, last)


async def test_a_request_delivered_twice_is_taken_once(stage: Stage) -> None:
    async with stage.bot() as bot:
        for number, door in enumerate(DOORS, 1):
            gate = f"gate{number}"
            asked = await ask(stage, door, link(f"wait={gate}", stage.image(1)))
            await stage.hears("Download started", after=asked)
            event = "MESSAGE_CREATE" if door == "$" else "INTERACTION_CREATE"
            await replay(stage, event)
            # This comes later, and is answered later.
            later = await stage.says("$download nonsense")
            await stage.hears("Invalid URL", after=later.id)
            assert await jobs(bot) == number, door
            stage.open_gate(gate)
            await stage.hears("Done in", after=asked)
    texts = [said.versions for said in stage.said()]
    assert sum("Download started" in str(versions) for versions in texts) == 2
    assert len(texts) == 6
    assert len(stage.posted()) == 2


async def test_commands_are_synced_only_when_they_changed(stage: Stage) -> None:
    def synced() -> int:
        return sum(request.kind == "commands" for request in stage.fake.requests)

    async with stage.bot():
        assert synced() == 1
    async with stage.bot():
        assert synced() == 1
    shutil.copy(PLUGINS / "hello.py", stage.plugins)
    async with stage.bot():
        assert synced() == 2
    assert set(stage.fake.commands) == {"download", "Download media", "hello"}


async def test_without_message_content_mentions_and_slash_commands_work(
    stage: Stage,
) -> None:
    stage.fake.message_content_allowed = False
    async with stage.bot(discord_client__message_content=False) as bot:
        assert not any(s.intents & MESSAGE_CONTENT for s in stage.fake.connected)
        await stage.says(f"$download {link(stage.image(1))}")
        mention = f"<@{stage.fake.bot.id}>"
        await stage.says(f"{mention} download {link(stage.image(2))}")
        await stage.gets(1)
        await ask(stage, "/", link(stage.image(3)))
        messages = await stage.gets(2)
        assert await jobs(bot) == 2
    posted = [message.files[0].data for message in messages]
    assert posted == [stage.bytes_of(step) for step in stage.images(3)[1:]]


async def test_direct_messages_and_threads_get_their_files(stage: Stage) -> None:
    thread = await stage.fake.add_thread(stage.channel_id, "chat")
    direct = stage.fake.open_dm(stage.fake.member.id)
    async with stage.bot(download__direct_messages=True) as bot:
        for place in (thread, direct):
            await stage.says(f"$download {link(stage.image())}", place.id)
            await stage.gets(1, place.id)
            await stage.hears("Done in", channel_id=place.id)
        stored = await bot.app.queue.list()
    assert [job.guild_id for job in stored] == [stage.fake.guild.id, 0]
    assert not stage.said()


async def test_start_that_discord_refuses_names_the_remedy(stage: Stage) -> None:
    fake, token = stage.fake, "wrong.token.here"
    fake.message_content_allowed = False
    with pytest.raises(bossbot.StartError, match="Message Content Intent") as intent:
        async with stage.bot():
            pass
    app = stage.app(discord_token=token)
    with fake.redirect(), pytest.raises(bossbot.StartError, match="Reset Token") as one:
        try:
            await app.start()
        finally:
            await app.stop()
    for told in (str(intent.value), str(one.value)):
        assert PORTAL in told.splitlines()[-1]
        assert token not in told and fake.token not in told


async def test_bot_whose_token_is_withdrawn_names_the_remedy_and_exits_2(
    stage: Stage, process: BotProcess
) -> None:
    token = stage.fake.token
    await process.start(discord_token=token)
    stage.fake.token = "another.token.now"
    await stage.fake.drop_gateway(4004)
    assert await process.ended() == 2
    output = process.output()
    assert "Reset Token" in output.splitlines()[-1]
    assert PORTAL in output.splitlines()[-1]
    assert "Traceback" not in output
    assert token not in output


# Nobody is pinged without need


async def test_only_a_job_of_over_60_s_pings_and_only_its_member(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage.bot():
        await stage.says(f"$download {link(*stage.images(11))}")
        quick = await stage.gets(11)
        later = bossbot.now() + 61
        monkeypatch.setattr(module("_post_texts"), "now", lambda: later)
        await stage.says(f"$download {link(*stage.images(11))}")
        slow = (await stage.gets(22))[2:]
    assert [message.mentions for message in quick] == [[], []]
    assert [message.mentions for message in slow] == [[stage.fake.member], []]


HOSTILE = [
    "@everyone @here",
    "<@{member}> <@&{role}> <#{channel}>",
    "[click me](https://evil.example) <https://evil.example>",
    "\u202egnp.exe\u202c \u200bzero\u200dwidth\ufeff \u2066x\u2069",
    "x" * 5000,
    "\x1b[31mred\x1b[0m\nsecond line\r\n# heading\n> quote",
    "`code` **bold** ||spoiler|| ~~gone~~ \\",
    "discord.gg/evil https://discord.gg/evil",
]


async def test_hostile_titles_are_harmless_where_they_are_shown(stage: Stage) -> None:
    fake = stage.fake
    ids = {"member": fake.member.id, "channel": fake.channel.id, "role": fake.guild.id}
    links = []
    for number, text in enumerate(HOSTILE):
        title = text.format(**ids)
        facts = {"title": title, "uploader": title, "text": title}
        step = stage.facts(f"post{number}", **facts)
        links += [link(step, stage.image()), link(step)]  # with a file, as text alone
    async with stage.bot():
        await stage.says(f"$download {' '.join(links)}")

        def done() -> bool:
            done = sum(said.content.count("Done in") for said in stage.said())
            return done == len(links)

        await fake.wait_for(done)
    assert len(stage.said()) == len(links) + 1
    for message in stage.said():
        assert_harmless(message)


def assert_harmless(message: Message) -> None:
    text = message.content
    assert not message.mention_everyone and not message.mention_roles
    assert not message.mentions
    assert message.allowed_mentions
    assert message.allowed_mentions["parse"] == []
    assert len(text) <= 2000
    hidden = {c for c in text if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"}
    assert not hidden
    own = re.compile(
        r"^\*\*toy\.example\*\* · |\[link\]\(<https://toy\.example/[^>]*>\)|^> "
    )
    for line in text.split("\n"):
        if "`" in line and line.startswith(("Done", "Download")):  # a status message
            continue
        rest = own.sub("", line)
        assert not re.search(r"(?<!\\)[@<>*_`|\[\]()~#]|://|discord\.gg", rest), line


# The hooks


async def test_check_job_vetoes_and_answer_job_answers(stage: Stage) -> None:
    shutil.copy(PLUGINS / "veto.py", stage.plugins)
    async with stage.bot() as bot:
        await stage.says(f"$download {link('veto')} {link('known')}")
        await stage.hears("Not on a Monday.")
        await stage.hears("It is here.")
        assert await jobs(bot) == 0


async def test_process_files_changes_what_is_posted(stage: Stage) -> None:
    for name in ("drop", "remade"):
        shutil.copy(PLUGINS / f"{name}.py", stage.plugins)
    async with stage.bot():
        await stage.says(f"$download {link(*stage.images(3))}")
        [message] = await stage.gets(2)
    posted = [file.data for file in message.files]
    assert posted == [stage.bytes_of(step) for step in stage.images(3)[:0:-1]]


async def test_check_upload_vetoes_the_posting(stage: Stage) -> None:
    shutil.copy(PLUGINS / "veto.py", stage.plugins)
    async with stage.bot():
        await stage.says(f"$download {link(*stage.images(2))}")
        await stage.hears(
            "Download failed", f"2 files are too many for {stage.channel_id}."
        )
    assert not stage.posted()


async def test_decorate_message_adds_text_embed_and_buttons(stage: Stage) -> None:
    shutil.copy(PLUGINS / "decor.py", stage.plugins)
    async with stage.bot():
        await stage.says(f"$download {link(stage.image())}")
        [message] = await stage.gets(1)
    assert message.content.endswith("\nWith love")
    assert message.embeds[0]["title"] == "Look"
    assert message.components[0]["components"][0]["label"] == "Source"


async def test_decoration_that_discord_refuses_is_left_out(stage: Stage) -> None:
    shutil.copy(PLUGINS / "decor.py", stage.plugins)
    stage.fake.fault("upload", 400, times=2)  # with the words alone, too
    async with stage.bot(decor__embed="refused"):
        await stage.says(f"$download {link(stage.image())}")
        [message] = await stage.gets(1)
    assert not message.embeds
    assert "With love" not in message.content


async def test_bot_in_shards_posts_all_the_same(stage: Stage) -> None:
    async with stage.bot(discord_client__shards=True) as bot:
        assert isinstance(bot, discord.AutoShardedClient)
        await stage.says(f"$download {link(stage.image())}")
        [message] = await stage.gets(1)
        client: Any = bot.app.client  # type: ignore[attr-defined]
        assert client.connected()
        for shard in bot.shards.values():
            await shard.disconnect()
        assert not client.connected()
    assert message.files


async def test_decoration_that_is_no_embed_is_left_out(stage: Stage) -> None:
    shutil.copy(PLUGINS / "decor.py", stage.plugins)
    async with stage.bot(decor__embed="a text"):
        await stage.says(f"$download {link(stage.image())}")
        [message] = await stage.gets(1)
    assert message.files and not message.embeds


async def test_deliver_file_gives_a_link_for_what_is_too_large(stage: Stage) -> None:
    shutil.copy(PLUGINS / "share.py", stage.plugins)
    large = stage.padded(60_000)
    async with stage.bot(max_file_size=50_000) as bot:
        await stage.says(f"$download {link(large, stage.image())}")
        [message] = await stage.gets(1)
        assert "Get it at https://host.example/60000" in message.content
        await stage.says(f"$download {link(large)}")
        alone = await stage.hears("no files", after=message.id)
        await stage.hears("Done in", after=message.id)
        courier: Any = bot.app.courier
        assert courier.files == {"attached": 1, "linked": 2, "dropped": 0}
    assert "Get it at https://host.example/60000" in alone.content
    assert not alone.files


async def test_file_that_failed_is_named_with_its_reason_whatever_its_size(
    stage: Stage,
) -> None:
    shutil.copy(PLUGINS / "mark.py", stage.plugins)
    async with stage.bot() as bot:
        await stage.says(f"$download {link(stage.image(1), stage.image(2))}")
        [message] = await stage.gets(1)
        [job] = await bot.app.queue.list()
        await stage.says(f"$download {link(stage.image(1))}")
        failed = await stage.hears("**Download failed** (no_media)", after=message.id)
    assert re.search(r"_01\.jpg: It is cut short\.", message.content)
    assert f"<{link(stage.image(1), stage.image(2))}>" in message.content
    assert [file.data for file in message.files] == [stage.bytes_of(stage.image(2))]
    assert "It is cut short." in failed.content
    assert f"Source: <{link(stage.image(1))}>" in failed.content
    [post] = stage.posts(job.id)
    assert list(post["notes"].values()) == ["S"]


async def test_jobs_and_bot_are_followed_by_the_hooks(stage: Stage) -> None:
    seen = stage.folder / "data" / "seen"
    shutil.copy(PLUGINS / "follow.py", stage.plugins)
    async with stage.bot() as bot:
        await stage.says(f"$download {link(stage.image())}")
        status = await stage.hears("Done in")
        await job_when(bot, job_id(status), lambda job: job.finished_at > 0)
    lines = [line for line in seen.read_text().splitlines() if "progress" not in line]
    assert "progress image-1.jpg" in seen.read_text()
    assert lines[0] == "started"
    assert lines[-1] == "stopping"
    steps = [line.partition(" -> ") for line in lines if "->" in line]
    # Only what takes a while is processed for others to see.
    order = ["None", "queued", "downloading", "processing", "uploading", "completed"]
    if not any(after == "processing" for *_, after in steps):
        order.remove("processing")
    changes = [(before, after) for before, _, after in steps if before != after]
    assert changes == list(pairwise(order))


# What goes wrong between the parts


async def test_refused_slash_commands_do_not_stop_the_bot(stage: Stage) -> None:
    stage.fake.fault("commands", 400)
    async with stage.bot():
        await stage.says(f"$download {link(stage.image())}")
        [message] = await stage.gets(1)
        assert message.files
    assert stage.fake.commands == {}
    async with stage.bot():  # it tries again
        assert "download" in stage.fake.commands


async def test_bot_does_not_start_without_a_part(stage: Stage) -> None:
    stage.remove_plugin("discord_courier")
    with pytest.raises(bossbot.StartError, match="The part courier is missing"):
        async with stage.bot():
            pass


async def test_engine_that_cannot_be_asked_for_a_second_try_ends_the_job(
    stage: Stage,
) -> None:
    async with stage.bot() as bot:
        runner = bot.app.runner
        ask = runner.supports

        async def supports(urls: list[str], without: str = "") -> list[str]:
            if without:
                raise TimeoutError
            return list(await ask(urls))

        runner.supports = supports  # type: ignore[method-assign]
        await stage.says(f"$download {link('fail=internal')}")
        await stage.hears("Download failed")
        [job] = await bot.app.queue.list()
        assert job.status is Status.FAILED
        assert job.detail == "as the link says", "not why there was no second try"


async def test_posted_files_are_remembered_when_the_disk_has_room_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage.bot() as bot:
        bot.app.courier.write_wait_s = 0.05  # type: ignore[attr-defined]
        save, failures = bot.app.queue.save, 2

        async def full(job: bossbot.Job, lease_s: float) -> bool:
            nonlocal failures
            if any(post.state == "sent" for post in job.posts) and failures:
                failures -= 1
                raise sqlite3.OperationalError("database or disk is full")
            return await save(job, lease_s)

        monkeypatch.setattr(bot.app.queue, "save", full)
        await stage.says(f"$download {link(*stage.images(12))}")
        first, second = await stage.gets(12)
        assert (len(first.files), len(second.files)) == (10, 2)
        [job] = await bot.app.queue.list()
        await job_when(bot, job.id, lambda one: one.status is Status.COMPLETED)
        assert failures == 0


async def test_queued_link_is_acknowledged_though_it_cannot_start_at_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage.bot() as bot:

        async def claim(worker: str, lease_s: float) -> bossbot.Job | None:
            raise sqlite3.OperationalError("database is locked")

        with monkeypatch.context() as patch:
            patch.setattr(bot.app.queue, "claim", claim)
            await stage.says(f"$download {link(stage.image())}")
            await stage.hears("Download started")
        [message] = await stage.gets(1)
        assert message.files


async def test_status_message_that_is_not_remembered_keeps_no_link_from_its_turn(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage.bot() as bot:

        async def forget(job_id: str, message_id: int) -> None:
            raise sqlite3.OperationalError("database is locked")

        monkeypatch.setattr(bot.app.queue, "set_status_message", forget)
        links = [link(stage.image()), link(stage.image(2))]
        await stage.says(f"$download {' '.join(links)}")
        await stage.gets(2)
        await stage.hears("Done in", "\nDone in")
    assert not any("went wrong" in message.content for message in stage.said())
    answers = [message for message in stage.said() if not message.files]
    assert len(answers) == 1, "it is edited, not sent again"


async def test_check_says_whether_discord_grants_the_intent(stage: Stage) -> None:
    settings = stage.settings(discord_token=stage.fake.token)
    async with stage.bot():
        client = module("discord_client")
        check, config = client.check_machine, client.Config()
        assert await check(settings, config) == []
        stage.fake.message_content_allowed = False
        [finding] = await check(settings, config)
        assert finding.fatal and "Intent" in finding.what
        [finding] = await check(stage.settings(discord_token="a.b.c"), config)
        assert finding.fatal and "token" in finding.what
        [finding] = await check(settings, client.Config(message_content=False))
        assert not finding.fatal and "message_content" in finding.what
