"""The connection to Discord: which slash commands Discord has, and how a plugin's come and
go while the bot runs."""

import shutil
from pathlib import Path

import pytest
from bossbot_plugins._catalogues import FOLDER, load
from conftest import SUPPORT_PLUGINS, edit, make_job
from discord_support import Stage

import bossbot

pytest_plugins = ("discord_fixtures",)

SAYS = SUPPORT_PLUGINS / "says.py"


async def answers(stage: Stage, name: str) -> str:
    asked = await stage.fake.slash(stage.channel_id, name)
    return (await stage.fake.answered(asked)).text


def puts(stage: Stage) -> int:
    return stage.requested("commands")


async def test_reload_syncs_only_commands_that_have_changed(stage: Stage) -> None:
    stage.copy_plugin(SAYS, "hello")
    async with stage.bot() as bot:
        assert puts(stage) == 1
        stage.copy_plugin(SAYS, "hello")
        await bot.app.reload("hello")
        assert puts(stage) == 1
        stage.copy_plugin(SAYS, "hello", NAME="howdy")
        await bot.app.reload("hello")
        assert puts(stage) == 2 and "hello" not in stage.fake.commands
        assert await answers(stage, "howdy") == "hello"
        stage.copy_plugin(SAYS, "other", NAME="other")
        await bot.app.reload("other")
        assert await answers(stage, "other") == "hello"
    async with stage.bot():
        assert puts(stage) == 3, "Discord knows them already"


async def test_first_command_does_not_wait_for_who_owns_the_bot(stage: Stage) -> None:
    stage.copy_plugin(SAYS, "hello")
    async with stage.bot():
        assert await answers(stage, "hello") == "hello"
    kinds = [request.kind for request in stage.fake.requests]
    assert "application" in kinds
    assert "application" not in kinds[kinds.index("commands") :]  # synced before READY


async def test_commands_of_a_plugin_that_is_gone_or_off_go_with_it(
    stage: Stage,
) -> None:
    for name in ("one", "two", "three"):
        stage.copy_plugin(SAYS, name, NAME=name)
    fake = stage.fake
    async with stage.bot() as bot:
        (stage.plugins / "one.py").unlink()
        with pytest.raises(Exception, match="No plugin one"):
            await bot.app.reload("one")
        await fake.wait_for(lambda: "one" not in fake.commands)
        bot.app.plugins.switch_off("two", "as the test wants")
        await fake.wait_for(lambda: "two" not in fake.commands)
        assert bot.get_command("two") is None
        assert await answers(stage, "three") == "hello"
    (stage.plugins / "three.py").unlink()
    (stage.plugins / "two.py").unlink()
    async with stage.bot():
        assert "three" not in fake.commands and "download" in fake.commands


BROKEN = {
    "def broken(:": "def register_commands",
    "FAULT = 'to_dict'": 'FAULT = ""',
    "FAULT = 'raise'": 'FAULT = ""',
    "FAULT = 'exit'": 'FAULT = ""',
    "NAME = 'download'": 'NAME = WORDS = "hello"',
}


async def test_reload_that_fails_puts_the_old_commands_back(stage: Stage) -> None:
    stage.copy_plugin(SAYS, "hello", WORDS="old")
    async with stage.bot() as bot:
        for new, old in BROKEN.items():
            edit(stage.copy_plugin(SAYS, "hello", WORDS="new"), old, new)
            loaded = await bot.app.reload("hello")
            assert loaded.off and not bot.app.plugins.all["hello"].off, new
            assert await answers(stage, "hello") == "old", new
            await stage.says("$hello")
            await stage.hears("old", after=stage.said()[-1].id)
            assert {"hello", "download"} <= stage.fake.commands.keys(), new
        path = stage.copy_plugin(SAYS, "hello", WORDS="new")
        edit(path, "register_commands(bot: BossBot)", "register_commands()")
        assert not (await bot.app.reload("hello")).off
        assert await answers(stage, "hello") == "new"


async def test_register_commands_that_fails_turns_only_its_plugin_off(
    stage: Stage,
) -> None:
    reasons = {"to_dict": "ZeroDivisionError", "fail": "ZeroDivisionError"}
    reasons |= {"exit": "SystemExit", "return": "TypeError"}
    stage.copy_plugin(SAYS, "good", NAME="good")
    for fault in reasons:
        stage.copy_plugin(SAYS, f"bad_{fault}", NAME=f"bad_{fault}", FAULT=fault)
    async with stage.bot() as bot:
        for fault, reason in reasons.items():
            name = f"bad_{fault}"
            assert reason in bot.app.plugins.all[name].off, fault
            assert name not in stage.fake.commands, fault
            assert bot.get_command(name) is None, fault
        assert await answers(stage, "good") == "hello"


async def test_command_that_discord_refuses_is_left_out_and_the_others_are_not(
    stage: Stage, logged: list[str]
) -> None:
    stage.fake.refused_commands = {"bad"}
    stage.copy_plugin(SAYS, "good", NAME="good")
    stage.copy_plugin(SAYS, "bad", NAME="bad")
    async with stage.bot() as bot:
        assert await answers(stage, "good") == "hello"
        assert "bad" not in stage.fake.commands
        await stage.says("$bad")
        await stage.hears("hello", after=stage.said()[-1].id)
        assert not bot.app.plugins.all["bad"].off
    assert any("does not accept the slash commands" in line for line in logged)


async def test_sync_that_fails_is_made_up_for_by_the_next(stage: Stage) -> None:
    fault = stage.fake.fault("commands", 403, times=1)
    async with stage.bot() as bot:
        assert fault.hits == 1 and not stage.fake.commands
        assert await bot.app.client.sync()
        assert "download" in stage.fake.commands
        before = puts(stage)
        assert await bot.app.client.sync() and puts(stage) == before
        assert await bot.app.client.sync(again=True) and puts(stage) == before + 1


async def test_new_translation_is_sent_to_discord(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(FOLDER / "de.mo", tmp_path)
    monkeypatch.setattr(bossbot, "catalogues", load(tmp_path))
    async with stage.bot() as bot:
        assert puts(stage) == 1
        assert await bot.app.client.sync() and puts(stage) == 1
        shutil.copy(FOLDER / "fr.mo", tmp_path / "de.mo")
        monkeypatch.setattr(bossbot, "catalogues", load(tmp_path))
        assert await bot.app.client.sync() and puts(stage) == 2
        (tmp_path / "de.mo").unlink()
        assert await bot.app.client.sync()


async def test_answer_that_was_sent_before_reads_as_it_is_now(stage: Stage) -> None:
    """Discord gives back the earlier message with that nonce, as it was."""
    asked = await stage.says("Hello")
    job = make_job(channel_id=stage.channel_id, message_id=asked.id)
    async with stage.bot() as bot:
        first = await bot.app.client.answer(job, "Download started")
        second = await bot.app.client.answer(job, "Done")
    [message] = stage.said()
    assert first == second == message.id and message.content == "Done"
