"""The archive of a running bot: what is posted is found, by whom, and until when."""

import argparse
import asyncio
import contextlib
import os
import signal
import sqlite3
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from bossbot_plugins._archive import Hit, Query
from discord_support import BotProcess, Stage, link, module, until

from bossbot import BossBot, Refused

pytest_plugins = ("discord_fixtures",)


@pytest.fixture
def stage(stage: Stage) -> Stage:
    for name in ("archive", "privacy", "history", "queue", "subtitles"):
        stage.add_plugin(name)
    return stage


def words_only(stage: Stage, **values: Any) -> Any:
    """A bot without a model."""
    return stage.bot(archive__meaning="off", **values)


async def post(stage: Stage, *steps: str, place: int = 0, **facts: Any) -> int:
    """The id of the message that a link is posted as."""
    before = len(stage.posted(place or None))
    told = stage.facts(f"facts{len(stage.fake.requests)}", **facts)
    await stage.says(f"$dl {link(told, *(steps or [stage.image()]))}", place or None)
    await stage.gets(before + 1, place or None)
    return stage.posted(place or None)[-1].id


async def find(bot: BossBot, stage: Stage, text: str, **values: Any) -> list[Hit]:
    places = {"guild_id": stage.fake.guild.id, "channels": [stage.channel_id]}
    return await bot.app.archive.search(Query(text=text, **{**places, **values}))


async def finds(
    bot: BossBot, stage: Stage, text: str, *ids: int, **values: Any
) -> None:
    """Returns once these messages are found, and nothing else."""

    async def is_so() -> bool:
        hits = await find(bot, stage, text, **values)
        return {hit.message_id for hit in hits} == {*ids}

    await until(is_so)


def stored(stage: Stage) -> bytes:
    """Everything in the archive's files."""
    folder = stage.folder / "data"
    return b"".join(path.read_bytes() for path in folder.glob("archive.db*"))


async def test_post_is_found_by_its_words(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with words_only(stage) as bot:
        fox = await post(stage, title="A red fox in the snow", uploader="ann")
        await post(stage, title="Sourdough bread", text="How to bake it.")
        await finds(bot, stage, "red foxes in snow", fox)
        [hit] = await find(bot, stage, "red foxes in snow")
        assert hit.sure and (hit.title, hit.uploader) == (
            "A red fox in the snow",
            "ann",
        )
        assert (hit.kinds, hit.user_id) == (["image"], stage.fake.member.id)
        assert hit.picture_url.startswith("http")
        adult = await post(stage, title="A bare fox in the snow", adult=True)
        await finds(bot, stage, "red foxes in snow", fox, adult)
        hits = await find(bot, stage, "bare fox")
        assert [one.picture_url for one in hits if one.adult] == [""]
        # What Discord has said counts for an hour.
        stage.fake.all_messages[fox].deleted = True
        assert len(await find(bot, stage, "red foxes in snow")) == 2
        monkeypatch.setattr(store(), "KNOWN_S", 0)
        await finds(bot, stage, "red foxes in snow", adult)


def store() -> Any:
    return module("archive.store")


async def test_files_that_cannot_be_read_now_are_read_later(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stage.media / "notes.txt").write_text("A pinch of cardamom.\n")
    async with words_only(stage) as bot:
        archive: Any = bot.app.archive
        archive.again_s = 0.05
        read_files, tried = store().read_files, list[object]()

        async def fail_once(*args: Any) -> Any:
            tried.append(args)
            if len(tried) == 1:
                raise OSError("the disk is slow")
            return await read_files(*args)

        monkeypatch.setattr(store(), "read_files", fail_once)
        number = await post(stage, "file=notes.txt", title="A recipe")
        await finds(bot, stage, "cardamom", number)


async def test_what_is_too_long_or_too_old_is_not_kept(stage: Stage) -> None:
    limits = {"archive__retention_days": 30, "archive__text_limit": 2048}
    async with words_only(stage, **limits) as bot:
        archive: Any = bot.app.archive
        text = "word " * 1000
        ids = [await post(stage, title=f"fox {n}", text=text) for n in range(2)]
        await finds(bot, stage, "fox", *ids)
        size = "SELECT sum(length(text)) FROM pieces GROUP BY job_id"
        for (kept,) in await archive._read(lambda db: db.execute(size).fetchall()):
            assert 1900 < kept <= 2048
        job_id = (await archive.owner_of(ids[0])).job_id
        old = "UPDATE posts SET posted_at = posted_at - 31 * 86400 WHERE job_id = ?"
        await archive._write(lambda db: db.execute(old, (job_id,)))
        sweeping = asyncio.create_task(archive._sweep())
        await finds(bot, stage, "fox", ids[1])
        sweeping.cancel()


async def test_what_is_deleted_is_forgotten_to_the_last_byte(stage: Stage) -> None:
    fake = stage.fake
    async with words_only(stage) as bot:
        places = [await fake.add_channel(name) for name in ("one", "two", "three")]
        places.append(await fake.add_guild("Away"))
        kept = await post(stage, title="Quetzal feathers")
        gone = []
        for place, word in zip(
            places, ("Xylophone", "Zither", "Lute", "Viola"), strict=True
        ):
            gone.append(await post(stage, place=place.id, title=word, text="a tune"))
            assert place.guild
            where = {"channels": [place.id], "guild_id": place.guild.id}
            await finds(bot, stage, word, gone[-1], **where)
        assert not await is_without(stage, b"Viola") and b"xylo" in stored(stage)
        await fake.delete_message(gone[0])
        await fake.delete_messages(places[1].id)
        await fake.delete_channel(places[2].id)
        await fake.remove_bot(where["guild_id"])
        words = (
            b"Xylophone",
            b"xylo",
            b"Zither",
            b"zith",
            b"Lute",
            b"Viola",
            b"a tune",
        )
        await until(partial(is_without, stage, *words), 2)
        for place in places:
            assert place.guild
            where = {"channels": [place.id], "guild_id": place.guild.id}
            assert await find(bot, stage, "tune", **where) == []
        await finds(bot, stage, "quetzal", kept)


async def is_without(stage: Stage, *words: bytes) -> bool:
    text = stored(stage)
    return not any(word in text for word in words)


async def test_words_in_files_and_subtitles_are_found(stage: Stage) -> None:
    fake, media = stage.fake, stage.media
    (media / "notes.txt").write_text("The recipe needs a pinch of cardamom.\n")
    (media / "talk_0001.en.srt").write_text(
        "1\n00:01:05,000 --> 00:01:07,000\nToday we talk about bumblebees\n"
    )
    stage.copy_plugin(Path(__file__).parent / "plugins" / "seer.py")
    async with words_only(stage) as bot:
        steps = [
            stage.alt("alt1", "An owl on a branch"),
            stage.image(),
            "file=notes.txt",
        ]
        number = await post(stage, *steps, title="Mixed")
        for words in ("owl branch", "lighthouse", "cardamom recipe"):
            await finds(bot, stage, words, number)
        [hit] = await find(bot, stage, "lighthouse")
        assert hit.passages[0] == ("A lighthouse", "seen", None)
        assert hit.sentence == "A lighthouse" and hit.kinds == ["image"]
        # Reading a file has ended the bot three times.
        archive: Any = bot.app.archive
        known = await archive.status()
        again = "INSERT INTO work SELECT job_id, 3, 0 FROM posts"
        await archive._write(lambda db: db.execute(again))
        archive._to_read.set()
        await until(partial(is_read, archive))
        assert await archive.status() == known
        told = stage.facts("talk", title="A talk")
        script = "talk_0001.en.srt"
        await stage.says(f"$dl {link(told, stage.image(2), f'file={script}')}")
        await finds(bot, stage, "lighthouse", number, stage.posted()[-1].id)
        await fake.settle()


async def is_read(archive: Any) -> bool:
    return (await archive.status())["work"] == 0


async def test_what_was_deleted_while_the_bot_was_off_is_never_shown(
    stage: Stage,
) -> None:
    fake = stage.fake
    async with words_only(stage) as bot:
        place, shut = await fake.add_channel("away"), await fake.add_channel("shut")
        silent, left = await fake.add_channel("silent"), await fake.add_guild("Left")
        where = {"channels": [place.id, shut.id, stage.channel_id]}
        ids = [
            await post(stage, title="fox one"),
            await post(stage, title="fox two"),
            await post(stage, place=place.id, title="fox three"),
            await post(stage, place=shut.id, title="fox four"),
        ]
        await post(stage, place=silent.id, title="an owl where nobody looks")
        await post(stage, place=left.id, title="an owl elsewhere")
        await finds(bot, stage, "fox", *ids, **where)
    await fake.delete_message(ids[0])
    for one in (place, silent):
        await fake.delete_channel(one.id)
    assert left.guild
    await fake.remove_bot(left.guild.id)
    await fake.deny(shut.id, "view_channel")
    async with words_only(stage) as bot:
        await finds(bot, stage, "fox", ids[1], **where)
        await until(partial(is_without, stage, b"owl"))  # without a search
        known = await bot.app.archive.status()  # type: ignore[attr-defined]
        assert known["posts"] == 2, "of the one that cannot be seen nobody knows"
        # With another bot's token, which may not be on the same servers.
        archive: Any = bot.app.archive
        archive.heal_s = 0
        sql = "UPDATE facts SET value = ? WHERE key = 'bot'"
        move = "UPDATE {} SET guild_id = 77 WHERE guild_id > 0"
        for table in ("posts", "places"):
            await archive._write(lambda db, t=table: db.execute(move.format(t)))
        for user_id, left_over in ((1, 2), (fake.bot.id, 0)):
            await archive._write(lambda db, u=user_id: db.execute(sql, (str(u),)))
            await archive._heal()
            assert (await archive.status())["posts"] == left_over


async def test_what_was_posted_before_there_was_an_archive_is_found(
    stage: Stage,
) -> None:
    stage.remove_plugin("archive")
    async with stage.bot():
        old = await post(stage, title="An old fox")
        new = await post(stage, title="A newer fox", text="with its cubs")
        await stage.fake.settle()
    [(first,)] = stage.database("SELECT id FROM history ORDER BY created_at LIMIT 1")
    stage.database("DELETE FROM jobs WHERE id = ?", first)  # only the history has it
    stage.add_plugin("archive")
    async with words_only(stage) as bot:
        await finds(bot, stage, "fox", old, new)
        await finds(bot, stage, "cubs", new)
        assert "Posts in the archive: 2" in await use(stage, "privacy show")
        await use(stage, "privacy forget")
        await finds(bot, stage, "fox")
        assert await bot.app.archive._read(reached) > 1e9
    async with words_only(stage) as bot:
        await finds(bot, stage, "fox")


def reached(db: sqlite3.Connection) -> float:
    sql = "SELECT value FROM facts WHERE key = 'reached'"
    return float(db.execute(sql).fetchone()[0])


async def use(stage: Stage, words: str, user: Any = None, **options: Any) -> str:
    user = user or stage.fake.member
    asked = await stage.fake.slash(stage.channel_id, words, options, user.id)
    return (await stage.fake.answered(asked)).text


async def test_server_that_wants_no_archive_has_none(stage: Stage) -> None:
    stage.guild_settings("")  # its owner edits it, which its folder does not show
    async with words_only(stage) as bot:
        bot.app.archive.watch_s = bot.app.archive.again_s = 0.1
        number = await post(stage, title="A fox")
        await finds(bot, stage, "fox", number)
        stage.guild_settings("[archive]\narchive = false\n")
        with pytest.raises(Refused, match="archive is switched off"):
            await find(bot, stage, "fox")
        assert "archive is switched off" in await use(stage, "archive status")
        await until(partial(is_without, stage, b"A fox"))
        bot.app.archive._forget_unwanted = asyncio.Event().wait  # nor is it added
        await post(stage, title="Another fox")
        await stage.fake.settle()
        stage.guild_settings("")
        await finds(bot, stage, "fox")


async def test_who_asked_and_moderators_can_have_a_post_forgotten(stage: Stage) -> None:
    fake = stage.fake
    otto, moderator = fake.add_member("otto"), await fake.add_moderator("moe")
    async with words_only(stage) as bot:
        ids = [await post(stage, title=f"fox {n}") for n in range(3)]
        await finds(bot, stage, "fox", *ids)
        said = await use(stage, "archive status")
        assert said.startswith("3 posts can be found here.\nThe oldest one")
        assert said.endswith("Search by meaning is off.")
        links = [
            f"https://discord.com/channels/{fake.guild.id}/{stage.channel_id}/{one}"
            for one in ids
        ]
        refused = await use(stage, "archive forget", otto, message=links[0])
        assert "Manage Messages" in refused
        for wrong in ("that one", "1", links[0][:-3] + "999", "/channels/1/2/3"):
            said = await use(stage, "archive forget", message=wrong)
            assert "I have stored nothing about that message." in said
        assert "forgotten" in await use(stage, "archive forget", message=links[0])
        assert "forgotten" in await use(
            stage, "archive forget", moderator, message=str(ids[1])
        )
        await finds(bot, stage, "fox", ids[2])
        assert not fake.all_messages[ids[0]].deleted
        place = await fake.add_channel("staff")
        staff = str(await post(stage, place=place.id, title="Staff fox"))
        await finds(bot, stage, "fox", int(staff), channels=[place.id])
        await fake.deny(place.id, "manage_messages")
        said = await use(stage, "archive forget", moderator, message=staff)
        assert "Only a moderator of that channel" in said
        await fake.deny(place.id, "view_channel")
        said = await use(stage, "archive forget", otto, message=staff)
        assert "I have stored nothing about that message." in said
        assert "Only the bot's owner" in await use(stage, "archive rebuild")
        owner = next(user for user in fake.users.values() if user.id == fake.owner.id)
        assert "indexed again" in await use(stage, "archive rebuild", owner)
        await finds(bot, stage, "fox", ids[2])
    async with words_only(stage) as bot:  # nothing brings them back
        await finds(bot, stage, "fox", ids[2])


async def test_what_cannot_be_written_now_is_made_up_for(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with words_only(stage) as bot:
        archive: Any = bot.app.archive
        file = module("archive._file")
        archive.again_s = 0.05
        number = await post(stage, title="The first fox")
        await finds(bot, stage, "fox", number)
        await until(lambda: truth(archive._caught_up))
        monkeypatch.setattr(file, "BUSY_S", 0.05)
        archive._db.execute("PRAGMA busy_timeout=50")
        other = sqlite3.connect(stage.folder / "data" / "archive.db")
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")  # as a program that looks at it might
        late = await post(stage, title="A late fox")
        await until(lambda: truth(archive.trouble))
        assert "cannot add posts to the archive now" in await use(
            stage, "archive status"
        )
        assert [hit.message_id for hit in await find(bot, stage, "fox")] == [number]
        said = await use(stage, "archive forget", message=str(number))
        assert "out of reach" in said
        other.execute("ROLLBACK")
        await finds(bot, stage, "fox", number, late)
        other.execute("BEGIN IMMEDIATE")
        assert "2 downloads forgotten" in await use(stage, "privacy forget")
        with pytest.raises(Refused, match="out of reach"):
            await find(bot, stage, "fox")
        other.execute("ROLLBACK")
        other.close()
        await until(lambda: truth(not archive._wishes))
        await finds(bot, stage, "fox")


async def truth(value: object) -> bool:
    return bool(value)


async def test_full_disk_loses_nothing(stage: Stage) -> None:
    async with words_only(stage) as bot:
        archive: Any = bot.app.archive
        archive.again_s = 0.05
        first = await post(stage, title="The first fox")
        await finds(bot, stage, "fox", first)

        def limit(db: sqlite3.Connection) -> None:
            db.execute("PRAGMA max_page_count=1")

        await archive._write(limit)
        late = await post(stage, title="A late fox", text="word " * 5000)
        await until(lambda: truth("full" in archive.trouble))
        await finds(bot, stage, "fox", first, late)  # it is opened anew


@pytest.mark.parametrize("when", ["off", "on"])
async def test_damaged_file_is_kept_and_made_up_for(stage: Stage, when: str) -> None:
    path = stage.folder / "data" / "archive.db"
    async with words_only(stage) as bot:
        number = await post(stage, title="A fox", text="in the snow")
        await finds(bot, stage, "snow", number)
        forgotten = await post(stage, title="Another fox", text="in the snow")
        await finds(bot, stage, "snow", number, forgotten)
        await use(stage, "archive forget", message=str(forgotten))
        if when == "on":
            archive: Any = bot.app.archive
            archive.again_s = 0.05
            await a_reader_sees_damage_while_somebody_writes(archive)
            await archive._write(break_it)
            with contextlib.suppress(Refused):
                await find(bot, stage, "fox")
            await post(stage, title="Something else")
            await finds(bot, stage, "snow", number)
    if when == "off":
        path.write_bytes(b"This is no database." * 500)
        async with words_only(stage) as bot:
            await finds(bot, stage, "snow", number)
    copies = len(list(path.parent.glob("archive.damaged-*.db")))
    assert copies == 1 + (when == "on")


async def a_reader_sees_damage_while_somebody_writes(archive: Any) -> None:
    """What would end Python, if the reader closed the other's connection."""
    begun, go_on = threading.Event(), threading.Event()

    def write(db: sqlite3.Connection) -> int:
        begun.set()
        go_on.wait(10)
        return int(db.execute("SELECT count(*) FROM posts").fetchone()[0])

    def read(db: sqlite3.Connection) -> None:
        raise sqlite3.DatabaseError("damaged")

    writing = asyncio.create_task(archive._write(write))
    await asyncio.to_thread(begun.wait)
    with pytest.raises(sqlite3.DatabaseError):
        await archive._read(read)
    go_on.set()
    assert await writing == 1


def break_it(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM grams_data")


async def test_post_of_a_bot_that_was_killed_is_found(
    stage: Stage, process: BotProcess
) -> None:
    variables = {"plugins__archive__meaning": "off"}
    await process.start(**variables)
    number = await post(stage, title="A fox in the snow")
    await process.kill()
    async with words_only(stage) as bot:
        await finds(bot, stage, "fox", number)
    # As it is when the bot is killed while it forgets.
    guild_id, user_id = stage.fake.guild.id, stage.fake.member.id
    stage.database("INSERT INTO archive_wishes VALUES (?, ?)", guild_id, user_id)
    async with words_only(stage) as bot:
        archive: Any = bot.app.archive
        await until(lambda: truth(not archive._wishes))
        await until(partial(is_without, stage, b"A fox in"))
        await finds(bot, stage, "fox")


async def test_what_is_forgotten_while_the_archive_is_off_is_not_found_later(
    stage: Stage,
) -> None:
    async with words_only(stage) as bot:
        fox = await post(stage, title="A fox in the snow")
        await finds(bot, stage, "fox", fox)
    stage.remove_plugin("archive")
    async with stage.bot():
        assert "1 download forgotten" in await use(stage, "privacy forget")
    stage.add_plugin("archive")
    async with words_only(stage) as bot:
        with contextlib.suppress(Refused):  # until it is forgotten
            assert await find(bot, stage, "fox") == []
        await until(partial(is_without, stage, b"A fox in"))


async def test_owner_searches_on_the_command_line(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    guild = str(stage.fake.guild.id)
    assert await command(stage, "status") == 1
    assert (
        capsys.readouterr().out
        == "There is no archive yet. The bot makes it when it first posts something.\n"
    )
    assert not (stage.folder / "data" / "archive.db").exists()
    async with words_only(stage) as bot:
        number = await post(stage, title="A fox in the snow")
        await finds(bot, stage, "fox", number)
        assert await command(stage, "rebuild") == 0
        assert await command(stage, "status") == 0
        assert "1 posts, 1 texts, 0 of them with" in capsys.readouterr().out
        await finds(bot, stage, "fox", number)
    assert await command(stage, "search", "fox", "--guild", guild) == 0
    link = f"https://discord.com/channels/{guild}/{stage.channel_id}/{number}"
    said = capsys.readouterr().out.split()
    assert said == ["1.00", "A", "fox", "in", "the", "snow", link]
    assert await command(stage, "search", "owl", "--guild", guild) == 0
    assert "No posts match." in capsys.readouterr().out
    assert await command(stage, "search", "owl", "--guild", "1") == 0
    assert "The archive has no posts of the server 1." in capsys.readouterr().out
    for wrong in ("fox", "-1", "9" * 19, "9" * 5000):
        with pytest.raises(SystemExit):
            await command(stage, "search", "owl", "--guild", wrong)
        assert "that is not an id" in capsys.readouterr().err
    stage.guild_settings("[archive]\narchive = false\n")
    assert await command(stage, "search", "owl", "--guild", guild) == 1
    off = "The archive is switched off on this server.\n"
    assert capsys.readouterr().out == off


async def command(stage: Stage, *words: str) -> int:
    """The exit code of a command in a process of its own, as far as it can tell."""
    app = stage.app(archive__meaning="off")
    subcommand = app.plugins.registered("subcommands")["archive"]
    parser = argparse.ArgumentParser()
    subcommand.add_arguments(parser)
    try:
        return int(await subcommand.run(app, parser.parse_args(words)))
    finally:
        await app.stop()


async def test_reading_rests_while_downloads_run(stage: Stage) -> None:
    (stage.media / "long.txt").write_text("A pinch of cardamom.\n")
    async with words_only(stage, max_concurrent_per_user=5) as bot:
        await stage.says(f"$dl {link('wait=gate', stage.image())}")
        await stage.hears("Downloading")
        number = await post(stage, "file=long.txt", title="A recipe")
        await finds(bot, stage, "recipe", number)
        status = bot.app.archive.status  # type: ignore[attr-defined]
        assert (await status())["work"] == 1
        await stage.fake.settle()
        assert await find(bot, stage, "cardamom") == []
        stage.open_gate("gate")
        await finds(bot, stage, "cardamom", number)


async def test_reload_leaves_the_archive_at_work(stage: Stage) -> None:
    async with words_only(stage) as bot:
        assert not (await bot.app.reload("archive")).off
        number = await post(stage, title="A fox in the snow")
        await finds(bot, stage, "fox", number)
        assert "1 post can" in await use(stage, "archive status")
        await use(stage, "privacy forget")
        await finds(bot, stage, "fox")


async def test_threads_are_found_with_their_channel(stage: Stage) -> None:
    fake = stage.fake
    async with words_only(stage) as bot:
        thread = await fake.add_thread(stage.channel_id, "foxes")
        inside = await post(stage, place=thread.id, title="A fox")
        await finds(bot, stage, "fox", inside)
        await finds(bot, stage, "fox", channels=[thread.id + 1])
        # Of a thread that was archived nobody tells the bot whose it is.
        archive: Any = bot.app.archive
        lose = "UPDATE places SET parent_id = 0"
        await archive._write(lambda db: db.execute(lose))
        await finds(bot, stage, "fox")
        archive.heal_s = 0
        await archive._heal_channel(fake.guild.id, thread.id)
        await finds(bot, stage, "fox", inside)
        alone = fake.open_dm(fake.member.id)
        await finds(bot, stage, "fox", guild_id=0, channels=[alone.id])


async def is_kept(archive: Any, posts: int) -> bool:
    return bool((await archive.status())["posts"] == posts)


async def test_meaning_finds_what_no_word_does_and_words_go_on_without_it(
    stage: Stage,
) -> None:
    async with stage.bot() as bot:
        archive: Any = bot.app.archive
        runner: Any = bot.app.runner
        downloads, runner.downloads = runner.downloads, lambda: 1
        booby = await post(stage, title="Blue-footed booby, courtship dance")
        await until(partial(is_kept, archive, 1))
        await stage.fake.settle()
        assert not archive.meaning.pid, "it rests while downloads run"
        runner.downloads = downloads
        bread = await post(stage, title="Sourdough bread from the oven")
        await finds(bot, stage, "ein Vogel tanzt", booby)
        await finds(bot, stage, "pan recién hecho", bread)
        assert archive.meaning.pid
        hits = await find(bot, stage, "", like=(await archive.owner_of(bread)).job_id)
        assert bread not in {hit.message_id for hit in hits}
        os.kill(archive.meaning.pid, signal.SIGKILL)
        hits = await find(bot, stage, "booby bread")
        assert {hit.message_id for hit in hits} == {booby, bread}
        await use(stage, "privacy forget")
        rows = await archive._read(
            lambda db: db.execute("SELECT * FROM vectors").fetchall()
        )
        assert rows == []
