"""The plugins: load, order, call; a bad one is off and the rest run."""

import ast
import asyncio
import importlib.util
import inspect
import json
import os
import re
import shlex
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from bossbot_plugins._archive import archive_of
from conftest import (
    CORE,
    ROOT,
    SUPPORT_PLUGINS,
    AddPlugin,
    Home,
    MakeSettings,
    SmallApp,
    WritePlugin,
    edit,
    make_job,
    our_plugins,
)

import bossbot
from bossbot import (
    HOOKS,
    OURS,
    PARTS,
    App,
    Hooks,
    JobFailed,
    PluginConfig,
    PluginError,
    Plugins,
    Refused,
    Settings,
    StartError,
    redact,
)

# Above the faults that are texts.
IMPORTS = """\
import asyncio
from bossbot import *
"""
PLATFORM = (
    "@hookimpl\n"
    "def register_platforms(): return [Platform('{}', r'{}', 'https://y.example', 'e')]"
)
PLUGINS = Path(__file__).parent / "plugins"
GOOD, ASKS, PART, CLOCK = (
    PLUGINS / f"{name}.py" for name in ("good", "asks", "parts", "off_the_clock")
)
REGISTERS = SUPPORT_PLUGINS / "registers.py"
# Does what a test wants: in the loop, or in a thread.
DOES = {"loop": PLUGINS / "does.py", "thread": PLUGINS / "does_in_thread.py"}
Load = Callable[..., Plugins]


@pytest.fixture
def load(
    make_settings: MakeSettings,
    add_plugin: AddPlugin,
    write_plugin: WritePlugin,
    tmp_path: Path,
) -> Load:
    """Loads the owner's plugins, given as name=file, or name=text of a fault, and none
    of ours but those that a test adds; ``settings`` holds more settings."""

    def load(settings: dict[str, Any] | None = None, **plugins: Path | str) -> Plugins:
        add_plugin(PLUGINS / "_ways.py")
        for name, plugin in plugins.items():
            if isinstance(plugin, Path):
                add_plugin(plugin, name)
            else:
                write_plugin(name, IMPORTS + plugin)
        ours = tmp_path / "ours"
        ours.mkdir(exist_ok=True)
        app = App(make_settings(**(settings or {})), ours)
        app.plugins.load()
        return app.plugins

    return load


async def answers(plugins: Plugins, url: str = "https://a.example/") -> list[Any]:
    return await plugins.call("answer_job", job=make_job(url=url))


async def processed(plugins: Plugins, url: str = "", files: Sequence[Any] = ()) -> Any:
    values = {"job": make_job(id="00000000aa", url=url), "bench": None}
    return await plugins.fold("process_files", "files", files=[*files], **values)


# A bad plugin is off


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import sys; sys.exit()", "SystemExit"),
        ("raise asyncio.CancelledError", "CancelledError"),
        ("class Panic(BaseException): ...\nraise Panic('lost')", "Panic: lost"),
        ("def broken(:", "SyntaxError"),
        ("import no_such_module_at_all", "no_such_module_at_all"),
        ("\0", "null bytes"),
        ("@hookimpl\nasync def chek_job(job): ...", "did you mean check_job?"),
        ("@hookimpl\nasync def whatever(job): ...", "no hook whatever()"),
        ("async def check_job(job): ...", "put @hookimpl above it"),
        (
            "@hookimpl(wrapper=True)\ndef check_job(job): yield",
            "hook wrappers are not supported",
        ),
        (
            "@hookimpl(hookwrapper=True)\ndef check_job(job): yield",
            "hook wrappers are not supported",
        ),
        ("@hookimpl\nasync def check_job(job, colour): ...", "colour"),
        ("@hookimpl\ndef register_platforms(): 1 / 0", "ZeroDivisionError"),
        ("@hookimpl\ndef register_platforms(): return None", "must return a list"),
        ("@hookimpl\nasync def register_tables(): return []", "a plain function"),
        ("@hookimpl\ndef register_tables(): return 'x'", "must return a list"),
        (
            "@hookimpl\ndef register_tables(): return [None]",
            "register_tables() must return a list of str",
        ),
        (
            "@hookimpl\ndef register_platforms(): return ['x']",
            "register_platforms() must return a list of Platform",
        ),
        ("@hookimpl\nasync def run(): yield", "run() must be async def, without yield"),
        ("@hookimpl\ndef check_job(jobb): ...", "did you mean job?"),
        ("API = '1'", "version 1 of the plugin API"),
        ("class GuildConfig(PluginConfig):\n    a: int", "every field needs a default"),
        (PLATFORM.format("x", r"https://x\."), "x: the pattern misses the example"),
        (PLATFORM.format("x", "https://("), "unterminated"),
        ("class Config(PluginConfig):\n    a: int", "Field required"),
        (
            "from pydantic import BaseModel\nclass Config(BaseModel): ...",
            "PluginConfig",
        ),
        ("GuildConfig = dict", "dict must derive from PluginConfig"),
        ("@hookimpl\ndef run(): ...", "run() must be async def"),
        ("API = 99", "it needs version 99 of the plugin API"),
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
    plugins = load({"bad__fails": True}, bad=REGISTERS, good=GOOD)
    assert plugins.registered("platforms") == {}
    assert await answers(plugins) == ["good"]


@pytest.mark.parametrize("kind", ["platforms", "engines", "subcommands"])
def test_second_of_one_name_turns_its_plugin_off(load: Load, kind: str) -> None:
    names = {"platforms": [], kind: ["same"]}
    plugins = load({"plugins": {"a": names, "b": names}}, a=REGISTERS, b=REGISTERS)
    assert plugins.all["a"].off == ""
    assert "'same'" in plugins.all["b"].off
    assert list(plugins.registered(kind)) == ["same"]
    assert plugins.all["b"].guild_config is PluginConfig
    assert plugins.all["b"].hooks == []


def test_two_of_one_name_in_one_plugin_turn_it_off(load: Load) -> None:
    plugins = load({"a__platforms": ["same", "same"]}, a=REGISTERS)
    assert "'same'" in plugins.all["a"].off


def test_missing_folder_says_what_to_do(make_settings: MakeSettings) -> None:
    folder = ROOT / "no-such-plugins"
    with pytest.raises(StartError, match="plugins_dir") as caught:
        App(make_settings(plugins_dir=folder)).plugins.load()
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["_draft", ".#x", "._x"])
def test_drafts_and_hidden_files_are_no_plugins(load: Load, name: str) -> None:
    assert list(load(**{name: "1 / 0", "good": GOOD}).all) == ["good"]


def test_name_with_a_dot_is_off_with_the_remedy(load: Load) -> None:
    assert "rename the file" in load(**{"my.rule": GOOD}).all["my.rule"].off


async def test_disabled_plugin_does_not_even_run(load: Load) -> None:
    plugins = load({"disabled_plugins": ["a"]}, a="1 / 0", b=GOOD)
    assert plugins.all["a"].off == "disabled in the settings"
    assert await answers(plugins) == ["good"]


def test_plugin_shadows_no_module_of_its_name(bare_home: Home) -> None:
    for name in ("queue", "yt_dlp", "logging", "bossbot"):
        bare_home.add_plugin(PLUGINS / "shadow.py", name)
    done = bare_home.run("queue_shadow")
    assert done.returncode == 0, done.stderr
    assert str(bare_home.path / "plugins") not in done.stdout
    assert done.stdout.split()[-1] == str(bare_home.path / "bossbot.py")


def test_plugin_and_core_share_one_module(bare_home: Home) -> None:
    bare_home.add_plugin(PLUGINS / "same.py")
    assert bare_home.run("same").stdout == "True bossbot_plugins.same\n"


def test_command_whose_arguments_fail_takes_nothing_down(bare_home: Home) -> None:
    bare_home.add_plugin(PLUGINS / "bad.py")
    done = bare_home.run("which", "ftp://x")
    assert json.loads(done.stdout.splitlines()[-1])["url"] == "ftp://x"
    assert "bad" in done.stderr and "ZeroDivisionError" in done.stderr


# A plugin's settings


async def test_plugin_gets_its_own_settings_and_those_of_the_core(load: Load) -> None:
    settings = {"plugins": {"a": {"size": 5}}, "max_items": 9}
    found = await answers(load(settings, a=ASKS, b=ASKS))
    assert [answer[2:4] for answer in found] == [[5, 9], [1, 9]]


def test_wrong_settings_of_a_plugin_turn_it_off(load: Load) -> None:
    settings = {"plugins": {"a": {"size": "big"}, "b": {"sise": 1}, "c": {"x": 1}}}
    settings["plugins"]["e"] = {"max_items": 5}
    plugins = load(settings, a=ASKS, b=ASKS, c=GOOD, d=ASKS, e=ASKS)
    assert "[plugins.a] size: " in plugins.all["a"].off
    assert "integer" in plugins.all["a"].off
    assert "[plugins.b] sise: no such setting (did you mean size?)" in (
        plugins.all["b"].off
    )
    assert "[plugins.c]" in plugins.all["c"].off
    led = "max_items: no such setting; it belongs above the first table of data/"
    assert led in plugins.all["e"].off
    assert plugins.all["d"].off == ""


def test_absent_plugin_that_the_settings_name_is_only_warned_of(
    load: Load, logged: list[str]
) -> None:
    settings = {"plugins": {"gone": {"x": 1}}, "disabled_plugins": ["twiter"]}
    plugins = load(settings, twitter=GOOD)
    assert plugins.all["twitter"].off == ""
    start = "WARNING the settings name a plugin"
    assert f"{start} gone that is missing" in logged
    assert f"{start} twiter that is missing (did you mean twitter?)" in logged


# The calls


async def test_order_is_tryfirst_then_name_then_trylast(load: Load) -> None:
    names = ["y_first", "z_first", "c", "d", "a_last", "b_last"]
    plugins = load(**dict.fromkeys(names, PLUGINS / "in_order.py"))
    assert await answers(plugins) == names


async def test_fold_gives_each_plugin_the_result_of_the_one_before(
    load: Load,
) -> None:
    does = {"a__does": "add", "b__does": "fail", "d__does": "add"}
    loop, thread = DOES.values()
    plugins = load(does, a=loop, b=thread, c=thread, d=loop)
    assert await processed(plugins, files=["x"]) == [
        "x",
        "a 00000000aa",
        "d 00000000aa",
    ]


async def test_first_result_ends_the_calls(load: Load) -> None:
    does = {"b__does": "return no text", "c__does": "fail"}
    plugins = load(does, **dict.fromkeys("abc", DOES["loop"]))
    assert await plugins.call_first("answer_job", job=make_job()) == ""
    assert not plugins.all["c"].failures


@pytest.mark.parametrize("kind", DOES)
async def test_refusal_passes_through_and_is_no_failure(load: Load, kind: str) -> None:
    checks = PLUGINS / {"loop": "checks.py", "thread": "checks_in_thread.py"}[kind]
    plugins = load(a=checks, b=DOES[kind])
    with pytest.raises(Refused, match="not today"):
        await plugins.call("check_job", job=make_job(url="refuse"))
    with pytest.raises(JobFailed):
        await processed(plugins, "fail the job")
    assert not plugins.all["a"].failures and not plugins.all["b"].failures


@pytest.mark.parametrize("kind", DOES)
@pytest.mark.parametrize("fault", ["fail", "exit", "quit"])
async def test_failure_names_the_plugin_and_the_others_answer(
    load: Load, logged: list[str], kind: str, fault: str
) -> None:
    plugins = load(bad=DOES[kind], good=GOOD)
    assert await answers(plugins, fault) == ["good"]
    assert "plugin bad failed in answer_job" in logged[-1]


@pytest.mark.parametrize("what", ["hang", "sleep=3600"])
async def test_hook_that_takes_too_long_is_left_behind(
    load: Load, logged: list[str], what: str
) -> None:
    plugins = load(a=DOES["loop"], b=GOOD)
    plugins.quick_limit_s = 0.05
    assert await answers(plugins, what) == ["good"]
    assert "plugin a failed in answer_job" in logged[-1]
    assert plugins.all["a"].failures == {"answer_job": 1}


async def test_plain_hook_that_blocks_does_not_block_the_loop(load: Load) -> None:
    plugins = load(a=DOES["thread"], b=GOOD)
    plugins.quick_limit_s = 0.05
    assert await answers(plugins, "block") == ["good"]
    sys.modules["bossbot_plugins._ways"].unblock.set()


async def test_process_files_has_a_time_limit_of_its_own(load: Load) -> None:
    plugins = load({"process_timeout_s": 60}, a=DOES["loop"])
    plugins.quick_limit_s = plugins.limit_s = 0.01
    assert await processed(plugins, "sleep=0.05") == ["0.05"]
    plugins = load({"process_timeout_s": 0.02}, a=DOES["loop"])
    assert await processed(plugins, "sleep=30") == []


async def test_calls_at_the_same_time_end_each_at_its_own_limit(load: Load) -> None:
    plugins = load({"process_timeout_s": 0.3}, a=DOES["loop"])
    plugins.quick_limit_s, ended = 0.05, list[str]()
    values = {"job": make_job(url="hang"), "files": [], "bench": None}

    async def call(hook: str) -> None:
        await plugins.fold(hook, "job", **values)
        ended.append(hook)

    async with asyncio.timeout(30):
        await asyncio.gather(*map(call, ["process_files", "answer_job", "answer_job"]))
        await asyncio.gather(*map(call, ["answer_job", "process_files"]))
    assert ended == [
        *2 * ["answer_job"],
        "process_files",
        "answer_job",
        "process_files",
    ]


async def test_wait_off_the_clock_does_not_count_for_the_limit(load: Load) -> None:
    plugins = load({"process_timeout_s": 2}, a=CLOCK)
    assert await processed(plugins, "wait") == [1]
    assert await processed(plugins, "wait, and hang") == []


async def test_hook_is_off_the_clock_until_the_last_of_its_tasks_is_on_it(
    load: Load,
) -> None:
    plugins = load({"process_timeout_s": 0.3}, a=CLOCK)
    assert await processed(plugins, "tasks") == [1]


async def test_plain_hook_has_the_language_and_the_limit_of_its_caller(
    load: Load,
) -> None:
    plugins = load({"process_timeout_s": 0.3}, a=PLUGINS / "off_the_clock_in_thread.py")
    bossbot.language.set("fr")
    assert await processed(plugins) == ["fr"]
    assert await processed(plugins, files=[1]) == [1]
    sys.modules["bossbot_plugins.a"].go_on.set()


async def test_hook_that_goes_on_after_its_limit_has_no_time_left_and_no_answer(
    load: Load,
) -> None:
    plugins = load({"process_timeout_s": 0.05}, a=CLOCK)
    assert await processed(plugins, "late") == []
    assert plugins.all["a"].failures == {"process_files": 1}
    assert sys.modules["bossbot_plugins.a"].left_s[0] < 0


async def test_calls_that_swallow_their_cancel_keep_no_other_from_ending(
    load: Load,
) -> None:
    plugins = load({"process_timeout_s": 0.3}, a=DOES["loop"])
    plugins.quick_limit_s = 0.05
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        for _ in range(9):
            tasks.create_task(answers(plugins, "linger"))
        await processed(plugins, "hang")
        sys.modules["bossbot_plugins._ways"].go_on.set()


async def test_limit_of_a_hook_ends_only_that_hook_even_in_a_cancelled_task(
    load: Load,
) -> None:
    plugins = load(a=DOES["loop"])
    plugins.quick_limit_s = 0.05
    begun = asyncio.Event()

    async def clean_up() -> int:
        try:
            begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert await answers(plugins, "hang") == []
        task = asyncio.current_task()
        return task.cancelling() if task else 0

    cleaning = asyncio.create_task(clean_up())
    await begun.wait()
    cleaning.cancel()
    assert await cleaning == 1  # its own
    assert plugins.all["a"].failures == {"answer_job": 1}


async def test_cancelled_caller_ends_with_its_hook(load: Load) -> None:
    plugins = load(a=DOES["loop"])
    call = asyncio.create_task(answers(plugins, "hang"))
    await sys.modules["bossbot_plugins._ways"].begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert plugins.all["a"].failures == {}


def test_limit_of_a_hook_holds_in_a_second_event_loop(load: Load) -> None:
    plugins = load(a=DOES["loop"])
    plugins.quick_limit_s = 0.05

    async def ask(url: str) -> None:
        async with asyncio.timeout(30):
            await answers(plugins, url)

    for url in ("quick", "hang"):  # the first one leaves its timer behind
        asyncio.run(ask(url))
    assert plugins.all["a"].failures == {"answer_job": 1}


def test_name_that_is_no_text_switches_only_its_plugin_off(load: Load) -> None:
    plugins = load({"a__platforms": [None]}, a=REGISTERS, b=REGISTERS)
    assert "the name None is not a text" in plugins.all["a"].off
    assert list(plugins.registered("platforms")) == ["x"]


def test_list_that_is_made_while_a_plugin_changes_is_not_kept(load: Load) -> None:
    plugins = load(a=REGISTERS)
    plugin, new = plugins.all["a"], list[Any](plugins.all["a"].platforms)

    class Old:
        @property
        def name(self) -> str:  # the list is being made, in another thread
            plugin.platforms = new
            plugins.changed()
            return "old"

    plugin.platforms = [cast(Any, Old())]
    plugins.changed()
    assert list(plugins.registered("platforms")) == ["old"]
    assert list(plugins.registered("platforms")) == ["x"]


async def test_plugin_is_switched_off_after_five_failures_in_a_row(
    load: Load, logged: list[str]
) -> None:
    plugins = load(bad=REGISTERS, good=GOOD)
    for _ in range(4):
        assert await answers(plugins, "fail") == ["good"]
    assert await answers(plugins) == ["x", "good"]
    for _ in range(4):
        assert await answers(plugins, "fail") == ["good"]
    assert plugins.all["bad"].off == ""
    assert await answers(plugins, "fail") == ["good"]
    assert "answer_job failed too often: RuntimeError: again" in (
        plugins.all["bad"].off
    )
    assert "plugin bad is switched off" in logged[-1]
    assert await answers(plugins) == ["good"]
    assert len(sys.modules["bossbot_plugins.bad"].calls) == 10
    assert plugins.registered("platforms") == {}


async def test_plain_hook_runs_in_a_thread_and_async_hook_in_the_loop(
    load: Load,
) -> None:
    plugins = load(a=DOES["thread"], b=DOES["loop"])
    plain, coroutine = await answers(plugins, "tell the thread")
    assert plain != coroutine == threading.current_thread().name


async def test_many_calls_at_once_do_not_mix(load: Load) -> None:
    plugins = load({"a__does": "tell the job"}, a=DOES["loop"])
    jobs = [make_job() for _ in range(50)]
    for number, job in enumerate(jobs):
        job.id = str(number)
    found = await asyncio.gather(
        *(plugins.call_first("answer_job", job=job) for job in jobs)
    )
    assert found == [job.id for job in jobs]


# Loading again


async def test_reload_replaces_what_was_registered_whole(
    load: Load, add_plugin: AddPlugin
) -> None:
    plugins = load(a=REGISTERS, b=GOOD)
    assert list(plugins.registered("platforms")) == ["x"]
    add_plugin(PLUGINS / "site.py", "a")
    assert plugins.reload("a").off == ""
    assert list(plugins.registered("platforms")) == ["site"]
    assert await answers(plugins) == ["good"]
    plugins.reload("a")  # its own name is no duplicate
    assert list(plugins.registered("platforms")) == ["site"]


BROKEN = [
    "def broken(:",
    "import sys; sys.exit()",
    IMPORTS + "@hookimpl\ndef answer_jobs(): pass",
    IMPORTS + PLATFORM.format("taken", "https://y"),
]


@pytest.mark.parametrize("code", BROKEN)
async def test_reload_of_a_broken_file_leaves_what_was_there_until_it_is_mended(
    load: Load, add_plugin: AddPlugin, write_plugin: WritePlugin, code: str
) -> None:
    plugins = load({"b__platforms": ["taken"]}, a=REGISTERS, b=REGISTERS)
    before, module = plugins.all["a"], sys.modules["bossbot_plugins.a"]
    write_plugin("a", code)
    assert plugins.reload("a").off
    assert plugins.all["a"] is before and sys.modules["bossbot_plugins.a"] is module
    assert list(plugins.registered("platforms")) == ["taken", "x"]
    assert await answers(plugins) == ["x", "taken"]
    add_plugin(GOOD, "a")
    assert plugins.reload("a").off == ""
    assert await answers(plugins) == ["good", "taken"]
    assert list(plugins.registered("platforms")) == ["taken"]


async def test_reload_of_a_broken_file_keeps_hiding_the_secrets_of_the_one_that_stays(
    load: Load, write_plugin: WritePlugin
) -> None:
    secret = PLUGINS / "keeps_a_secret.py"
    plugins, code = load(a=secret), secret.read_text().replace("hush1", "hush2")
    for end in ("1 / 0", "@hookimpl\ndef register_tables(): return 1"):
        write_plugin("a", code + IMPORTS + end)
        assert plugins.reload("a").off
        assert redact("hush1") == "[secret]"


async def test_reload_of_a_broken_file_that_was_off_says_why_anew(
    load: Load, write_plugin: WritePlugin
) -> None:
    plugins = load(a="1 / 0")
    write_plugin("a", "def broken(:")
    assert "SyntaxError" in plugins.reload("a").off
    assert "SyntaxError" in plugins.all["a"].off


async def test_reload_reads_a_file_that_has_changed_within_a_second_to_as_many_bytes(
    load: Load, add_plugin: AddPlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    plugins, at_ns = load(), 1_700_000_000 * 10**9
    for number, text in enumerate(("good", "fine", "well")):
        edit(path := add_plugin(GOOD, "a"), "good", text)
        os.utime(path, ns=(0, at_ns + 2 * number))
        assert plugins.reload("a").off == ""
        assert await answers(plugins) == [text]
        bytecode = importlib.util.cache_from_source(str(path))
        os.utime(bytecode, ns=(0, at_ns + 2 * number + 1))


async def test_reload_forgets_libraries_that_are_folders_without_code(
    load: Load, add_plugin: AddPlugin
) -> None:
    path = add_plugin(GOOD, "a")
    edit(
        path,
        "from bossbot import",
        "from bossbot_plugins import _lib\nfrom bossbot import",
    )
    (path.parent / "_lib").mkdir()
    plugins = load()
    assert await answers(plugins) == ["good"]
    assert plugins.reload("a").off == ""


@pytest.mark.parametrize("again", [False, True])
async def test_checks_stay_on_when_what_belongs_to_them_cannot_be_installed(
    load: Load, add_plugin: AddPlugin, write_plugin: WritePlugin, again: bool
) -> None:
    veto = PLUGINS / "veto.py"
    plugins = load(a=veto)
    plugins.switch_off("a", PluginError("the command download is there already"))
    if again:  # and it cannot be mended by a file that is worse
        write_plugin("a", "def broken(:")
        assert "SyntaxError" in plugins.reload("a").off
    assert plugins.all["a"].off and "word" in plugins.all["a"].guild_config.model_fields
    with pytest.raises(Refused, match="not today"):
        await plugins.call("check_job", job=make_job())
    assert await answers(plugins) == []
    old = plugins.all["a"]
    edit(add_plugin(veto, "a"), "today", "ever")
    plugins.reload("a")
    plugins.switch_off("a", PluginError("the command download is there already"))
    assert not plugins.put_back(old)
    with pytest.raises(Refused, match="not ever"):  # the newer check
        await plugins.call("check_job", job=make_job())
    edit(add_plugin(veto, "a"), "today", "tomorrow")
    assert plugins.reload("a").off == ""
    with pytest.raises(Refused, match="not tomorrow"):
        await plugins.call("check_job", job=make_job())
    plugins.switch_off("a", "its file is gone")  # by the owner
    await plugins.call("check_job", job=make_job())


async def test_reload_loads_a_new_file_and_names_one_that_is_gone(
    load: Load, add_plugin: AddPlugin
) -> None:
    plugins = load(rules=GOOD)
    add_plugin(GOOD, "new")
    assert plugins.reload("new").off == ""
    assert await answers(plugins) == ["good", "good"]
    with pytest.raises(PluginError, match=r"No plugin ruls \(did you mean rules\?\)"):
        plugins.reload("ruls")
    (plugins.settings.plugins_dir / "rules.py").unlink()
    with pytest.raises(PluginError, match="No plugin rules"):
        plugins.reload("rules")
    assert plugins.all["rules"].off == "its file is gone"
    assert await answers(plugins) == ["good"]


async def test_reload_reads_the_plugins_settings_class_again(
    load: Load, add_plugin: AddPlugin
) -> None:
    plugins = load({"plugins": {"a": {"size": 5}}}, a=ASKS)
    edit(add_plugin(ASKS, "a"), "size", "sizes")
    assert "[plugins.a] size: no such setting (did you mean sizes?)" in (
        plugins.reload("a").off
    )


# The parts


@pytest.fixture
def our_part(tmp_path: Path) -> None:
    """A plugin of ours, ours.py, that makes the part that its settings name."""
    shelf = tmp_path / "ours" / "parts"
    shelf.mkdir(parents=True)
    shutil.copy(PART, shelf / "ours.py")


def made(app: App, part: str) -> str:
    """The name of the class that makes a part of a new app."""
    return type(getattr(app, part)).__name__


@pytest.mark.usefixtures("our_part")
@pytest.mark.parametrize("name", PARTS)
def test_register_parts_of_the_owner_comes_before_ours(load: Load, name: str) -> None:
    settings = {f"{stem}__part": name for stem in ("ours", "c", "e", "z")}
    plugins = load({**settings, "c__fault": "fail"}, **dict.fromkeys("bcez", PART))
    assert not [plugin for plugin in plugins.all.values() if plugin.off]
    assert made(plugins.app, name) == "e"
    assert "ZeroDivisionError" in plugins.all["c"].off and not plugins.all["b"].off
    plugins.switch_off("e", "gone")
    assert made(plugins.app, name) == "e", "it is made once"


@pytest.mark.usefixtures("our_part")
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("fail", "ZeroDivisionError: division by zero"),
        ("leave", "SystemExit: 3"),
        ("make_nothing", "its queue is no Queue"),
        ("ask_for_nothing", "TypeError"),
    ],
)
def test_broken_part_of_the_owner_leaves_the_place_to_ours(
    load: Load, logged: list[str], fault: str, reason: str
) -> None:
    own = {"part": "queue", "fault": fault}
    plugins = load({"ours__part": "queue", "plugins": {"own": own}}, own=PART)
    assert made(plugins.app, "queue") == "ours"
    assert reason in plugins.all["own"].off
    assert any(line.startswith("ERROR own is off") for line in logged)


@pytest.mark.usefixtures("our_part")
@pytest.mark.parametrize("fault", ["half", "half, by a partial"])
def test_missing_method_of_a_part_is_named_when_it_is_loaded(
    load: Load, fault: str
) -> None:
    own = {"part": "facts", "fault": fault}
    plugins = load({"ours__part": "facts", "plugins": {"own": own}}, own=PART)
    assert plugins.all["own"].off == "the part facts has no set"
    assert made(plugins.app, "facts") == "ours"


def test_part_that_does_not_exist_turns_its_plugin_off(load: Load) -> None:
    plugins = load(own="@hookimpl\ndef register_parts(): return {'queu': print}")
    assert plugins.all["own"].off == "no part 'queu' (did you mean queue?)"


def test_part_that_cannot_start_the_bot_says_so_itself(load: Load) -> None:
    settings = {"own__part": "queue", "own__fault": "cannot_start"}
    with pytest.raises(StartError, match=r"^Start Redis first\.$"):
        _ = load(settings, own=PART).app.queue


@pytest.mark.parametrize("name", [name for name in PARTS if name != "archive"])
def test_missing_part_is_named(load: Load, name: str) -> None:
    plugins = load(a=GOOD)
    with pytest.raises(StartError, match=f"The part {name} is missing"):
        getattr(plugins.app, name)


async def test_bot_without_an_archive_says_that_it_remembers_nothing(
    load: Load,
) -> None:
    app = load(a=GOOD).app
    await app.archive.start()
    with pytest.raises(Refused, match="does not remember"):
        archive_of(app)


def test_app_has_a_property_for_each_part_and_no_others() -> None:
    found = {n: v for n, v in vars(App).items() if hasattr(v, "attrname")}
    assert [*found] == [*PARTS]


async def test_disabled_part_stops_the_start_with_its_name_and_reason(
    small_app: SmallApp,
) -> None:
    app = small_app(disabled_plugins=["sqlite_queue"])
    with pytest.raises(StartError) as caught:
        await app.start()
    assert str(caught.value).startswith(
        "The part queue is missing. sqlite_queue (ours) is off: disabled in the "
        "settings\nCorrect that"
    )


async def test_part_that_is_wrong_and_has_no_replacement_stops_the_start(
    small_app: SmallApp, write_plugin: WritePlugin
) -> None:
    write_plugin("sqlite_queue", "import redis_that_is_not_installed")
    write_plugin("cloud", "import it")  # it may have been to offer that part
    app = small_app()
    with pytest.raises(StartError) as caught:
        await app.start()
    assert "cloud (yours) is off: ModuleNotFound" in str(caught.value)
    assert "sqlite_queue (yours, in place of ours) is off: ModuleNotFound" in (
        str(caught.value)
    )


async def test_disabled_part_with_a_replacement_is_not_missed(
    small_app: SmallApp, add_plugin: AddPlugin
) -> None:
    own = add_plugin(OURS / "parts" / "sqlite_queue.py", "my_queue")
    edit(own, "SQLiteQueue", "MyQueue")
    app = small_app(disabled_plugins=["sqlite_queue"])
    await app.start()
    assert type(app.queue).__name__ == "MyQueue"


# The hooks


def names_of_tests() -> list[str]:
    texts = (path.read_text("utf-8") for path in ROOT.glob("tests/*/test_*.py"))
    return [name for text in texts for name in re.findall(r"def (test_\w+)", text)]


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_test_and_a_heading_with_its_arguments(hook: str) -> None:
    named = re.compile(rf"_{hook}(_|$)" if "_" in hook else f"test_{hook}_")
    assert [name for name in names_of_tests() if named.search(name)], "no test"
    own = list(inspect.signature(vars(Hooks)[hook]).parameters)[1:]
    page = (ROOT / "docs" / "plugins.md").read_text("utf-8")
    assert f"\n### `{hook}({', '.join(own)})`\n" in page
    text = vars(Hooks)[hook].__doc__
    assert text.startswith(("Return ", "Raise ")) and text.endswith(".")
    assert "\n" not in text


def test_docs_have_no_hook_that_does_not_exist() -> None:
    page = (ROOT / "docs" / "plugins.md").read_text("utf-8")
    assert re.findall(r"^### `(\w+)\(", page, re.MULTILINE) == list(HOOKS)


def plugins_of_the_docs() -> list[str]:
    page = (ROOT / "docs" / "plugins.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.+?)^```", page, re.MULTILINE | re.DOTALL)
    return [block for block in blocks if "@hookimpl\n" in block]


@pytest.mark.parametrize("code", plugins_of_the_docs(), ids=lambda code: code[3:40])
def test_every_plugin_of_the_docs_loads_as_it_stands(
    small_app: SmallApp, write_plugin: WritePlugin, code: str
) -> None:
    write_plugin("pasted", code)
    pasted = small_app().plugins.all["pasted"]
    assert not pasted.off and pasted.hooks


def test_every_hook_has_an_example_in_the_docs() -> None:
    shown = {
        name
        for code in plugins_of_the_docs()
        for name in re.findall(r"@hookimpl.*\n(?:async )?def (\w+)", code)
    }
    assert shown == set(HOOKS)


@pytest.mark.parametrize("name", bossbot.__all__)
def test_every_public_name_exists_and_is_in_the_docs(name: str) -> None:
    assert hasattr(bossbot, name)
    page = (ROOT / "docs" / "plugins.md").read_text("utf-8")
    assert re.search(rf"(?<!\w){name}(?!\w)", page)


def test_docs_describe_only_public_names() -> None:
    page = (ROOT / "docs" / "plugins.md").read_text("utf-8")
    _, overview = page.split("## Everything else in `bossbot`")
    cells = re.findall(r"^\| (`.+?) \|", overview, re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"`(\w+)", cell)}
    assert named - {*bossbot.__all__, "__version__"} == set()


def test_every_hook_is_called_somewhere() -> None:
    kinds = ("engines", "platforms", "subcommands")
    uncalled = {*HOOKS} - {f"register_{kind}" for kind in kinds}
    for path in [*ROOT.glob("*.py"), *ROOT.glob("plugins/*/**/*.py")]:
        code = path.read_text("utf-8")
        if not any(f'"{name}"' in code for name in uncalled):
            continue
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Call):
                uncalled -= {a.value for a in node.args if isinstance(a, ast.Constant)}
    assert uncalled == set()


def test_plugins_import_only_public_names_of_the_core_and_libraries() -> None:
    for path in ROOT.glob("plugins/*/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
                assert not [n for n in names if n.startswith("bossbot_plugins")], path
            if isinstance(node, ast.ImportFrom) and node.module:
                package, _, module = node.module.partition(".")
                names = [alias.name for alias in node.names]
                if package == "bossbot_plugins":
                    libraries = [module] if module else names
                    assert all(name.startswith("_") for name in libraries), path
                if package == "bossbot":
                    assert set(names) - set(bossbot.__all__) == set(), path
                assert package != "bossbot_contracts", path


def test_contracts_import_the_rest_of_the_core_only_for_annotations() -> None:
    tree = ast.parse((ROOT / "bossbot_contracts.py").read_text("utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    [typing] = [node for node in blocks if ast.unparse(node.test) == "TYPE_CHECKING"]
    unused = {node for line in typing.body for node in ast.walk(line)}
    kinds = (ast.Import, ast.ImportFrom)
    imports = {node for node in ast.walk(tree) if isinstance(node, kinds)} - unused
    assert imports and not [i for i in map(ast.unparse, imports) if "bossbot" in i]


def test_core_names_no_site_no_engine_and_no_plugin() -> None:
    text = "".join(path.read_text("utf-8") for path in ROOT.glob("*.py"))
    names = r"twitter|reddit|instagram|youtube|tiktok|gallery.dl|yt.dlp"
    assert not re.findall(names, text, re.IGNORECASE)
    stems = [path.stem for path in ROOT.glob("plugins/*/*_*.py")]
    assert {*stems} & {*re.findall(r"\w+", text)} == set()


def test_real_plugins_all_load(settings: Settings, logged: list[str]) -> None:
    plugins = App(settings).plugins
    plugins.load()
    ours = [path for shelf in bossbot.SHELVES for path in OURS.glob(f"{shelf}/[!_R]*")]
    assert {plugin.stem: plugin.off for plugin in plugins.all.values()} == (
        dict.fromkeys(sorted(path.stem for path in ours), "")
    )
    assert not logged


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize(
    "place",
    [
        *[
            "own.py",
            "_lib.py",
            "pack",
            "pack/__init__.py",
            "pack/deep",
            "pack/deep/x.py",
        ],
        *["__pycache__", "__pycache__/own.cpython-311.pyc", "_lib", "_lib/x.py"],
    ],
)
def test_code_that_anyone_may_write_to_is_refused_unless_the_owner_allows_it(
    make_settings: MakeSettings, write_plugin: WritePlugin, place: str, allowed: bool
) -> None:
    folder = write_plugin("own", "").parent
    for name in ("pack", "_lib"):
        (folder / name / "deep").mkdir(parents=True)
        (folder / name / "__init__.py").touch()
    (folder / "pack" / "deep" / "x.py").touch()
    (folder / "_lib.py").touch()
    (folder / "_lib" / "x.py").touch()
    (folder / "__pycache__").mkdir(exist_ok=True)
    (folder / "__pycache__" / "own.cpython-311.pyc").touch()
    (folder / "gone.py").symlink_to("nowhere")
    (folder / "notes.txt").touch()
    (folder / "notes.txt").chmod(0o666)  # it is no code
    path = folder / place
    path.chmod(path.stat().st_mode | 0o002)
    settings = make_settings(allow_writable_plugins=allowed)
    plugins = App(settings, our_plugins()).plugins
    if allowed:
        plugins.load()
        return
    with pytest.raises(StartError, match=f"^{path}: anyone .* Run: chmod -R o-w"):
        plugins.load()
    path.chmod(0o700)
    plugins.load()
    path.chmod(0o702)
    with pytest.raises(PluginError, match=f"^{path}: anyone"):
        plugins.reload("own")


def test_checkout_that_anyone_may_write_to_is_refused(bare_home: Home) -> None:
    for names in (["", *CORE], ["__pycache__", "config.toml", "plugins/engines"]):
        paths = [bare_home.path / name for name in names]
        modes = [path.stat().st_mode for path in paths]
        for path, mode in zip(paths, modes, strict=True):
            path.chmod(mode | 0o002)
        done = bare_home.run("plugins")
        assert done.returncode == 2
        assert f"{', '.join(map(str, paths))}: anyone on this machine" in done.stderr
        shut = bare_home.run("plugins", env={"BOSS_BOT_ALLOW_WRITABLE_PLUGINS": "1"})
        assert shut.returncode == 0, shut.stderr
        for path, mode in zip(paths, modes, strict=True):
            path.chmod(mode)


def test_remedy_for_a_writable_folder_suits_a_shell(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    folder = tmp_path / "my $HOME; plugins"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(StartError) as caught:
        settings = make_settings(plugins_dir=folder, allow_writable_plugins=False)
        App(settings).plugins.load()
    command = str(caught.value).partition("Run: ")[2].partition(" (or")[0]
    assert shlex.split(command)[-1] == str(folder)


@pytest.mark.parametrize("allowed", [False, True])
def test_folder_that_anyone_may_write_to_is_refused_unless_the_owner_allows_it(
    make_settings: MakeSettings, write_plugin: WritePlugin, allowed: bool
) -> None:
    write_plugin("good", "").parent.chmod(0o777)
    plugins = App(make_settings(allow_writable_plugins=allowed)).plugins
    if allowed:
        plugins.load()
        assert not plugins.all["good"].off
    else:
        with pytest.raises(StartError, match="chmod -R o-w"):
            plugins.load()
