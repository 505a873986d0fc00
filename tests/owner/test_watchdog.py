"""The watchdog plugin: a plugin that blocks the event loop is named."""

import asyncio
import importlib
from pathlib import Path

import pytest
from conftest import AddPlugin, MakeApp, MakeSettings, our_plugins


async def test_plugin_that_blocks_the_loop_is_named(
    make_app: MakeApp,
    make_settings: MakeSettings,
    add_plugin: AddPlugin,
    logged: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_plugin(Path(__file__).parent / "plugins" / "greedy.py")
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
