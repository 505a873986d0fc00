"""run(): a plugin's life. It starts with the app, and ends with it, at a reload, and when
the plugin goes off; so does everything that the plugin has started."""

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import AddPlugin, SmallApp, WritePlugin, edit, make_job

from bossbot import PluginError, Refused

PLUGINS = Path(__file__).parent / "plugins"
ALIVE, RUNS, ENDS, STARTS, BY_A_HOOK = (
    PLUGINS / f"{name}.py"
    for name in ("alive", "runs", "ends", "starts", "starts_by_a_hook")
)
Start = Callable[..., Any]
Alive = Callable[..., Path]


class Heard(asyncio.Queue[str]):
    """What the plugins under test said, in order."""

    async def next(self) -> str:
        async with asyncio.timeout(60):
            return await self.get()

    async def times(self, count: int) -> list[str]:
        return [await self.next() for _ in range(count)]

    def rest(self) -> list[str]:
        return [self.get_nowait() for _ in range(self.qsize())]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def alive(add_plugin: AddPlugin) -> Alive:
    """Adds alive.py in a version of its own, which it says."""

    def add(version: int, name: str = "alive") -> Path:
        path = add_plugin(ALIVE, name)
        edit(path, "VERSION = 1", f"VERSION = {version}")
        return path

    return add


@pytest.fixture
def start(small_app: SmallApp, add_plugin: AddPlugin, heard: Heard) -> Start:
    """Starts an app with plugins given as name=file, which tell `app.heard`;
    ``settings`` holds settings."""

    async def start(
        settings: dict[str, Any] | None = None,
        run_again_s: float = 0.03,
        **plugins: Path,
    ) -> Any:
        add_plugin(PLUGINS / "_ways.py")
        for name, plugin in plugins.items():
            add_plugin(plugin, name)
        app: Any = small_app(**(settings or {}))
        app.heard, app.let_go = heard, asyncio.Event()
        app.run_again_s = run_again_s
        app.end_within_s = 60
        await app.start()
        return app

    return start


# Start and stop


async def test_run_begins_with_the_app_and_ends_with_it(
    start: Start, heard: Heard
) -> None:
    app = await start(alive=ALIVE)
    assert await heard.next() == "begins 1"
    assert heard.empty()
    await app.stop()
    assert heard.rest() == ["ends 1"]


async def test_run_does_not_begin_when_a_command_only_loads_the_plugins(
    small_app: SmallApp, alive: Alive, heard: Heard
) -> None:
    alive(1)
    app = small_app()
    app.heard = heard  # type: ignore[attr-defined]
    await app.reload("alive")
    await app.stop()
    assert heard.empty()


async def test_run_may_ask_for_app_config_and_settings(
    start: Start, heard: Heard
) -> None:
    await start(asks=PLUGINS / "asks_when_it_begins.py")
    assert await heard.next() == "hello 50"


async def test_run_has_every_part_when_it_begins(start: Start, heard: Heard) -> None:
    await start(asks=PLUGINS / "asks_when_it_begins.py")
    assert (await heard.times(2))[1] == "1 0"


async def test_run_that_returns_is_not_started_again(
    start: Start, heard: Heard
) -> None:
    app = await start(once=RUNS, alive=ALIVE)
    assert sorted(await heard.times(2)) == ["begins 1", "once"]
    await app.stop()
    assert heard.rest() == ["ends 1"]
    assert not app.plugins.all["once"].failures


async def test_run_hears_of_the_stop_while_the_parts_still_work(
    start: Start, heard: Heard
) -> None:
    app = await start({"last__how": "with a part"}, last=ENDS)
    await heard.next()
    await app.stop()
    assert heard.rest() == ["kept"]


# Reload and switch-off


async def test_run_of_a_reloaded_plugin_is_the_only_one(
    start: Start, heard: Heard, alive: Alive
) -> None:
    app = await start(alive=ALIVE)
    assert await heard.next() == "begins 1"
    for version in (2, 3, 4):
        alive(version)
        assert not (await app.reload("alive")).off
        assert await heard.times(2) == [f"ends {version - 1}", f"begins {version}"]
    await asyncio.gather(app.reload("alive"), app.reload("alive"))
    await app.stop()
    lines = heard.rest()
    assert lines.count("ends 4") == lines.count("begins 4") + 1, "of the one before"


async def test_run_of_a_new_file_begins_when_it_is_loaded(
    start: Start, heard: Heard, alive: Alive
) -> None:
    app = await start()
    alive(1)
    await app.reload("alive")
    assert await heard.next() == "begins 1"


async def test_run_goes_on_when_the_new_version_is_broken_and_ends_with_the_file(
    start: Start, heard: Heard, alive: Alive, write_plugin: WritePlugin
) -> None:
    other = alive(2, "other")
    app = await start(alive=ALIVE)
    assert sorted(await heard.times(2)) == ["begins 1", "begins 2"]
    write_plugin("alive", "def broken(:")
    assert "SyntaxError" in (await app.reload("alive")).off
    assert not app.plugins.all["alive"].off and heard.rest() == []
    other.unlink()
    with pytest.raises(PluginError, match="No plugin other"):
        await app.reload("other")
    assert await heard.next() == "ends 2"
    alive(3)
    assert not (await app.reload("alive")).off
    assert await heard.times(2) == ["ends 1", "begins 3"]


async def test_run_ends_when_another_hook_has_failed_too_often(
    start: Start, heard: Heard
) -> None:
    app = await start(bad=ALIVE)
    assert await heard.next() == "begins 1"
    for _ in range(5):
        await app.plugins.call("answer_job", job=make_job())
    assert app.plugins.all["bad"].off
    assert await heard.next() == "ends 1"


async def test_run_is_put_back_when_the_tables_of_the_new_version_cannot_be_made(
    start: Start, heard: Heard, alive: Alive
) -> None:
    app = await start(alive=ALIVE)
    assert await heard.next() == "begins 1"
    with alive(2).open("a") as file:
        file.write("\n@hookimpl\ndef register_tables(): return ['CREATE TABLE (']\n")
    assert "cannot be made" in (await app.reload("alive")).off
    assert not app.plugins.all["alive"].off
    await app.stop()
    assert heard.rest() == ["ends 1", "begins 1", "ends 1"]


async def test_reload_exchanges_the_commands_too(
    start: Start, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await start(alive=ALIVE)

    async def install(plugin: Any) -> None:
        heard.put_nowait(f"install {plugin.stem}")

    async def uninstall(stem: str) -> None:
        heard.put_nowait(f"uninstall {stem}")

    monkeypatch.setattr(app.client, "install", install)
    monkeypatch.setattr(app.client, "uninstall", uninstall)
    await heard.next()
    await app.reload("alive")
    assert await heard.times(4) == [
        *("ends 1", "uninstall alive", "install alive", "begins 1"),
    ]


# What it has started


@pytest.mark.parametrize("end", ["reload", "switch off", "stop"])
@pytest.mark.parametrize("way", ["run", "hook", "task", "group", "timer"])
async def test_task_that_a_plugin_started_ends_with_it(
    start: Start, heard: Heard, write_plugin: WritePlugin, way: str, end: str
) -> None:
    app = await start(**{way: BY_A_HOOK if way == "hook" else STARTS})
    await app.plugins.call("answer_job", job=make_job())
    assert await heard.next() == f"{way} begins"
    if end == "reload":
        write_plugin(way, "")
        await app.reload(way)
    elif end == "switch off":
        app.plugins.switch_off(way, "enough")
    else:
        await app.stop()
    assert await heard.next() == f"{way} ends"
    assert heard.empty()


@pytest.mark.parametrize("module", ["work", "_work"])
async def test_task_of_a_folder_plugins_own_module_ends_with_it(
    start: Start, heard: Heard, tmp_path: Path, module: str
) -> None:
    folder = tmp_path / "plugins" / "busy"
    shutil.copytree(PLUGINS / "starts_in_a_folder", folder)
    (folder / "work.py").rename(folder / f"{module}.py")
    edit(folder / "__init__.py", ".work", f".{module}")
    app = await start()
    assert await heard.next() == "busy begins"
    app.plugins.switch_off("busy", "enough")
    assert await heard.next() == "busy ends"


async def test_task_of_another_plugin_goes_on(start: Start, heard: Heard) -> None:
    app = await start(one=STARTS, two=STARTS)
    assert sorted(await heard.times(2)) == ["one begins", "two begins"]
    await app.reload("one")
    assert await heard.times(2) == ["one ends", "one begins"]
    assert heard.empty()


async def test_task_started_with_a_library_belongs_to_the_plugin(
    start: Start, heard: Heard
) -> None:
    app = await start(library=STARTS)
    assert await heard.next() == "library begins"
    app.plugins.switch_off("library", "enough")
    assert await heard.next() == "library ends"


# One that fails


@pytest.mark.parametrize(
    "fault", ["fail", "exit", "be cancelled", "refuse", "fail the job", "time out"]
)
async def test_run_that_fails_is_logged_counted_and_started_again_until_it_is_off(
    start: Start, heard: Heard, logged: list[str], fault: str
) -> None:
    app = await start({"bad__does": fault}, bad=RUNS, alive=ALIVE)
    assert sorted(await heard.times(6)) == [*["bad"] * 5, "begins 1"]
    async with asyncio.timeout(60):
        while not app.plugins.all["bad"].off:
            await asyncio.sleep(0)
    assert app.plugins.all["bad"].off.startswith("run failed too often: ")
    assert sum("ERROR plugin bad failed in run" in line for line in logged) == 5
    await app.stop()
    assert heard.rest() == ["ends 1"]


async def test_run_is_started_again_only_after_a_while(
    start: Start, heard: Heard, add_plugin: AddPlugin
) -> None:
    app = await start({"bad__does": "fail"}, run_again_s=3600)
    add_plugin(RUNS, "bad")
    bad = await app.reload("bad")
    assert await heard.next() == "bad"
    async with asyncio.timeout(60):
        while not bad.failures:
            await asyncio.sleep(0)
    assert bad.failures == {"run": 1} and not bad.off and heard.empty()
    await app.reload("bad")
    assert await heard.next() == "bad", "a reload does not wait"


async def test_failures_of_a_run_that_is_well_in_between_are_not_counted(
    start: Start, heard: Heard
) -> None:
    app = await start({"bad__does": "fail after=0.02"}, 0.001, bad=RUNS)
    await heard.times(8)
    assert not app.plugins.all["bad"].off


async def test_run_that_fails_too_often_leaves_the_checks_of_its_plugin(
    start: Start, heard: Heard, logged: list[str]
) -> None:
    rule = PLUGINS / "runs_and_checks.py"
    app = await start({"rule__does": "fail"}, rule=rule)
    await heard.times(5)
    async with asyncio.timeout(60):
        while "run" in app.plugins.all["rule"].hooks:
            await asyncio.sleep(0)
    assert any("run of plugin rule is switched off" in line for line in logged)
    with pytest.raises(Refused, match="no"):
        await app.plugins.call("check_job", job=make_job())
    assert not app.plugins.all["rule"].off


async def test_fault_while_it_ends_is_no_failure_of_the_stop(
    start: Start, heard: Heard, add_plugin: AddPlugin
) -> None:
    app = await start({"bad__how": "with a fault"}, alive=ALIVE)
    add_plugin(ENDS, "bad")
    await app.reload("bad")
    await heard.times(2)
    try:
        await app.stop()
    finally:
        app.let_go.set()
    assert heard.rest() == ["ends 1"], "and nothing has begun again"


async def test_hook_at_work_on_a_job_goes_on_while_its_plugin_is_reloaded(
    start: Start, heard: Heard, write_plugin: WritePlugin
) -> None:
    app = await start(busy=BY_A_HOOK)
    app.gate = asyncio.Event()
    two = make_job(url="two")
    working = asyncio.create_task(app.plugins.call_first("answer_job", job=two))
    assert await heard.next() == "begins"
    write_plugin("busy", "")
    assert not (await app.reload("busy")).off
    app.gate.set()
    assert await working == "ab"


# One that does not let go


@pytest.mark.parametrize("end", ["stop", "reload"])
async def test_run_that_swallows_its_cancellation_does_not_hold_up_the_bot(
    start: Start,
    heard: Heard,
    logged: list[str],
    add_plugin: AddPlugin,
    write_plugin: WritePlugin,
    end: str,
) -> None:
    app = await start(alive=ALIVE)
    app.end_within_s = 0.1
    add_plugin(ENDS, "stubborn")
    await app.reload("stubborn")
    await heard.times(2)
    try:
        async with asyncio.timeout(60):
            if end == "stop":
                await app.stop()
            else:
                write_plugin("stubborn", "")
                await app.reload("stubborn")
    finally:
        app.let_go.set()
    assert "no" in heard.rest()
    assert "ERROR plugin stubborn did not stop; restart the bot" in logged


async def test_tasks_that_swallow_their_cancellation_end_together(
    start: Start, heard: Heard, add_plugin: AddPlugin
) -> None:
    app = await start()
    app.end_within_s = 1
    for number in range(8):
        add_plugin(ENDS, f"stubborn{number}")
        await app.reload(f"stubborn{number}")
    await heard.times(8)
    began_s = time.monotonic()
    try:
        await app.stop()
        took_s = time.monotonic() - began_s
    finally:
        app.let_go.set()
    assert took_s < 7, "one after the other"


async def test_plugin_that_reloads_itself_has_one_life_after_it(
    start: Start, heard: Heard, alive: Alive
) -> None:
    app = await start(alive=PLUGINS / "reloads_itself.py")
    alive(2)
    assert await heard.times(2) == ["begins 1", "begins 2"]
    await app.stop()
    assert heard.rest() == ["ends 2"]
