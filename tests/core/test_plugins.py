"""The plugins: load, order, call; a bad one is off and the rest run."""

import ast
import asyncio
import json
import re
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Home, MakeSettings, WritePlugin

import bossbot
from bossbot import HOOKS, Hooks, Job, JobFailed, App, Plugins, Refused, StartError

IMPORTS = """\
import asyncio, threading
from bossbot import Cause, Engine, JobFailed, Platform, PluginConfig, Refused
from bossbot import Subcommand, hookimpl
"""
GOOD = """
@hookimpl
async def answer_job(job):
    return "good"
"""
SITE = """
@hookimpl
def register_platforms():
    return [Platform("{name}", r"https://{name}\\.", "https://{name}.example", "e")]
"""
PLATFORM = """
@hookimpl
def register_platforms():
    return [Platform("x", r"{}", "https://y.example", "e")]
"""
NO_DEFAULT = """
class Guild(PluginConfig):
    a: int

@hookimpl
def register_guild_settings():
    return Guild
"""

Load = Callable[..., Plugins]


@pytest.fixture
def load(make_settings: MakeSettings, write_plugin: WritePlugin) -> Load:
    """Loads plugins given as name=code; ``settings`` holds more settings."""

    def load(settings: dict[str, Any] | None = None, **codes: str) -> Plugins:
        for name, code in codes.items():
            path = write_plugin(name, IMPORTS + textwrap.dedent(code))
        plugins = Plugins(make_settings(plugins_dir=path.parent, **(settings or {})))
        plugins.load()
        return plugins

    return load


def a_job() -> Job:
    return Job("00000000aa", "https://a.example/", "", "e", 1, 2, 3, "k")


async def answers(plugins: Plugins) -> list[Any]:
    return await plugins.call("answer_job", job=a_job())


# A bad plugin is off


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import sys; sys.exit()", "SystemExit"),
        ("def broken(:", "SyntaxError"),
        ("import no_such_module_at_all", "no_such_module_at_all"),
        ("\0", "null bytes"),
        ("@hookimpl\nasync def chek_job(job): ...", "did you mean check_job?"),
        ("@hookimpl\nasync def whatever(job): ...", "no hook whatever()"),
        ("async def check_job(job): ...", "put @hookimpl above it"),
        (
            "@hookimpl(wrapper=True)\ndef check_job(job):\n    yield",
            "hook wrappers are not supported",
        ),
        (
            "@hookimpl(hookwrapper=True)\ndef check_job(job):\n    yield",
            "hook wrappers are not supported",
        ),
        ("@hookimpl\nasync def check_job(job, colour): ...", "colour"),
        ("@hookimpl\ndef register_platforms(): 1 / 0", "ZeroDivisionError"),
        ("@hookimpl\ndef register_platforms(): return None", "TypeError"),
        (PLATFORM.format(r"https://x\."), "x: the pattern misses the example"),
        (PLATFORM.format("https://("), "unterminated"),
        (NO_DEFAULT, "Field required"),
        ("@hookimpl\ndef register_guild_settings(): return dict", "PluginConfig"),
    ],
)
async def test_bad_plugin_is_off_and_the_rest_run(
    load: Load, logged: list[str], code: str, reason: str
) -> None:
    plugins = load(bad=code, good=GOOD, zeta=GOOD)
    assert reason in plugins.all["bad"].off
    assert plugins.all["bad"].hooks == []
    assert await answers(plugins) == ["good", "good"]
    assert any(line.startswith("ERROR bad is off") for line in logged)


async def test_hookimpl_imported_from_elsewhere_turns_the_importer_off(
    load: Load,
) -> None:
    plugins = load(a=GOOD, b="from bossbot_plugins.a import answer_job")
    assert "answer_job() is imported from another module" in plugins.all["b"].off
    assert await answers(plugins) == ["good"]


async def test_failing_registration_is_rolled_back_whole(load: Load) -> None:
    code = SITE.format(name="x") + "@hookimpl\ndef register_engines(): 1 / 0\n" + GOOD
    plugins = load(bad=code, good=GOOD)
    assert plugins.registered("platforms") == {}
    assert await answers(plugins) == ["good"]


ENGINE = """
@hookimpl
def register_engines():
    return [Engine("same", str, list, bool, print)]
"""
COMMAND = """
@hookimpl
def register_subcommands():
    return [Subcommand("same", "help", print)]
"""


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("platforms", SITE.format(name="same")),
        ("engines", ENGINE),
        ("subcommands", COMMAND),
    ],
)
def test_second_of_one_name_turns_its_plugin_off(
    load: Load, kind: str, code: str
) -> None:
    other = "\n@hookimpl\ndef register_guild_settings(): return PluginConfig\n"
    plugins = load(a=code, b=code + other)
    assert plugins.all["a"].off == ""
    assert "'same'" in plugins.all["b"].off
    assert list(plugins.registered(kind)) == ["same"]
    assert plugins.all["b"].guild_settings is None


def test_two_of_one_name_in_one_plugin_turn_it_off(load: Load) -> None:
    code = """
        @hookimpl
        def register_platforms():
            same = Platform("same", r"https://x", "https://x", "e")
            return [same, same]
        """
    assert "'same'" in load(a=code).all["a"].off


def test_missing_folder_says_what_to_do(make_settings: MakeSettings) -> None:
    folder = ROOT / "no-such-plugins"
    with pytest.raises(StartError, match="plugins_dir") as caught:
        Plugins(make_settings(plugins_dir=folder)).load()
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["_draft", ".#x", "._x"])
def test_drafts_and_hidden_files_are_no_plugins(load: Load, name: str) -> None:
    assert list(load(**{name: "1 / 0", "good": GOOD}).all) == ["good"]


async def test_disabled_plugin_does_not_even_run(load: Load) -> None:
    plugins = load({"disabled_plugins": ["a"]}, a="1 / 0", b=GOOD)
    assert plugins.all["a"].off == "disabled in the settings"
    assert await answers(plugins) == ["good"]


def test_plugin_shadows_no_module_of_its_name(bare_home: Home) -> None:
    for name in ("queue", "yt_dlp", "logging", "bossbot"):
        shown = f"{name}_shadow"
        bare_home.plugin(
            name,
            "import argparse\nfrom bossbot import Subcommand, hookimpl\n"
            "async def show(app, args):\n"
            "    import queue, yt_dlp, logging, bossbot\n"
            "    print(*(m.__file__ for m in (queue, yt_dlp, logging, bossbot)))\n"
            "    return 0\n"
            "@hookimpl\ndef register_subcommands():\n"
            f"    return [Subcommand('{shown}', '', show)]\n",
        )
    done = bare_home.run("queue_shadow")
    assert done.returncode == 0, done.stderr
    assert str(bare_home.path / "plugins") not in done.stdout
    assert done.stdout.split()[-1] == str(bare_home.path / "bossbot.py")


def test_plugin_and_core_share_one_module(bare_home: Home) -> None:
    bare_home.plugin(
        "same",
        "import __main__, bossbot, sys\nfrom bossbot import Subcommand, hookimpl\n"
        "async def show(app, args):\n"
        "    print(isinstance(app, bossbot.App), __name__)\n"
        "    return 0\n"
        "@hookimpl\ndef register_subcommands():\n"
        "    return [Subcommand('same', '', show)]\n",
    )
    assert bare_home.run("same").stdout == "True bossbot_plugins.same\n"


def test_command_whose_arguments_fail_takes_nothing_down(bare_home: Home) -> None:
    bare_home.plugin(
        "bad",
        "from bossbot import Subcommand, hookimpl\n"
        "def arguments(parser): 1 / 0\n"
        "@hookimpl\ndef register_subcommands():\n"
        "    return [Subcommand('bad', '', print, arguments)]\n",
    )
    done = bare_home.run("which", "ftp://x")
    assert json.loads(done.stdout.splitlines()[-1])["url"] == "ftp://x"
    assert "bad" in done.stderr and "ZeroDivisionError" in done.stderr


# A plugin's settings

CONFIG = """
class Config(PluginConfig):
    size: int = 1

@hookimpl
async def answer_job(job, config, settings):
    return (config.size, settings.max_items)
"""


async def test_plugin_gets_its_own_settings_and_those_of_the_core(load: Load) -> None:
    settings = {"plugins": {"a": {"size": 5}}, "max_items": 9}
    assert await answers(load(settings, a=CONFIG, b=CONFIG)) == [(5, 9), (1, 9)]


def test_wrong_settings_of_a_plugin_turn_it_off(load: Load) -> None:
    settings = {"plugins": {"a": {"size": "big"}, "b": {"sise": 1}, "c": {"x": 1}}}
    plugins = load(settings, a=CONFIG, b=CONFIG, c=GOOD, d=CONFIG)
    assert "[plugins.a] size: " in plugins.all["a"].off
    assert "integer" in plugins.all["a"].off
    assert "[plugins.b] sise: no such setting; did you mean size?" in (
        plugins.all["b"].off
    )
    assert "[plugins.c]" in plugins.all["c"].off
    assert plugins.all["d"].off == ""


def test_absent_plugin_that_the_settings_name_is_only_warned_of(
    load: Load, logged: list[str]
) -> None:
    settings = {"plugins": {"gone": {"x": 1}}, "disabled_plugins": ["twiter"]}
    plugins = load(settings, twitter=GOOD)
    assert plugins.all["twitter"].off == ""
    start = "WARNING the settings name a plugin"
    assert f"{start} gone that is not there" in logged
    assert f"{start} twiter that is not there; did you mean twitter?" in logged


def test_config_must_derive_from_plugin_config(load: Load) -> None:
    code = "from pydantic import BaseModel\nclass Config(BaseModel): pass"
    assert "PluginConfig" in load(a=code).all["a"].off


# The calls


async def test_order_is_tryfirst_then_name_then_trylast(load: Load) -> None:
    code = "@hookimpl{0}\nasync def answer_job(job): return '{1}'"
    plugins = load(
        a=code.format("(trylast=True)", "a"),
        b=code.format("(trylast=True)", "b"),
        c=code.format("", "c"),
        d=code.format("", "d"),
        y=code.format("(tryfirst=True)", "y"),
        z=code.format("(tryfirst=True)", "z"),
    )
    assert await answers(plugins) == ["y", "z", "c", "d", "a", "b"]


async def test_fold_gives_each_plugin_the_result_of_the_one_before(
    load: Load,
) -> None:
    add = "@hookimpl\nasync def process_files(files): return [*files, '{}']"
    plugins = load(
        a=add.format("a"),
        b="@hookimpl\ndef process_files(files): 1 / 0",
        c="@hookimpl\ndef process_files(files): pass",
        d="@hookimpl\ndef process_files(job, files): return [*files, job.id]",
    )
    values = {"job": a_job(), "files": ["x"], "app": None}
    files = await plugins.fold("process_files", "files", **values)
    assert files == ["x", "a", "00000000aa"]


async def test_first_result_ends_the_calls(load: Load) -> None:
    plugins = load(
        a="@hookimpl\nasync def answer_job(job): return None",
        b="@hookimpl\nasync def answer_job(job): return ''",
        c="@hookimpl\nasync def answer_job(job): raise AssertionError",
    )
    assert await plugins.call_first("answer_job", job=a_job()) == ""
    assert plugins.all["c"].failures == 0


@pytest.mark.parametrize("kind", ["async def", "def"])
async def test_refusal_passes_through_and_is_no_failure(load: Load, kind: str) -> None:
    plugins = load(
        a=f"@hookimpl\n{kind} check_job(job): raise Refused('not today')",
        b=f"@hookimpl\n{kind} process_files(job): raise JobFailed(Cause.AGE)",
    )
    with pytest.raises(Refused, match="not today"):
        await plugins.call("check_job", job=a_job())
    with pytest.raises(JobFailed):
        await plugins.fold("process_files", "files", job=a_job(), files=[])
    assert (plugins.all["a"].failures, plugins.all["b"].failures) == (0, 0)


@pytest.mark.parametrize("kind", ["async def", "def"])
@pytest.mark.parametrize("fault", ["1 / 0", "raise SystemExit(1)", "exit(4)"])
async def test_failure_names_the_plugin_and_the_others_answer(
    load: Load, logged: list[str], kind: str, fault: str
) -> None:
    plugins = load(bad=f"@hookimpl\n{kind} answer_job(job): {fault}", good=GOOD)
    assert await answers(plugins) == ["good"]
    assert "plugin bad failed in answer_job" in logged[-1]


@pytest.mark.parametrize(
    "body", ["await asyncio.Event().wait()", "await asyncio.sleep(3600)"]
)
async def test_hook_that_takes_too_long_is_left_behind(
    load: Load, monkeypatch: pytest.MonkeyPatch, logged: list[str], body: str
) -> None:
    monkeypatch.setitem(bossbot.HOOK_LIMITS_S, "answer_job", 0.05)
    plugins = load(a=f"@hookimpl\nasync def answer_job(job):\n    {body}", b=GOOD)
    assert await answers(plugins) == ["good"]
    assert "plugin a failed in answer_job" in logged[-1]
    assert "TimeoutError" in plugins.all["a"].off or plugins.all["a"].failures == 1


async def test_plain_hook_that_blocks_does_not_block_the_loop(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bossbot.HOOK_LIMITS_S, "answer_job", 0.05)
    code = """
        go = threading.Event()
        @hookimpl
        def answer_job(job):
            go.wait(30)
        """
    plugins = load(a=code, b=GOOD)
    assert await answers(plugins) == ["good"]
    sys.modules["bossbot_plugins.a"].go.set()


async def test_process_files_has_a_time_limit_of_its_own(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bossbot, "HOOK_LIMIT_S", 0.01)
    code = """
        @hookimpl
        async def process_files(files):
            await asyncio.sleep({})
            return [1]
        """
    plugins = load({"process_timeout_s": 0.2}, a=code.format(0.05))
    assert await plugins.fold("process_files", "files", job=1, files=[]) == [1]
    plugins = load({"process_timeout_s": 0.02}, a=code.format(30))
    assert await plugins.fold("process_files", "files", job=1, files=[]) == []


async def test_plugin_is_switched_off_after_five_failures_in_a_row(
    load: Load, logged: list[str]
) -> None:
    code = """
        calls = 0
        @hookimpl
        async def answer_job(job):
            global calls
            calls += 1
            if calls != 5:
                raise RuntimeError("again")
        """
    plugins = load(bad=SITE.format(name="x") + textwrap.dedent(code), good=GOOD)
    for _ in range(9):  # four failures, a success, four failures
        assert await answers(plugins) == ["good"]
    assert plugins.all["bad"].off == ""
    assert await answers(plugins) == ["good"]
    assert "answer_job failed too often: RuntimeError: again" in (
        plugins.all["bad"].off
    )
    assert "plugin bad is switched off" in logged[-1]
    assert await answers(plugins) == ["good"]
    assert sys.modules["bossbot_plugins.bad"].calls == 10
    assert plugins.registered("platforms") == {}


async def test_plain_hook_runs_in_a_thread_and_async_hook_in_the_loop(
    load: Load,
) -> None:
    body = "return threading.current_thread().name"
    plugins = load(
        a=f"@hookimpl\ndef answer_job(job): {body}",
        b=f"@hookimpl\nasync def answer_job(job): {body}",
    )
    plain, coroutine = await answers(plugins)
    assert plain != coroutine == threading.current_thread().name


def test_registration_at_start_switches_a_failing_plugin_off(load: Load) -> None:
    code = "@hookimpl\ndef register_commands(bot): "
    plugins = load(a=code + "return [1]", b=code + "1 / 0", c=code + "return [3]")
    found = [
        (p.stem, answer)
        for p, answer in plugins.call_with_owner("register_commands", bot=None)
    ]
    assert found == [("a", [1]), ("c", [3])]
    assert "ZeroDivisionError" in plugins.all["b"].off


# Loading again


async def test_reload_replaces_what_was_registered_whole(
    load: Load, write_plugin: WritePlugin
) -> None:
    plugins = load(a=SITE.format(name="x") + GOOD, b=GOOD)
    path = write_plugin("a", IMPORTS + SITE.format(name="y"))
    assert plugins.load_file(path).off == ""
    assert list(plugins.registered("platforms")) == ["y"]
    assert await answers(plugins) == ["good"]
    plugins.load_file(path)  # its own name is no duplicate
    assert list(plugins.registered("platforms")) == ["y"]


async def test_reload_of_a_broken_file_takes_everything_back_until_mended(
    load: Load, write_plugin: WritePlugin
) -> None:
    plugins = load(a=SITE.format(name="x") + GOOD)
    path = write_plugin("a", "def broken(:")
    assert "SyntaxError" in plugins.load_file(path).off
    assert (plugins.registered("platforms"), await answers(plugins)) == ({}, [])
    write_plugin("a", IMPORTS + GOOD)
    assert plugins.load_file(path).off == ""
    assert await answers(plugins) == ["good"]


# The parts

PARTS = {
    "register_router": "router",
    "register_runner": "runner",
    "register_storage": "storage",
    "register_db": "db",
    "register_queue": "queue",
    "register_worker": "worker",
    "register_courier": "courier",
}
PART = """
@hookimpl{order}
def {hook}(app):
    {answer}
"""


def part(hook: str, answer: str, order: str = "") -> str:
    return PART.format(hook=hook, answer=answer, order=order)


@pytest.mark.parametrize("hook", PARTS)
def test_part_of_the_host_takes_the_place_of_the_default(load: Load, hook: str) -> None:
    plugins = load(
        a=part(hook, "return 'the default'", "(trylast=True)"),
        b=part(hook, "return None"),
        c=part(hook, "1 / 0"),
        d=part(hook, "return 'the host\\'s'"),
    )
    app = App(plugins.settings, plugins)
    assert getattr(app, PARTS[hook]) == "the host's"
    assert plugins.all["c"].off and not plugins.all["b"].off
    plugins.switch_off("d", "gone")
    assert getattr(app, PARTS[hook]) == "the host's", "it is made once"
    other = App(plugins.settings, plugins)
    assert getattr(other, PARTS[hook]) == "the default"


@pytest.mark.parametrize("hook", PARTS)
def test_missing_part_is_named(load: Load, hook: str) -> None:
    plugins = load(a=GOOD)
    with pytest.raises(StartError, match=hook):
        getattr(App(plugins.settings, plugins), PARTS[hook])


def test_pipeline_has_no_parts_but_these() -> None:
    assert [*App.__annotations__] == [*PARTS.values()]


# The hooks


def test_every_hook_has_a_test() -> None:
    tests = [
        path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py")
    ]
    assert [
        h for h in HOOKS if not any(f"{h}(" in t or f'"{h}"' in t for t in tests)
    ] == []


def test_every_hook_is_in_the_readme_and_says_what_to_return() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert len(HOOKS) == 24
    for name in HOOKS:
        assert f"`{name}(" in readme, f"{name} is not in the README's table"
        text = vars(Hooks)[name].__doc__
        assert text.startswith(("Return ", "Raise ")), name
        assert text.strip().endswith("."), name
    documented = set(re.findall(r"^\| `(\w+)\(", readme, re.MULTILINE))
    assert {name for name in documented if "_" in name} == set(HOOKS)


def test_readmes_table_has_the_arguments_of_each_hook() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    for name, arguments in re.findall(
        r"^\| `(\w+)\(([\w, ]*)\)`", readme, re.MULTILINE
    ):
        code = vars(Hooks)[name].__code__
        names = code.co_varnames[1 : code.co_argcount]
        assert [a.strip() for a in arguments.split(",") if a.strip()] == list(names)


async def test_plugin_of_the_readme_works_when_pasted(load: Load) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    code = re.search(
        r"save it as `plugins/(\w+)\.py`.*?```python\n(.+?)```", readme, re.DOTALL
    )
    assert code is not None
    plugins = load(**{code[1]: "", "other": GOOD})
    path = plugins.settings.plugins_dir / f"{code[1]}.py"
    path.write_text(code[2])
    assert plugins.load_file(path).off == ""
    job = a_job()
    assert await plugins.call("check_job", job=job) == []
    job.platform = "tiktok"
    with pytest.raises(Refused, match="No TikTok"):
        await plugins.call("check_job", job=job)


def test_every_hook_is_called_somewhere() -> None:
    kinds = ("engines", "platforms", "subcommands", *App.__annotations__)
    called = {f"register_{kind}" for kind in kinds}
    for path in [ROOT / "bossbot.py", *(ROOT / "plugins").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                called |= {a.value for a in node.args if isinstance(a, ast.Constant)}
    assert set(HOOKS) - called == set()


def test_plugins_import_from_the_core_alone() -> None:
    for path in (ROOT / "plugins").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("bossbot_plugins"), path


def test_core_names_no_site_and_no_engine() -> None:
    text = (ROOT / "bossbot.py").read_text("utf-8")
    names = r"twitter|reddit|instagram|youtube|tiktok|gallery.dl|yt.dlp"
    assert not re.findall(names, text, re.IGNORECASE)


async def test_many_calls_at_once_do_not_mix(load: Load) -> None:
    plugins = load(
        a="@hookimpl\nasync def answer_job(job):\n"
        "    await asyncio.sleep(0)\n    return job.id"
    )
    jobs = [a_job() for _ in range(50)]
    for number, job in enumerate(jobs):
        job.id = str(number)
    found = await asyncio.gather(
        *(plugins.call_first("answer_job", job=job) for job in jobs)
    )
    assert found == [job.id for job in jobs]


def test_real_plugins_all_load(settings: bossbot.Settings, logged: list[str]) -> None:
    plugins = Plugins(settings)
    plugins.load()
    assert {
        plugin.stem: plugin.off for plugin in plugins.all.values()
    } == dict.fromkeys(
        sorted(path.stem for path in Path(ROOT / "plugins").glob("[!_]*.py")), ""
    )
    assert not logged


@pytest.mark.parametrize("allowed", [False, True])
def test_folder_that_anyone_may_write_to_is_refused_unless_the_host_allows_it(
    make_settings: MakeSettings, write_plugin: WritePlugin, allowed: bool
) -> None:
    folder = write_plugin("good", "").parent
    folder.chmod(0o777)
    plugins = Plugins(make_settings(plugins_dir=folder, allow_writable_plugins=allowed))
    if allowed:
        plugins.load()
        assert not plugins.all["good"].off
    else:
        with pytest.raises(StartError, match="chmod o-w"):
            plugins.load()
