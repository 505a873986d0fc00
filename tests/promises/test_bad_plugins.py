"""A plugin that does all the harm a hook can do: the others run, the bot lives. Its
checks refuse for it: see ``VETOES``."""

import asyncio
import json

import pytest
from conftest import SUPPORT_PLUGINS
from discord_support import BotProcess, Stage, job_when, link

from bossbot import BROKEN_CHECK, HOOKS, VETOES, Plugins, Status

pytest_plugins = ("discord_fixtures",)

HARM = "raises", "exits", "blocks"
# What would keep the plugin from being loaded, or the bot from starting, is no work.
WORK = [name for name in HOOKS if not name.startswith("register_")]
OPEN = [name for name in WORK if name not in VETOES]
LIMIT_S = {"blocks": 1.0}  # no less, since it is that of the other plugins, too


def add_harm(
    stage: Stage, names: list[str], harm: str, plugin: str = "bad", **values: object
) -> None:
    """A plugin that does harm in these hooks."""
    path = stage.copy_plugin(SUPPORT_PLUGINS / "harm.py", plugin)
    values_of_all = {"hooks": names, "harm": harm, **values}
    path.with_suffix(".json").write_text(json.dumps(values_of_all))


@pytest.mark.parametrize("harms", [["raises", "exits"], ["blocks"]], ids="-".join)
async def test_plugin_that_does_harm_in_every_hook_harms_itself_alone(
    stage: Stage, process: BotProcess, harms: list[str]
) -> None:
    for harm in harms:
        # One that blocks the loop itself is for the signals, below.
        names = [name for name in OPEN if name != "run" or harm != "blocks"]
        add_harm(stage, names, harm, f"bad_{harm}", limit_s=LIMIT_S.get(harm, 0))
    await process.start(process_timeout_s="2")
    for number in (1, 2):
        await stage.says(f"$download {link(stage.image(number))}")
    await stage.gets(2)
    for harm in harms:
        await process.logged(f"plugin bad_{harm} is switched off")
    assert stage.fake.sessions["identify"] == 1, "the gateway stayed up"
    process.terminate()
    assert await process.ended() == 0


@pytest.mark.parametrize("harm", HARM)
async def test_check_job_that_does_harm_refuses_every_link(
    stage: Stage, harm: str
) -> None:
    add_harm(stage, ["check_job"], harm)
    async with stage.bot() as bot:
        bot.app.plugins.quick_limit_s = LIMIT_S.get(harm, 60)
        said = 0
        for _ in range(6):
            await stage.says(f"$download {link(stage.image())}")
            said = (await stage.hears(BROKEN_CHECK, after=said)).id
        assert not await bot.app.queue.list()
        assert not bot.app.plugins.all["bad"].off


@pytest.mark.parametrize("harm", HARM)
async def test_check_claim_that_does_harm_starts_nothing_and_loses_nothing(
    stage: Stage, harm: str, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plugins, "quick_limit_s", LIMIT_S.get(harm, 60))
    add_harm(stage, ["check_claim"], harm)
    async with stage.bot() as bot:
        await stage.says(f"$download {link(stage.image())}")
        await stage.hears("Download started")
        async with asyncio.timeout(60):
            async for _ in bot.app.queue.changes():
                if bot.app.plugins.all["bad"].failures["check_claim"] > 3:
                    break
        [job] = await bot.app.queue.list()
        assert (job.status, job.attempts) == (Status.QUEUED, 0)
        warnings = [line for line in logged if "no job is started now" in line]
        assert warnings == [f"WARNING no job is started now: {BROKEN_CHECK}"]
        bot.app.plugins.switch_off("bad", "by the owner")
        await stage.gets(1)


@pytest.mark.parametrize("harm", HARM)
async def test_check_upload_that_does_harm_posts_nothing(
    stage: Stage, harm: str
) -> None:
    add_harm(stage, ["check_upload"], harm)
    async with stage.bot() as bot:
        bot.app.plugins.quick_limit_s = LIMIT_S.get(harm, 60)
        await stage.says(f"$download {link(stage.image())}")
        await stage.hears("**Download failed** (permission)", BROKEN_CHECK)
    assert not stage.requested("upload")


async def test_second_signal_ends_a_bot_whose_loop_a_plugin_blocks(
    stage: Stage, process: BotProcess
) -> None:
    add_harm(stage, ["check_job"], "blocks", in_loop=True)
    await process.start()
    await stage.says(f"$download {link(stage.image())}")
    await process.logged("blocks")
    process.terminate()
    await process.logged("stops the bot at once")
    process.terminate()
    assert await process.ended() == 1
    await process.family_ended()


async def test_thread_that_never_ends_and_lost_stderr_do_not_keep_the_process(
    stage: Stage, process: BotProcess
) -> None:
    add_harm(stage, ["run"], "goes on")
    add_harm(stage, ["run"], "mutes", "mute")  # the signal cannot be told of
    await process.start()
    await process.logged("mute")
    process.terminate()
    assert await process.ended() == 0
    assert "AttributeError" not in process.output()


async def test_registration_that_exits_turns_its_plugin_off(stage: Stage) -> None:
    add_harm(stage, ["register_commands"], "exits", "bad_commands")
    for part in ("queue", "courier", "worker"):
        add_harm(stage, ["register_parts"], "exits later", f"bad_{part}", part=part)
    async with stage.bot() as bot:
        await stage.says(f"$download {link(stage.image())}")
        [message] = await stage.gets(1)
        assert message.files
        [job] = await bot.app.queue.list()
        await job_when(bot, job.id, lambda one: one.status is Status.COMPLETED)
        for name in ("commands", "queue", "courier", "worker"):
            assert bot.app.plugins.all[f"bad_{name}"].off
