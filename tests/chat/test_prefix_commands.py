"""The $ commands through dpytest, which needs no Discord at all.

It knows neither interactions nor edits: the rest is in test_conversation.py.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import discord
import discord.ext.test as dpytest
import pytest
from conftest import MakeApp
from discord.ext import commands
from discord_support import Stage, job_when, link, module

from bossbot import TERMINAL_STATUSES, BossBot, Status

pytest_plugins = ("discord_fixtures",)


@pytest.fixture
async def bot(
    stage: Stage,
    make_app: MakeApp,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[BossBot]:
    monkeypatch.chdir(tmp_path)  # dpytest leaves files where it is
    settings = stage.settings(disabled_plugins=["progress"])  # it edits
    app = make_app(settings, stage.ours)
    intents = discord.Intents.default()
    intents.message_content = intents.members = True
    client: Any = app.client

    async def logged_in() -> None:
        """dpytest needs no login."""

    client.start = logged_in
    bot = client.bot = module("discord_client").Bot(app, client.config, intents=intents)
    await bot._async_setup_hook()
    dpytest.configure(bot)
    bot._ready.set()
    # dpytest grants no permissions in partial channels.
    bot.get_partial_messageable = lambda number, guild_id: bot.get_channel(number)
    await app.start()
    for plugin in app.plugins.all.values():
        await client.install(plugin)
    yield bot
    bot.ws = None  # dpytest's cannot be closed
    await dpytest.empty_queue()


async def test_link_is_downloaded_and_posted_and_wrong_words_are_answered(
    stage: Stage, bot: BossBot
) -> None:
    seen: set[str] = set()
    for command in ("download", "dl", "dlt", "dlr"):
        await dpytest.message(f"${command} {link(stage.image())}")
        [job] = [job for job in await bot.app.queue.list() if job.id not in seen]
        await job_when(bot, job.id, lambda stored: stored.status in TERMINAL_STATUSES)
        message = dpytest.get_message()  # with files, dpytest loses the text
        assert message.attachments[0].filename.endswith(f"{job.id}_01.jpg"), command
        stored = await bot.app.queue.get(job.id)
        assert stored and stored.status is Status.COMPLETED
        seen.add(job.id)
    await dpytest.message("$download")
    assert dpytest.verify().message().contains().content("Give me a link")
    await dpytest.message("$dlt nonsense")
    assert dpytest.verify().message().contains().content("Invalid URL: it must start")
    await dpytest.message("$dlr https://discord.com/channels/1/2/3")
    assert dpytest.verify().message().contains().content("a message on Discord")
    with pytest.raises(commands.CommandNotFound):  # dpytest's own listener raises it
        await dpytest.message("$nosuchcommand")
    assert dpytest.verify().message().nothing()
    assert len(await bot.app.queue.list()) == len(seen)
