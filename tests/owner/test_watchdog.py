"""The watchdog plugin: a plugin that blocks the event loop is named."""

import asyncio
import importlib

import pytest
from conftest import MakeApp, MakeSettings, WritePlugin, our_plugins

GREEDY = """
import time


def work(logged):
    for _ in range(1000):
        if any("is blocked" in line for line in logged):
            break
        time.sleep(0.01)
"""


async def test_plugin_that_blocks_the_loop_is_named(
    make_app: MakeApp,
    make_settings: MakeSettings,
    write_plugin: WritePlugin,
    logged: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_plugin("greedy", GREEDY)
    app = make_app(make_settings(), our_plugins("watchdog"))
    watchdog = importlib.import_module("bossbot_plugins.watchdog")
    greedy = importlib.import_module("bossbot_plugins.greedy")
    monkeypatch.setattr(watchdog, "BLOCKED_S", 0.1)
    [life] = app.plugins.impls("run")
    watching = asyncio.create_task(
        app.plugins.invoke(life, app.plugins.all["watchdog"])
    )
    await asyncio.sleep(0)  # so that it begins
    greedy.work(logged)
    watching.cancel()
    errors = [line for line in logged if line.startswith("ERROR")]
    assert errors == ["ERROR the event loop is blocked by plugin greedy"]
