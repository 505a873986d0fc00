"""run(): a plugin's life. It starts with the app, and ends with it, at a reload, and when
the plugin goes off; so does everything that the plugin has started."""

import asyncio
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import SmallApp, WritePlugin, make_job

from bossbot import App, PluginError, Refused

IMPORTS = """\
import asyncio
from bossbot import *
"""
# Says when it begins and ends; `version` tells one load from another.
ALIVE = """
@hookimpl
async def run(app):
    await said(app, "begins {version}")
    try:
        await asyncio.Event().wait()
    finally:
        await said(app, "ends {version}")

async def said(app, what):
    app.heard.put_nowait(what)
"""


class Heard(asyncio.Queue[str]):
    """What the plugins under test said, in order."""

    async def next(self) -> str:
        async with asyncio.timeout(60):
            return await self.get()

    async def times(self, count: int) -> list[str]:
        return [await self.next() for _ in range(count)]

    def rest(self) -> list[str]:
        return [self.get_nowait() for _ in range(self.qsize())]


Start = Callable[..., Any]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def write(write_plugin: WritePlugin) -> Callable[[str, str], Path]:
    """Writes a plugin of the owner's."""
    return lambda name, code: write_plugin(name, IMPORTS + textwrap.dedent(code))


@pytest.fixture
def start(
    small_app: SmallApp, write: Callable[[str, str], Path], heard: Heard
) -> Start:
    """Starts an app with plugins given as name=code, which tell `app.heard`."""

    async def start(run_again_s: float = 0.03, **codes: str) -> App:
        for name, code in codes.items():
            write(name, code)
        app = small_app()
        app.heard = heard  # type: ignore[attr-defined]
        app.run_again_s = run_again_s
        app.end_within_s = 60
        await app.start()
        return app

    return start


# Start and stop


async def test_run_begins_with_the_app_and_ends_with_it(
    start: Start, heard: Heard
) -> None:
    app = await start(alive=ALIVE.format(version=1))
    assert await heard.next() == "begins 1"
    assert heard.empty()
    await app.stop()
    assert heard.rest() == ["ends 1"]


async def test_run_does_not_begin_when_a_command_only_loads_the_plugins(
    small_app: SmallApp, write: Callable[[str, str], Path], heard: Heard
) -> None:
    write("alive", ALIVE.format(version=1))
    app = small_app()
    app.heard = heard  # type: ignore[attr-defined]
    await app.reload("alive")
    await app.stop()
    assert heard.empty()


async def test_run_may_ask_for_app_config_and_settings(
    start: Start, heard: Heard
) -> None:
    code = """
        class Config(PluginConfig):
            word: str = "hello"

        @hookimpl
        async def run(settings, app, config):
            app.heard.put_nowait(f"{config.word} {settings.max_items}")
        """
    await start(asks=code)
    assert await heard.next() == "hello 50"


async def test_run_has_every_part_when_it_begins(start: Start, heard: Heard) -> None:
    code = """
        @hookimpl
        async def run(app):
            await app.facts.set("a", "1")
            job = Job(id="aa", url="https://a.example/", request_key="k")
            app.heard.put_nowait(f"{await app.facts.get('a')} {await app.queue.add(job)}")
        """
    await start(asks=code)
    assert await heard.next() == "1 0"


async def test_run_that_returns_is_not_started_again(
    start: Start, heard: Heard
) -> None:
    code = "@hookimpl\nasync def run(app): app.heard.put_nowait('once')"
    app = await start(once=code, alive=ALIVE.format(version=1))
    assert sorted(await heard.times(2)) == ["begins 1", "once"]
    await app.stop()
    assert heard.rest() == ["ends 1"]
    assert not app.plugins.all["once"].failures


async def test_run_hears_of_the_stop_while_the_parts_still_work(
    start: Start, heard: Heard
) -> None:
    code = """
        @hookimpl
        async def run(app):
            app.heard.put_nowait("begins")
            try:
                await asyncio.Event().wait()
            finally:
                await app.facts.set("a", "kept")
                app.heard.put_nowait(await app.facts.get("a"))
        """
    app = await start(last=code)
    await heard.next()
    await app.stop()
    assert heard.rest() == ["kept"]


# Reload and switch-off


async def test_run_of_a_reloaded_plugin_is_the_only_one(
    start: Start, heard: Heard, write: Callable[[str, str], Path]
) -> None:
    app = await start(alive=ALIVE.format(version=1))
    assert await heard.next() == "begins 1"
    for version in (2, 3, 4):
        write("alive", ALIVE.format(version=version))
        assert not (await app.reload("alive")).off
        assert await heard.times(2) == [f"ends {version - 1}", f"begins {version}"]
    await asyncio.gather(app.reload("alive"), app.reload("alive"))
    await app.stop()
    lines = heard.rest()
    assert lines.count("ends 4") == lines.count("begins 4") + 1, "of the one before"


async def test_run_of_a_new_file_begins_when_it_is_loaded(
    start: Start, heard: Heard, write: Callable[[str, str], Path]
) -> None:
    app = await start()
    write("alive", ALIVE.format(version=1))
    await app.reload("alive")
    assert await heard.next() == "begins 1"


async def test_run_goes_on_when_the_new_version_is_broken_and_ends_with_the_file(
    start: Start, heard: Heard, write: Callable[[str, str], Path]
) -> None:
    app = await start(alive=ALIVE.format(version=1), other=ALIVE.format(version=2))
    assert sorted(await heard.times(2)) == ["begins 1", "begins 2"]
    write("alive", "def broken(:")
    assert "SyntaxError" in (await app.reload("alive")).off
    assert not app.plugins.all["alive"].off and heard.rest() == []
    write("other", "").unlink()
    with pytest.raises(PluginError, match="No plugin other"):
        await app.reload("other")
    assert await heard.next() == "ends 2"
    write("alive", ALIVE.format(version=3))
    assert not (await app.reload("alive")).off
    assert await heard.times(2) == ["ends 1", "begins 3"]


async def test_run_ends_when_another_hook_has_failed_too_often(
    start: Start, heard: Heard
) -> None:
    code = ALIVE.format(version=1) + "@hookimpl\nasync def answer_job(): 1 / 0\n"
    app = await start(bad=code)
    assert await heard.next() == "begins 1"
    for _ in range(5):
        await app.plugins.call("answer_job", job=make_job())
    assert app.plugins.all["bad"].off
    assert await heard.next() == "ends 1"


async def test_run_is_put_back_when_the_tables_of_the_new_version_cannot_be_made(
    start: Start, heard: Heard, write: Callable[[str, str], Path]
) -> None:
    app = await start(alive=ALIVE.format(version=1))
    assert await heard.next() == "begins 1"
    tables = "@hookimpl\ndef register_tables(): return ['CREATE TABLE (']\n"
    write("alive", ALIVE.format(version=2) + tables)
    assert "cannot be made" in (await app.reload("alive")).off
    assert not app.plugins.all["alive"].off
    await app.stop()
    assert heard.rest() == ["ends 1", "begins 1", "ends 1"]


async def test_reload_exchanges_the_commands_too(
    start: Start, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await start(alive=ALIVE.format(version=1))

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

STARTS = """
{imports}

async def work(app, name):
    app.heard.put_nowait(f"{{name}} begins")
    try:
        await asyncio.Event().wait()
    finally:
        app.heard.put_nowait(f"{{name}} ends")

{start}
"""
BY_RUN = """
@hookimpl
async def run(app):
    app.work = asyncio.create_task(work(app, "task"))
"""
BY_A_HOOK = """
@hookimpl
async def answer_job(app):
    app.work = asyncio.create_task(work(app, "task"))
"""
BY_A_TASK = """
async def first(app):
    app.work = asyncio.create_task(work(app, "task"))

@hookimpl
async def run(app):
    app.first = asyncio.create_task(first(app))
"""
BY_A_GROUP = """
@hookimpl
async def run(app):
    async with asyncio.TaskGroup() as group:
        group.create_task(work(app, "task"))
"""
BY_A_TIMER = """
def later(app):
    app.work = asyncio.ensure_future(work(app, "task"))

@hookimpl
async def run(app):
    asyncio.get_running_loop().call_later(0.001, later, app)
"""
WAYS = {
    "run": BY_RUN,
    "a hook": BY_A_HOOK,
    "a task": BY_A_TASK,
    "a group": BY_A_GROUP,
    "a timer": BY_A_TIMER,
}


@pytest.mark.parametrize("end", ["reload", "switch off", "stop"])
@pytest.mark.parametrize("way", WAYS)
async def test_task_that_a_plugin_started_ends_with_it(
    start: Start,
    heard: Heard,
    write: Callable[[str, str], Path],
    way: str,
    end: str,
) -> None:
    code = STARTS.format(imports="", start=textwrap.dedent(WAYS[way]))
    app = await start(busy=code)
    await app.plugins.call("answer_job", job=make_job())
    assert await heard.next() == "task begins"
    if end == "reload":
        write("busy", "")
        await app.reload("busy")
    elif end == "switch off":
        app.plugins.switch_off("busy", "enough")
    else:
        await app.stop()
    assert await heard.next() == "task ends"
    assert heard.empty()


@pytest.mark.parametrize("module", ["work", "_work"])
async def test_task_of_a_folder_plugins_own_module_ends_with_it(
    start: Start,
    heard: Heard,
    write: Callable[[str, str], Path],
    tmp_path: Path,
    module: str,
) -> None:
    folder = tmp_path / "plugins" / "busy"
    folder.mkdir(parents=True)
    nested = STARTS.format(imports=IMPORTS, start=BY_A_TASK).replace("@hookimpl", "")
    (folder / f"{module}.py").write_text(nested)
    (folder / "__init__.py").write_text(
        f"from bossbot import hookimpl\nfrom .{module} import run as start\n"
        "@hookimpl\nasync def run(app):\n    await start(app)\n"
    )
    app = await start()
    assert await heard.next() == "task begins"
    app.plugins.switch_off("busy", "enough")
    assert await heard.next() == "task ends"


async def test_task_of_another_plugin_goes_on(start: Start, heard: Heard) -> None:
    codes = {
        name: STARTS.format(imports="", start=BY_RUN).replace('"task"', f'"{name}"')
        for name in ("one", "two")
    }
    app = await start(**codes)
    assert sorted(await heard.times(2)) == ["one begins", "two begins"]
    await app.reload("one")
    assert await heard.times(2) == ["one ends", "one begins"]
    assert heard.empty()


async def test_task_started_with_a_library_belongs_to_the_plugin(
    start: Start, heard: Heard, write: Callable[[str, str], Path]
) -> None:
    library = """
        def begin(work):
            return asyncio.create_task(work)
        """
    write("_begin", library)
    code = STARTS.format(
        imports="from bossbot_plugins._begin import begin",
        start=BY_RUN.replace("asyncio.create_task", "begin"),
    )
    app = await start(busy=code)
    assert await heard.next() == "task begins"
    app.plugins.switch_off("busy", "enough")
    assert await heard.next() == "task ends"


# One that fails

FAILS = """
@hookimpl
async def run(app):
    app.heard.put_nowait("again")
    {fault}
"""


@pytest.mark.parametrize(
    "fault",
    [
        "1 / 0",
        "raise SystemExit(3)",
        "raise asyncio.CancelledError",
        "raise Refused('no')",
        "raise JobFailed(Cause.AGE)",
        "await asyncio.wait_for(asyncio.Event().wait(), 0.001)",
    ],
)
async def test_run_that_fails_is_logged_counted_and_started_again_until_it_is_off(
    start: Start, heard: Heard, logged: list[str], fault: str
) -> None:
    app = await start(bad=FAILS.format(fault=fault), alive=ALIVE.format(version=1))
    assert sorted(await heard.times(6)) == [*["again"] * 5, "begins 1"]
    async with asyncio.timeout(60):
        while not app.plugins.all["bad"].off:
            await asyncio.sleep(0)
    assert app.plugins.all["bad"].off.startswith("run failed too often: ")
    assert sum("ERROR plugin bad failed in run" in line for line in logged) == 5
    await app.stop()
    assert heard.rest() == ["ends 1"]


async def test_run_is_started_again_only_after_a_while(
    start: Start, heard: Heard
) -> None:
    app = await start(run_again_s=3600)
    (app.settings.plugins_dir / "bad.py").write_text(
        IMPORTS + FAILS.format(fault="1 / 0")
    )
    bad = await app.reload("bad")
    assert await heard.next() == "again"
    async with asyncio.timeout(60):
        while not bad.failures:
            await asyncio.sleep(0)
    assert bad.failures == {"run": 1} and not bad.off and heard.empty()
    await app.reload("bad")
    assert await heard.next() == "again", "a reload does not wait"


async def test_failures_of_a_run_that_is_well_in_between_are_not_counted(
    start: Start, heard: Heard
) -> None:
    code = FAILS.format(fault="await asyncio.sleep(0.02); 1 / 0")
    app = await start(bad=code, run_again_s=0.001)
    await heard.times(8)
    assert not app.plugins.all["bad"].off


async def test_run_that_fails_too_often_leaves_the_checks_of_its_plugin(
    start: Start, heard: Heard, logged: list[str]
) -> None:
    check = "@hookimpl\nasync def check_job(job): raise Refused('no')\n"
    app = await start(rule=check + FAILS.format(fault="1 / 0"))
    await heard.times(5)
    async with asyncio.timeout(60):
        while "run" in app.plugins.all["rule"].hooks:
            await asyncio.sleep(0)
    assert any("run of plugin rule is switched off" in line for line in logged)
    with pytest.raises(Refused, match="no"):
        await app.plugins.call("check_job", job=make_job())
    assert not app.plugins.all["rule"].off


async def test_fault_while_it_ends_is_no_failure_of_the_stop(
    start: Start, heard: Heard, write: Callable[[str, str], Path]
) -> None:
    code = """
        @hookimpl
        async def run(app):
            app.heard.put_nowait("begins")
            try:
                await app.ends.wait()
            finally:
                1 / 0
        """
    app = await start(alive=ALIVE.format(version=1))
    app.ends = asyncio.Event()
    write("bad", code)
    await app.reload("bad")
    await heard.times(2)
    try:
        await app.stop()
    finally:
        app.ends.set()
    assert heard.rest() == ["ends 1"], "and nothing has begun again"


async def test_hook_at_work_on_a_job_goes_on_while_its_plugin_is_reloaded(
    start: Start, heard: Heard, write: Callable[[str, str], Path]
) -> None:
    code = """
        async def part(app, name):
            await app.gate.wait()
            return name

        @hookimpl
        async def answer_job(app):
            app.heard.put_nowait("begins")
            async with asyncio.TaskGroup() as group:
                parts = [group.create_task(part(app, name)) for name in ("a", "b")]
            return "".join(task.result() for task in parts)
        """
    app = await start(busy=code)
    app.gate = asyncio.Event()
    working = asyncio.create_task(app.plugins.call_first("answer_job", job=make_job()))
    assert await heard.next() == "begins"
    write("busy", "")
    assert not (await app.reload("busy")).off
    app.gate.set()
    assert await working == "ab"


# One that does not let go

STUBBORN = """
@hookimpl
async def run(app):
    app.heard.put_nowait("begins")
    while not app.let_go.is_set():  # until the test has seen enough
        try:
            await app.let_go.wait()
        except asyncio.CancelledError:
            app.heard.put_nowait("no")
"""


@pytest.mark.parametrize("end", ["stop", "reload"])
async def test_run_that_swallows_its_cancellation_does_not_hold_up_the_bot(
    start: Start,
    heard: Heard,
    logged: list[str],
    write: Callable[[str, str], Path],
    end: str,
) -> None:
    app = await start(alive=ALIVE.format(version=1))
    app.let_go = asyncio.Event()
    app.end_within_s = 0.1
    write("stubborn", STUBBORN)
    await app.reload("stubborn")
    await heard.times(2)
    try:
        async with asyncio.timeout(60):
            if end == "stop":
                await app.stop()
            else:
                write("stubborn", "")
                await app.reload("stubborn")
    finally:
        app.let_go.set()
    assert "no" in heard.rest()
    assert "ERROR plugin stubborn did not stop; restart the bot" in logged


async def test_tasks_that_swallow_their_cancellation_end_together(
    start: Start, heard: Heard, write: Callable[[str, str], Path]
) -> None:
    app = await start()
    app.let_go = asyncio.Event()
    app.end_within_s = 1
    for number in range(8):
        write(f"stubborn{number}", STUBBORN)
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
    start: Start, heard: Heard, write: Callable[[str, str], Path]
) -> None:
    app = await start(
        alive="""
        @hookimpl
        async def run(app):
            app.heard.put_nowait("begins 1")
            while app.heard.qsize():
                await asyncio.sleep(0)
            await app.reload("alive")
        """
    )
    write("alive", ALIVE.format(version=2))
    assert await heard.times(2) == ["begins 1", "begins 2"]
    await app.stop()
    assert heard.rest() == ["ends 2"]
