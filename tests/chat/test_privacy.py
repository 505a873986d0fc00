"""/privacy show, forget and stats, and the convention by which plugins forget."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from bossbot_plugins._privacy import in_statistics, tables
from conftest import ROOT, SUPPORT_PLUGINS, MakeApp, MakeSettings
from discord_support import BotProcess, Stage, job_at, job_id, link, module, until
from fake_discord import Channel, User

from bossbot import BossBot, Status

pytest_plugins = ("discord_fixtures",)

PLUGINS = Path(__file__).parent / "plugins"


@pytest.fixture
def stage(stage: Stage) -> Stage:
    for name in ("privacy", "history", "queue"):
        stage.add_plugin(name)
    shutil.copy(PLUGINS / "notes.py", stage.plugins)
    return stage


def add_tables(stage: Stage, name: str, script: str) -> None:
    """One of the plugins whose tables are in a file beside it."""
    path = stage.copy_plugin(SUPPORT_PLUGINS / f"{name}.py")
    path.with_suffix(".json").write_text(json.dumps([script]))


async def use(stage: Stage, words: str, user: User | None = None, **o: Any) -> str:
    asked = await stage.fake.slash(stage.channel_id, words, o, user and user.id)
    answer = await stage.fake.answered(asked)
    assert answer.only_for is (user or stage.fake.member)
    return answer.text


async def note(stage: Stage, bot: BossBot, place: Channel, user: User) -> None:
    assert place.guild
    database = bot.app.database
    values = (place.guild.id, user.id, "x")
    await database.all("INSERT INTO notes VALUES (?, ?, ?)", *values)
    await database.all("INSERT INTO notes_of_all VALUES (?, 'x')", user.id)
    await database.all("INSERT INTO notes_totals VALUES (?, 1)", place.guild.id)


async def rows(bot: BossBot, table: str) -> list[int]:
    found = await bot.app.database.all(f"SELECT user_id FROM {table}")
    return sorted(row[0] for row in found)


async def is_idle(bot: BossBot) -> bool:
    return not bot.app.worker.running  # type: ignore[attr-defined]


def kept(stage: Stage) -> list[Path]:
    return list((stage.folder / "data" / "downloads").glob("*/*/*"))


async def bring_files(stage: Stage, place: Channel, user: User) -> None:
    fake = stage.fake
    asked = await fake.member_says(place.id, f"$dl {link(stage.image())}", user.id)

    def there() -> bool:
        said = fake.messages(place.id, bot_only=True)
        mine = [m for m in said if m.replied_to is asked]
        return any(m.files for m in mine) and any("Done in" in m.content for m in mine)

    await fake.wait_for(there)


async def test_forget_removes_what_is_of_this_server(stage: Stage) -> None:
    fake = stage.fake
    mary, otto = fake.member, fake.add_member("otto")
    async with stage.bot() as bot:
        away = await fake.add_guild("Away")
        assert away.guild
        stage.guild_settings('[progress]\nstatus_when_done = "keep"\n', away.guild.id)
        for place, user in ((fake.channel, mary), (fake.channel, otto), (away, mary)):
            await bring_files(stage, place, user)
            await note(stage, bot, place, user)
        await bring_files(stage, fake.channel, mary)
        shown = await use(stage, "privacy show")
        assert "ended: 3, 2 of them here" in shown
        assert "`history`: 3" in shown and "`notes`: 2" in shown
        text = await use(stage, "privacy forget")
        assert text.startswith("2 downloads forgotten."), text
        assert text.endswith("other rows: 3.")
        left = await bot.app.queue.list()
        assert [job.user_id for job in left] == [otto.id, mary.id]
        both = [mary.id, otto.id]
        assert await rows(bot, "history") == await rows(bot, "notes") == both
        assert await rows(bot, "notes_of_all") == [mary.id, *both]
        assert {path.name for path in kept(stage)} == {job.id for job in left}
        assert len(stage.posted()) == 3  # the messages stay
        assert (await use(stage, "privacy forget")).startswith("0 downloads")
        text = await use(stage, "privacy forget", everywhere=True)
        assert text.startswith("1 download forgotten.")
        assert await rows(bot, "history") == [otto.id]
        assert await rows(bot, "notes_of_all") == [otto.id]
        totals = await bot.app.database.all("SELECT count FROM notes_totals")
        assert len(totals) == 3  # totals without names stay


async def test_forget_downloads_is_called_for_what_is_kept_elsewhere(
    stage: Stage,
) -> None:
    shutil.copy(PLUGINS / "elsewhere.py", stage.plugins)
    async with stage.bot():
        await use(stage, "privacy forget")
        await use(stage, "privacy forget", everywhere=True)
        member = stage.fake.member.id
        there = (stage.fake.guild.id, member)
        assert module("elsewhere").calls == [there, (None, member)]


async def test_forget_cancels_what_is_under_way(stage: Stage) -> None:
    async with stage.bot(max_concurrent_downloads=1) as bot:
        await stage.says(f"$dl {link('hang=never')} {link(stage.image())}")
        status = await stage.hears("Downloading", "queued")
        asked = await stage.says("$privacy forget")
        answer = await stage.hears("2 downloads forgotten.", after=asked.id)
        assert answer.replied_to is asked
        assert await bot.app.queue.list() == []
        assert await rows(bot, "history") == []
        await stage.fake.wait_for(lambda: status.content.count("Cancelled") == 2)
        await until(partial(is_idle, bot), 2)
        assert list((stage.folder / "data" / "temp").glob("*/*")) == []
        await stage.says(f"$dl {link(stage.image())}")  # the place is free
        await stage.gets(1)


async def test_what_is_being_posted_is_forgotten_when_it_is_there(stage: Stage) -> None:
    fault = stage.fake.fault("upload", "hang")
    async with stage.bot() as bot:
        await stage.says(f"$dl {link(stage.image())}")
        await stage.fake.wait_for(lambda: fault.hits)
        answer = await use(stage, "privacy forget")
        assert "forgotten once they are done" in answer
        fault.release()
        [post] = await stage.gets(1)

        async def forgotten() -> bool:
            return not (await bot.app.queue.list() or await rows(bot, "history"))

        await until(forgotten)
        assert not post.deleted and kept(stage) == []


async def test_messages_are_deleted_though_the_bot_is_killed(
    stage: Stage, process: BotProcess
) -> None:
    """One member's files are there; another's are being posted."""
    fake = stage.fake
    await process.start()
    ida, theirs = fake.add_member("ida"), fake.add_member("otto")
    await bring_files(stage, fake.channel, theirs)
    await bring_files(stage, fake.channel, fake.member)
    holds = [fake.fault(kind, "hang") for kind in ("delete", "upload")]
    await fake.member_says(stage.channel_id, f"$dl {link(stage.image())}", ida.id)
    await fake.wait_for(lambda: holds[1].hits)
    for person in (ida, fake.member):
        answer = await use(stage, "privacy forget", person, messages=True)
        there = "I am deleting 2 messages now" in answer
        assert there == (person is fake.member)
    await fake.wait_for(lambda: holds[0].hits)
    await process.kill()
    assert fake.member in askers(stage)
    again = fake.fault("upload", "hang")  # whose end deletes what is left, too
    await process.start()
    await fake.wait_for(lambda: fake.member not in askers(stage))
    again.release()
    await fake.wait_for(lambda: askers(stage) == [theirs, theirs])


def askers(stage: Stage) -> list[User | None]:
    """The members to whom the bot's messages reply."""
    said = stage.fake.messages(stage.channel_id, bot_only=True)
    return [m.replied_to and m.replied_to.author for m in said]


async def test_statistics_name_nobody_who_does_not_want_it(stage: Stage) -> None:
    async with stage.bot() as bot:
        member = stage.fake.member.id
        assert await in_statistics(bot.app, member)
        assert "no longer show" in await use(stage, "privacy stats", choice="off")
        assert not await in_statistics(bot.app, member)
        assert "do not show your name" in await use(stage, "privacy show")
        await use(stage, "privacy forget")
        assert not await in_statistics(bot.app, member)
        await stage.says("$privacy stats ON")
        await stage.hears("Statistics may show your name.")
        assert await in_statistics(bot.app, member)


async def test_audit_log_keeps_what_was_done_and_not_by_whom(stage: Stage) -> None:
    mary, otto = stage.fake.member.id, stage.fake.add_member("otto").id
    home = stage.fake.guild.id
    path = stage.folder / "data" / "logs" / "audit.jsonl"
    async with stage.bot() as bot:
        audit = module("privacy")
        for guild_id, user_id in ((home, mary), (home, otto), (99, mary)):
            await audit.note(bot.app, guild_id, user_id, "settings update", to="x")
        with path.open("a") as file:
            file.write('{"cut by a cra\n')
        await use(stage, "privacy forget")
        lines = path.read_text().splitlines()
        assert lines[3] == '{"cut by a cra'
        del lines[3]
        found = [json.loads(line) for line in lines]
        assert [one["who"] for one in found] == [0, otto, mary, 0]
        assert [one["to"] for one in found[:3]] == ["x"] * 3
        assert found[3]["what"] == "privacy forget"
        await use(stage, "privacy forget", everywhere=True)
        assert str(mary) not in path.read_text()


async def test_words_may_come_in_any_order(stage: Stage) -> None:
    async with stage.bot():
        for words in ("messages everywhere", "everywhere messages", "everywhere"):
            asked = await stage.says(f"$privacy forget {words}")
            await stage.hears("0 downloads forgotten.", after=asked.id)
        asked = await stage.says("$privacy forget evrything")
        await stage.hears("Choose one of these: messages, everywhere.", after=asked.id)


async def test_rows_of_a_plugin_that_is_off_are_forgotten(stage: Stage) -> None:
    async with stage.bot() as bot:
        await note(stage, bot, stage.fake.channel, stage.fake.member)
        bot.app.plugins.switch_off("notes", "as the test wants")
        await use(stage, "privacy forget")
        assert await rows(bot, "notes") == []


async def test_rows_of_a_table_without_row_numbers_are_forgotten(stage: Stage) -> None:
    made = "CREATE TABLE days (user_id INTEGER PRIMARY KEY) without rowid"
    add_tables(stage, "tables", made)
    member = stage.fake.member
    async with stage.bot() as bot:
        await bot.app.database.all("INSERT INTO days VALUES (1), (?)", member.id)
        await use(stage, "privacy forget", everywhere=True)
        assert await rows(bot, "days") == [1]


@pytest.mark.parametrize("name", ["own", '"own"', "IF NOT EXISTS own"])
async def test_tables_of_an_own_part_are_left_to_it(stage: Stage, name: str) -> None:
    add_tables(stage, "facts_with_tables", f"create table {name} (user_id INTEGER)")
    async with stage.bot() as bot:
        assert not bot.app.plugins.all["facts_with_tables"].off
        assert "own" not in {table.name for table in await tables(bot.app)}


async def test_tables_of_ours_with_members_can_be_searched_by_member(
    make_settings: MakeSettings, make_app: MakeApp
) -> None:
    """Each with an index, so that forgetting costs the same whatever is there."""
    app = make_app(make_settings(), ROOT / "plugins")
    await app.database.start()
    found = await tables(app)
    names = {"history", "limits", "stats_members"}
    assert names <= {table.name for table in found}
    assert "jobs" not in {table.name for table in found}
    for table in found:
        sql = f"EXPLAIN QUERY PLAN SELECT * FROM {table.name} WHERE user_id = 1"
        plan = [row["detail"] for row in await app.database.all(sql)]
        assert all("USING" in line and "INDEX" in line for line in plan), plan


async def test_job_that_ends_while_it_is_forgotten_leaves_no_row(stage: Stage) -> None:
    """The history hears of a cancelled job after the member has asked."""
    stage.copy_plugin(SUPPORT_PLUGINS / "slow.py", HOOK="job_changed", FOR_S=0.2)
    async with stage.bot() as bot:
        await stage.says(f"$dl {link('wait=gate')}")
        status = await stage.hears("Downloading")
        await use(stage, "privacy forget")
        assert await rows(bot, "history") == []
        await stage.fake.wait_for(lambda: "Cancelled" in status.content)
        await stage.fake.settle()
        assert await rows(bot, "history") == []
        assert await bot.app.queue.get(job_id(status)) is None
        await stage.says(f"$dl {link('fail=gone')}")
        await job_at(bot, job_id(await stage.hears("(gone)")), Status.FAILED)
