"""What a link costs: counts of what takes time on a slow machine, so that no step is
added to all links by accident."""

import asyncio
import os
from collections import Counter
from typing import Any

import aiosqlite
import pytest
from discord_support import Stage, link

from bossbot import BossBot

pytest_plugins = ("discord_fixtures",)


async def settled(bot: BossBot) -> None:
    """Return when nothing is said or written any more."""
    while bot.app.worker.running or bot.app._telling:  # type: ignore[attr-defined]
        await asyncio.sleep(0.01)
    await bot.app.database.sync()


async def test_link_takes_few_steps(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = Counter[str]()
    for name in ("already_here", "history", "quota", "stats", "retention"):
        stage.add_plugin(name)

    def counted(where: Any, name: str, what: str) -> None:
        original = getattr(where, name)

        def count(*arguments: Any, **named: Any) -> Any:
            counts[what] += 1
            return original(*arguments, **named)

        monkeypatch.setattr(where, name, count)

    async with stage.bot() as bot:
        for number in range(2):  # what the first one makes is there for all others
            counts.clear()
            if number:
                counted(aiosqlite.Connection, "_execute", "database")
                counted(os, "fsync", "sync")
                counted(os, "fdatasync", "sync")
                counted(asyncio, "to_thread", "thread")
            await stage.says(f"$download {link(stage.image(number + 1))}")
            await stage.gets(number + 1)
            await settled(bot)
    assert counts["sync"] <= 6  # a new job, its message, its end, and what is late
    assert counts["database"] <= 22
    assert counts["thread"] <= 10


async def test_status_message_that_goes_is_looked_for_nowhere(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("already_here", "similar_notice"):
        stage.add_plugin(name)
    stage.guild_settings("")  # by default, it goes
    looks = list[str]()
    async with stage.bot() as bot:
        ask = bot.app.database.all

        def watched(sql: str, *values: Any, **named: Any) -> Any:
            if "message_id IN" in sql:
                looks.append(values[0])
            return ask(sql, *values, **named)

        monkeypatch.setattr(bot.app.database, "all", watched)
        await stage.says(f"$download {link(stage.image(1))}")
        [post] = await stage.gets(1)
        gone = stage.fake.all_messages.values()
        await stage.fake.wait_for(lambda: any(m.deleted for m in gone))
        await stage.fake.delete_message(post.id)
        while len(looks) < 2:
            await asyncio.sleep(0.01)
    assert looks == [f"[{post.id}]"] * 2
