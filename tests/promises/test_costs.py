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
