"""Failures that only the owner can mend reach the owner: one message a day for each kind,
with an id and lines of the log, and `report` has the rest."""

import argparse
import asyncio
import contextlib
import platform
import re
import shutil
import sqlite3
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import SUPPORT_PLUGINS, Home
from discord_support import Stage, job_id, link, module
from fake_discord import Message
from loguru import logger

import bossbot
from bossbot import BossbotError

pytest_plugins = ("discord_fixtures",)


def told(stage: Stage) -> list[Message]:
    """What the owner was told."""
    return stage.said(stage.fake.open_dm(stage.fake.owner.id).id)


async def tells(stage: Stage, *words: str, count: int = 1) -> Message:
    """The newest message to the owner, once there are so many; it has these words."""

    def find() -> Message | None:
        return said[-1] if len(said := told(stage)) >= count else None

    message: Message = await stage.fake.wait_for(find)
    assert len(told(stage)) == count
    for word in words:
        assert word in message.content, message.content
    assert len(message.content) <= 2000
    return message


@pytest.fixture
def watched(stage: Stage) -> Stage:
    """With the plugin that tells."""
    stage.add_plugin("problems")
    return stage


async def test_mistake_of_ours_is_told_once_a_day_with_its_id(
    watched: Stage,
) -> None:
    async with watched.bot() as bot:
        for number in range(3):
            asked = await watched.says(f"$dlt {link('fail=internal', f'a{number}')}")
            await watched.hears("Download failed", after=asked.id)
            if not number:
                name = job_id(await watched.hears("Download failed"))
                await tells(watched, "bug in the bot", f"report {name}")
        await tells(watched, "as the link says")
        # A day later it is told again.
        yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
        await bot.app.facts.set("problem:internal", yesterday.isoformat())
        module("problems")._noted["internal"] = yesterday
        await watched.says(f"$dlt {link('fail=internal', 'b')}")
        await tells(watched, "bug in the bot", count=2)
    for message in told(watched):
        assert str(watched.fake.member.id) not in message.content
        assert "toy.example/" not in message.content


async def test_broken_plugin_is_told_with_its_traceback_whatever_it_says(
    watched: Stage,
) -> None:
    watched.copy_plugin(Path(__file__).parent / "plugins" / "leaks.py")
    async with watched.bot() as bot:
        for number in range(5):
            await watched.says(f"$dlt {link(watched.image(number + 1))}")
        message = await tells(watched, "The plugin `leaks` is broken", "ValueError")
        await watched.fake.wait_for(lambda: bot.app.plugins.all["leaks"].off)
    body = message.content.partition("```")[2]
    assert body.count("```") == 1 and "hush" not in body and "secret-path" not in body


async def test_plugin_that_does_not_load_is_told_at_the_start(
    watched: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.add_plugin("problems")
    app = watched.app()
    app.plugins.all["toy"].off = "it is broken"
    monkeypatch.setattr(watched, "app", lambda *args, **values: app)
    app.settings = watched.settings(discord_token=watched.fake.token)
    async with watched.bot():
        await tells(
            watched, "These plugins are broken, so they are off: `toy`", "it is broken"
        )


async def test_engine_is_told_to_be_old_after_three_links_of_one_platform_in_a_row(
    watched: Stage,
) -> None:
    async with watched.bot():
        for number, step in enumerate("xx.xxxx"):
            what = watched.image(1) if step == "." else "fail=engine_outdated"
            asked = await watched.says(f"$dlt {link(what, f'n{number}')}")
            words = "Done" if step == "." else "Download failed"
            await watched.hears(words, after=asked.id)
            assert len(told(watched)) == 0 or number > 4
        await tells(watched, "3 links in a row", "toy, other sites", "toy 1", "Update")


async def test_full_disk_is_told_once(watched: Stage) -> None:
    watched.add_plugin("retention")
    async with watched.bot(retention__min_free_space="1000000TiB"):
        await tells(watched, "no room for links: only", "are free")
        await asyncio.sleep(0.1)  # ten looks more
        await tells(watched, "no room for links")


async def test_link_that_fills_the_disk_is_told(watched: Stage) -> None:
    async with watched.bot():
        await watched.says(f"$dlt {link('fail=disk_full')}")
        await tells(watched, "A link failed because the disk is full")


async def test_errors_of_the_log_are_told_with_their_ids_and_plugins(
    watched: Stage,
) -> None:
    async with watched.bot():
        problem_of = module("problems").problem_of
        for said, kind, name in (
            ("the event loop is blocked by plugin slow for 1 s", "plugin", ""),
            ("error deadbeef in queue: no", "internal", "deadbeef"),
        ):
            found = problem_of({"message": said, "extra": {}})
            assert (found.kind, found.id) == (kind, name)
    bossbot.hide_secrets("a test", ["a-password-of-the-owner"])
    clean = module("_reports").clean
    assert clean("it is a-password-of-the-owner here") == "it is [secret] here"


async def test_flood_of_errors_is_one_message_for_each_kind(watched: Stage) -> None:
    async with watched.bot():

        def shout() -> None:
            for number in range(300):
                logger.bind(job="0123456789").error("the job {} failed", number)
                logger.error("discord.client: Attempting a reconnect in 1 s")
            for number in range(300):
                logger.error("plugin x{} failed in run: no", number)

        await asyncio.to_thread(shout)
        await tells(watched, count=2)
        await asyncio.sleep(0.1)
        plugins = ["The plugin" in message.content for message in told(watched)]
        assert sorted(plugins) == [False, True]
        assert "report 0123456789" in "".join(m.content for m in told(watched))


async def test_message_waits_while_discord_is_out_of_reach_and_comes_once(
    watched: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watched.bot() as bot:
        monkeypatch.setattr(module("_discord"), "RETRY_S", 0.01)
        watched.fake.fault("user", 503, times=3)
        watched.fake.fault("send", "lost_answer", times=2)
        logger.error("no plugin did this")
        await tells(watched, "There is an error in the log", "no plugin did this")
        today = datetime.now(UTC).date().isoformat()
        async with asyncio.timeout(60):
            while await bot.app.facts.get("problem:internal") != today:
                await asyncio.sleep(0.01)
    async with watched.bot():
        logger.error("nor this")
        logger.error("plugin toy failed in answer_job: no")
        await tells(watched, "The plugin `toy` is broken", count=2)


async def test_message_names_the_machine_where_there_are_several(
    watched: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watched.bot() as bot:
        monkeypatch.setattr(bot.app.queue, "shared", True)
        await bot.app.reload("problems")
        problems = module("problems")
        async with asyncio.timeout(60):
            while not problems._waiting:
                await asyncio.sleep(0.01)
        problem = problems.problem_of({"message": "no", "extra": {}})
    assert problem.text.endswith(f" The machine: {platform.node()}.")


async def test_owner_of_the_team_is_told_for_the_team(watched: Stage) -> None:
    fake = watched.fake
    fake.team = [fake.add_member("ava"), fake.add_member("bob")]
    async with watched.bot():
        logger.error("no plugin did this")
        ava = fake.open_dm(fake.team[0].id)
        await watched.hears("no plugin did this", channel_id=ava.id)
    assert not told(watched)
    assert not watched.said(fake.open_dm(fake.team[1].id).id)


async def test_owner_is_told_though_nothing_can_be_written_down(
    watched: Stage, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    async with watched.bot() as bot:
        monkeypatch.setattr(module("_discord"), "FACT_S", 0.1)
        other = sqlite3.connect(bot.app.settings.data_dir / "bossbot.db")
        with contextlib.closing(other):
            other.execute("BEGIN EXCLUSIVE")
            logger.error("the disk is full")
            await tells(watched, "the disk is full")
            async with asyncio.timeout(60):
                while not any("may be told again" in line for line in logged):
                    await asyncio.sleep(0.01)
        logger.error("and more")
        logger.error("plugin toy failed in answer_job: no")
        await tells(watched, "The plugin `toy` is broken", count=2)


async def test_owner_who_cannot_be_reached_harms_nothing(
    watched: Stage, logged: list[str]
) -> None:
    watched.fake.owner.accepts_dms = False
    async with watched.bot() as bot:
        await watched.says(f"$dlt {link('fail=internal')}")
        async with asyncio.timeout(60):
            while not any("no message reached the owner" in line for line in logged):
                await asyncio.sleep(0.01)
        await watched.says(f"$dlt {link(watched.image())}")
        await watched.gets(1)
        assert not bot.app.plugins.all["problems"].failures


# report


LOG = """\
2026-11-27 09:00:00 INFO    failed: internal https://toy.example/secret-path?a=hush \
(no) job=0123456789 guild=123456789012345678 user=223456789012345678
2026-11-27 09:00:01 ERROR   the job failed job=0123456789
  Traceback (most recent call last):
    File "{here}/bossbot.py", line 1
  KeyError: 223456789012345678
2026-11-27 09:00:02 INFO    another job=ffffffffff
2026-11-27 09:00:03 ERROR   error deadbeef in queue: no
"""


def test_report_has_what_is_known_of_a_job_and_nobodys_name(bare_home: Home) -> None:
    shutil.copy(
        bossbot.HERE / "plugins/owner/report.py", bare_home.path / "plugins/owner"
    )
    logs = bare_home.data / "logs"
    logs.mkdir(parents=True)
    (logs / "boss-bot_2026-11-27.log").write_text(LOG.format(here=bare_home.path))
    settings = {
        "BOSS_BOT_DISCORD_TOKEN": "hush",
        "BOSS_BOT_MAX_ITEMS": "7",
        "BOSS_BOT_PLUGINS__LOCAL_WORKER__DOWNLOAD_TIMEOUT_S": "5",
    }
    done = bare_home.run("report", "`0123456789`", env=settings)
    said = done.stdout
    assert done.returncode == 0, done.stderr
    for words in (
        f"- {bossbot.__version__}, plugin API",
        f"- Python {sys.version.split()[0]}",
        "own plugins: nowhere (yours)",
        "- max_items = 7",
        "- plugins.local_worker.download_timeout_s = 5",
        "failed: internal https://toy.example/… (no) job=0123456789\n",
        "KeyError: [id]",
    ):
        assert words in said, said
    assert not re.search(r"hush|secret-path|\d{17}|ffffffffff|deadbeef", said)
    assert str(bare_home.path) not in said
    assert "Read it before you post it" in done.stderr


async def test_report_of_a_job_while_the_bot_runs(
    stage: Stage,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage.add_plugin("report")
    stage.add_plugin("history")
    logs = stage.folder / "data" / "logs"
    logs.mkdir(parents=True)
    (logs / "boss-bot_2026-11-27.log").write_text(f"{LOG}  it had new-value\n")
    shutil.copy(SUPPORT_PLUGINS / "toy_site.py", stage.plugins)
    jar = stage.folder / "toys.txt"
    cookie = ".toy.example\tTRUE\t/\tTRUE\t9999999999\tsid\t{}-value\n"
    jar.write_text(cookie.format("old"))
    title = stage.facts("t", title="A title of somebody's")
    async with stage.bot(toy_site__cookies_file=jar) as bot:
        await stage.says(f"$dlt {link(title, 'fail=engine_outdated')}")
        name = job_id(await stage.hears("Download failed"))
        command = bot.app.plugins.registered("subcommands")["report"]
        assert await command.run(bot.app, argparse.Namespace(id=name)) == 0
        said = capsys.readouterr().out
        assert await command.run(bot.app, argparse.Namespace(id="deadbeef")) == 0
        assert "error deadbeef in queue: no" in capsys.readouterr().out
        jar.write_text(cookie.format("new"))  # which no attempt has used yet
        assert await command.run(bot.app, argparse.Namespace(id="deadbeef")) == 0
        assert "it had [secret]" in capsys.readouterr().out
        assert await command.run(bot.app, argparse.Namespace(id="0000000000")) == 1
        assert "There is no record of 0000000000" in capsys.readouterr().err
        for wrong in ("../../etc", "deadbee", "x" * 10):
            with pytest.raises(BossbotError, match="is not an id"):
                await command.run(bot.app, argparse.Namespace(id=wrong))
        lines_on = module("_reports").lines_on
        assert lines_on("deadbeef", logs) and lines_on("deadbeef", logs, whole=False)
        monkeypatch.setattr(module("_reports"), "TAIL_BYTES", 10)
        assert lines_on("deadbeef", logs) and not lines_on("deadbeef", logs, False)
        # What is no more in the queue may be in the history.
        find_job = module("report").find_job
        with sqlite3.connect(stage.folder / "data" / "bossbot.db") as database:
            database.execute("DELETE FROM jobs")
        async with asyncio.timeout(60):
            while not (known := find_job(bot.app, name)):
                await asyncio.sleep(0.01)
        assert known["status"] == "failed"
    for words in ("- status: failed", "- cause: engine_outdated", "- engine: toy"):
        assert words in said
    assert "- link: https://toy.example/…" in said and "- toy 1" in said
    assert "A title" not in said and str(stage.fake.member.id) not in said
