"""The watchdog plugin: who blocks the event loop is named."""

import asyncio
from pathlib import Path

import pytest
from bossbot_plugins import watchdog

from bossbot import Settings, import_plugin

GREEDY = """
import time


def work(logged):
    for _ in range(1000):
        if any("is blocked" in line for line in logged):
            break
        time.sleep(0.01)
"""


def test_plugin_that_blocks_the_loop_is_named(
    tmp_path: Path, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "BLOCKED_S", 0.1)
    file = tmp_path / "greedy.py"
    file.write_text(GREEDY)
    greedy = import_plugin(file)

    async def main() -> None:
        watchdog.register_commands(Settings(plugins_dir=tmp_path))
        greedy.work(logged)

    asyncio.run(main())
    assert logged == ["ERROR the event loop is blocked by plugin greedy"]
