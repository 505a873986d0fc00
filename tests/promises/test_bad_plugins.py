"""A plugin that does all the harm a hook can do: the others run, the bot lives."""

import pytest
from discord_support import BotProcess, Stage, job_when, link

from bossbot import HOOKS, Status

pytest_plugins = ("discord_fixtures",)

HARM = {
    "raises": "raise RuntimeError('no')",
    "exits": "sys.exit('no')",
    "blocks": "time.sleep(90)",
}
# What would keep the plugin from being loaded, or the bot from starting, is no work.
WORK = [name for name in HOOKS if not name.startswith("register_")]


@pytest.mark.parametrize("harm", HARM)
async def test_plugin_that_does_harm_in_every_hook_harms_itself_alone(
    stage: Stage, process: BotProcess, harm: str
) -> None:
    hooks = [f"@hookimpl\ndef {name}():\n    {HARM[harm]}\n" for name in WORK]
    limits = "bossbot.HOOK_LIMIT_S = 0.3\nbossbot.HOOK_LIMITS_S = {}\n"
    head = f"import sys, time\nimport bossbot\nfrom bossbot import hookimpl\n{limits}"
    stage.write_plugin("bad", "\n".join([head, *hooks]))
    await process.start(process_timeout_s="1")
    for number in (1, 2):
        await stage.says(f"$download {link(stage.image(number))}")
    await stage.gets(2, timeout_s=20)
    await process.logged("plugin bad is switched off")
    assert stage.fake.sessions["identify"] == 1, "the gateway stayed up"
    process.terminate()
    assert await process.ended(25) == 0


async def test_second_signal_ends_a_bot_whose_loop_a_plugin_blocks(
    stage: Stage, process: BotProcess
) -> None:
    stage.hook(
        "bad",
        "async def check_job():\n    print('blocks', flush=True)\n    time.sleep(90)",
    )
    await process.start()
    await stage.says(f"$download {link(stage.image())}")
    await process.logged("blocks")
    process.terminate()
    await process.logged("once more to stop at once")
    process.terminate()
    assert await process.ended(5) == 1
    await process.family_ended()


async def test_signal_that_cannot_be_told_of_stops_the_bot(
    stage: Stage, process: BotProcess
) -> None:
    code = "def bot_started():\n    sys.stderr = None\n    print('mute', flush=True)"
    stage.hook("bad", code)
    await process.start()
    await process.logged("mute")
    process.terminate()
    assert await process.ended() == 0


async def test_registration_that_exits_turns_its_plugin_off(stage: Stage) -> None:
    for name in ("register_queue", "register_courier", "register_commands"):
        stage.hook(f"bad_{name}", f"def {name}():\n    raise SystemExit('no')\n")
    async with stage.bot() as bot:
        await stage.says(f"$download {link(stage.image())}")
        [message] = await stage.gets(1)
        assert message.files
        [job] = await bot.app.queue.list()
        await job_when(bot, job.id, lambda one: one.status is Status.COMPLETED)
        assert bot.app.plugins.all["bad_register_commands"].off
