"""The contract of the hooks: what each may ask for, what becomes of its answer, and that
checks fail closed."""

import asyncio
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import discord
import pytest
from conftest import (
    SUPPORT_PLUGINS,
    AddPlugin,
    Home,
    SmallApp,
    WithTables,
    WritePlugin,
    edit,
    make_job,
)
from discord_support import Stage, job_id, link
from routing import route

import bossbot
from bossbot import App, Cause, Job, JobFailed, Refused, StartError

pytest_plugins = ("discord_fixtures",)

PLUGINS = Path(__file__).parent / "plugins"
GOOD, VETO, CHECKS, DOES, MIXED = (
    PLUGINS / f"{name}.py" for name in ("good", "veto", "checks", "does", "mixed")
)
BROKEN = bossbot.BROKEN_CHECK

Start = Callable[..., Any]


@pytest.fixture
def start(
    small_app: SmallApp, write_plugin: WritePlugin, add_plugin: AddPlugin
) -> Start:
    """Starts an app with the owner's plugins, given as name=file, or name=text of a
    fault; ``settings`` holds settings. One of them is a site, whose links are
    https://site.example/..."""

    async def start(
        settings: dict[str, Any] | None = None, **plugins: Path | str
    ) -> App:
        for name in ("site", "_ways"):
            add_plugin(PLUGINS / f"{name}.py")
        for name, plugin in plugins.items():
            if isinstance(plugin, Path):
                add_plugin(plugin, name)
            else:
                write_plugin(name, f"from bossbot import *\n\n{plugin}")
        app = small_app(**(settings or {}))
        await app.start()
        return app

    return start


async def intake(app: App, number: int | str = 1) -> Any:
    return await app.intake(
        Job(
            url=f"https://site.example/{number}",
            guild_id=1,
            channel_id=2,
            user_id=3,
            request_key=f"1:{number}",
        )
    )


# At load


async def test_register_engines_adds_ways_to_download(start: Start) -> None:
    app = await start()
    [engine] = app.plugins.registered("engines").values()
    assert (engine.name, engine.version()) == ("e", "1")
    assert (await route(app, "https://site.example/1")).engine == "e"


async def test_register_platforms_gets_the_settings_of_every_platform(
    start: Start, tmp_path: Path
) -> None:
    table = {
        "cookies_file": str(tmp_path / "cookies.txt"),
        "proxy": "http://proxy.example",
        "sleep_request_s": 2,
        "options": {"b": 2, "c": 3},
    }
    settings = {"site": table, "own": {**table, "token": "x"}}
    app = await start({"plugins": settings}, own=PLUGINS / "own_site.py")
    platforms = app.plugins.registered("platforms")
    for name, options in (
        ("site", {"b": 2, "c": 3}),
        ("own", {"a": "x", "b": 2, "c": 3}),
    ):
        platform = platforms[name]
        assert platform.cookies_file == tmp_path / "cookies.txt"
        assert platform.proxy == "http://proxy.example"
        assert platform.sleep_request_s == 2
        assert platform.options == options


def test_register_subcommands_adds_a_command_with_arguments(bare_home: Home) -> None:
    bare_home.add_plugin(PLUGINS / "command.py", "greet")
    done = bare_home.run("greet", "Ada")
    assert (done.returncode, done.stdout) == (7, "Hello, Ada! App\n")
    assert "say hello" in bare_home.run("--help").stdout


LIKES = "CREATE TABLE likes (job_id TEXT)"
INDEX = "CREATE INDEX likes_by_job ON likes (job_id)"


async def tables(app: App) -> list[str]:
    sql = "SELECT name FROM sqlite_master WHERE name LIKE 'likes%' ORDER BY name"
    return [row["name"] for row in await app.database.all(sql)]


async def test_register_tables_makes_them_before_the_first_link(
    start: Start, with_tables: WithTables
) -> None:
    with_tables("likes", LIKES)
    app = await start()
    assert await tables(app) == ["likes"]
    await app.database.one("INSERT INTO likes VALUES ('x')")


async def test_register_tables_runs_only_new_versions_at_a_reload(
    start: Start, with_tables: WithTables
) -> None:
    with_tables("likes", LIKES)
    app = await start()
    await app.database.one("INSERT INTO likes VALUES ('x')")
    for _ in range(2):
        path = with_tables("likes", LIKES, INDEX)
        assert not (await app.reload("likes")).off
        assert await tables(app) == ["likes", "likes_by_job"]
    assert await app.database.one("SELECT * FROM likes")
    with_tables("likes", LIKES)
    older = await app.reload("likes")
    assert "its tables have version 2" in older.off and "Update" in older.off
    path.write_text("")
    assert not (await app.reload("likes")).off, "a plugin without tables leaves them"
    assert await tables(app) == ["likes", "likes_by_job"]


async def test_register_tables_with_a_mistake_leaves_no_half_and_only_the_checks(
    start: Start, with_tables: WithTables
) -> None:
    with with_tables("likes", LIKES, "CREATE TABEL more (x)").open("a") as file:
        file.write("\n@hookimpl\nasync def check_job(job): ...\n")
    app = await start()
    assert app.plugins.all["likes"].off.startswith("its tables cannot be made")
    assert app.plugins.all["likes"].hooks == ["check_job"]
    assert await tables(app) == []
    assert (await intake(app)).job


async def test_tables_of_a_part_that_cannot_be_made_stop_the_start(
    start: Start, with_tables: WithTables
) -> None:
    source = SUPPORT_PLUGINS / "facts_with_tables.py"
    with_tables("my_facts", "CREATE TABEL x", source=source)
    with pytest.raises(StartError, match="my_facts: its tables cannot be made"):
        await start()


# What a hook may ask for


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_answer_job_may_ask_for_everything_in_any_order(
    start: Start, add_plugin: AddPlugin, kind: str
) -> None:
    edit(add_plugin(PLUGINS / "asks.py"), "async def", kind)
    app = await start({"max_items": 9, "asks__size": 5})
    job = make_job(id="aa", guild_settings={"asks": {"colour": "blue"}})
    assert await app.plugins.call("answer_job", job=job) == [
        ["aa", "blue", 5, 9, "App"]
    ]


async def test_registration_may_ask_for_the_app_the_settings_and_what_came_before(
    start: Start,
) -> None:
    settings = {"zebra__proxy": "http://p.example"}
    app = await start(settings, zebra=PLUGINS / "asks_early.py")
    assert app.plugins.registered("platforms")["zebra"].proxy == "http://p.example"


async def test_extract_text_returns_passages_of_every_plugin(start: Start) -> None:
    finds = PLUGINS / "does_in_thread.py"
    app = await start(a=finds, b=finds, c="")
    found = await app.plugins.call("extract_text", job=make_job(), file="f")
    assert found == [[("fa", "x", 2.5)], [("fb", "x", 2.5)]]


@pytest.mark.parametrize("hook", ["check_claim", "check_machine", "run"])
async def test_guild_is_refused_where_there_is_no_job(start: Start, hook: str) -> None:
    app = await start(asks=f"@hookimpl\nasync def {hook}(guild): ...")
    assert "guild" in app.plugins.all["asks"].off


# Checks fail closed

HARM = {
    "raises": "fail",
    "raises in a thread": "fail",
    "exits": "exit",
    "raises what is no Exception": "panic",
    "is cancelled": "be cancelled",
    "hangs": "hang",
    "swallows its cancel": "swallow",
    "blocks a thread": "block",
    "fails the job": "fail the job",
}
ACTION = bossbot.Action(
    name="ping",
    group="",
    guild_id=1,
    channel=None,
    user=None,
    permissions=discord.Permissions.none(),
)
CALLS: dict[str, dict[str, Any]] = {
    "check_action": {"action": ACTION},
    "check_job": {"job": make_job()},
    "check_claim": {},
    "check_attempt": {"job": make_job()},
    "check_upload": {"job": make_job(), "files": [], "channel": None},
}


@pytest.mark.parametrize("harm", HARM)
async def test_check_that_breaks_refuses_however_often(
    start: Start, logged: list[str], harm: str
) -> None:
    hooks = sorted(bossbot.VETOES)
    checks = PLUGINS / "checks_in_thread.py" if "thread" in harm else CHECKS
    app = await start({"rule__does": HARM[harm]}, rule=checks)
    app.plugins.quick_limit_s = 0.02
    rule = app.plugins.all["rule"]
    for hook in hooks:
        for _ in range(6):  # another hook would be off after 5
            with pytest.raises(Refused) as caught:
                await app.plugins.call(hook, **CALLS[hook])
            assert str(caught.value) == BROKEN
        failed = f"ERROR plugin rule failed in {hook}"
        assert sum(failed in line for line in logged) == 6
    assert app.plugins.all["rule"] is rule and not rule.off
    assert sorted(rule.hooks) == hooks
    assert rule.failures == dict.fromkeys(hooks, 6)
    sys.modules["bossbot_plugins._ways"].unblock.set()


async def test_check_with_wrong_settings_of_a_guild_refuses(start: Start) -> None:
    app = await start(rule=PLUGINS / "per_minute.py")
    wrong = [{"per_minute": value} for value in ("'many'", "[1]", "-1")]
    for hook in ("check_job", "check_attempt", "check_upload"):
        for table in (*wrong, {"per_mintue": 1}, 5):
            job = make_job(guild_settings={"rule": table})
            with pytest.raises(Refused, match="settings cannot be read"):
                await app.plugins.call(hook, **{**CALLS[hook], "job": job})
        right = {"rule": {"per_minute": 3}, "other": {"x": 1}}
        values = {**CALLS[hook], "job": make_job(guild_settings=right)}
        assert await app.plugins.call(hook, **values) == []


async def test_check_job_that_breaks_keeps_every_link_out(start: Start) -> None:
    app = await start({"rule__does": "fail"}, rule=CHECKS)
    for number in range(7):
        with pytest.raises(Refused, match=re.escape(BROKEN)):
            await intake(app, number)
    assert await app.queue.list() == []


async def test_check_attempt_fails_a_job_before_it_is_downloaded(
    stage: Stage,
) -> None:
    stage.copy_plugin(SUPPORT_PLUGINS / "holds.py")
    async with stage.bot() as bot:
        holds = bot.app.plugins.all["holds"]
        for cause in (Cause.PERMISSION, Cause.QUOTA):
            holds.config = holds.config.model_copy(update={"cause": cause.name})
            asked = await stage.says(f"$download {link('hang=never')}")
            told = await stage.hears("Not today.", after=asked.id)
            job = await bot.app.queue.get(job_id(told))
            assert job and (job.status, job.cause) == ("failed", cause)
            assert (job.engine, job.attempts) == ("", 1)


async def test_check_claim_holds_the_jobs_until_it_lets_them_go(
    stage: Stage, logged: list[str]
) -> None:
    stage.copy_plugin(SUPPORT_PLUGINS / "holds.py")
    async with stage.bot() as bot:
        await stage.says(f"$download {link(stage.image())}")
        job = job_id(await stage.hears("Download started"))
        async with asyncio.timeout(60):
            while "WARNING no job is started now: It is film time." not in logged:
                await asyncio.sleep(0.01)
        stored = await bot.app.queue.get(job)
        assert stored and (stored.status, stored.attempts) == ("queued", 0)
        (bot.app.settings.data_dir / "gate").touch()
        await stage.gets(1)
    warned = [line for line in logged if "film time" in line]
    assert len(warned) == 1, "not at every look at the queue"


async def test_check_upload_that_breaks_posts_nothing_and_says_so(
    stage: Stage,
) -> None:
    rule = stage.copy_plugin(SUPPORT_PLUGINS / "harm.py", "rule")
    harm = {"hooks": ["check_upload"], "harm": "raises", "in_loop": True}
    rule.with_suffix(".json").write_text(json.dumps(harm))
    async with stage.bot():
        await stage.says(f"$download {link(stage.image())}")
        await stage.hears("Download failed", BROKEN)
    assert not stage.posted()


async def test_another_hook_that_fails_never_takes_the_check_away(
    start: Start, logged: list[str]
) -> None:
    app = await start(rule=MIXED)
    rule = app.plugins.all["rule"]
    for _ in range(7):
        assert await app.plugins.call("answer_job", job=make_job(url="fail")) == []
        await app.plugins.call("job_changed", job=make_job(url="exit"), previous=None)
        with pytest.raises(Refused, match="not today"):
            await intake(app, "refuse")
    assert app.plugins.all["rule"] is rule and not rule.off
    assert sorted(rule.hooks) == ["check_job", "process_files"]
    for hook in ("answer_job", "job_changed"):
        assert any(f"{hook} of plugin rule is switched off" in one for one in logged)
        assert sum(f"plugin rule failed in {hook}" in one for one in logged) == 5


@pytest.mark.parametrize(
    "wrong",
    [
        "def register_tables(): return ['CREATE TABL oops']",
        "def register_commands(bot): oops",
    ],
)
async def test_failed_reload_leaves_no_moment_without_the_check(
    start: Start, write_plugin: WritePlugin, wrong: str
) -> None:
    app = await start(mine=VETO)
    write_plugin("mine", f"{VETO.read_text()}\n\n@hookimpl\n{wrong}\n")
    reloading = asyncio.create_task(app.reload("mine"))
    while not reloading.done():
        with pytest.raises(Refused, match="not today"):
            await app.plugins.call("check_job", job=make_job())
        await asyncio.sleep(0)


async def test_check_is_back_after_a_reload(
    start: Start, add_plugin: AddPlugin
) -> None:
    app = await start(rule="@hookimpl\nasync def check_job(job): 1 / 0")
    for text in ("first", "second"):
        edit(add_plugin(VETO, "rule"), "not today", text)
        await app.reload("rule")
        with pytest.raises(Refused, match=text):
            await intake(app)


# Failures are counted per hook


async def test_success_of_another_hook_does_not_reset_the_count(start: Start) -> None:
    app = await start(bad=DOES)
    for number in range(1, 6):
        assert not app.plugins.all["bad"].off
        assert await app.plugins.call("answer_job", job=make_job(url="fail")) == []
        await app.plugins.call("job_changed", job=make_job(), previous=None)
        if number < 5:
            assert app.plugins.all["bad"].failures == {"answer_job": number}
    assert app.plugins.all["bad"].off == (
        "answer_job failed too often: RuntimeError: again"
    )


async def test_failures_of_two_hooks_do_not_add_up(start: Start) -> None:
    app = await start({"bad__does": "fail"}, bad=DOES)
    for _ in range(4):
        await app.plugins.call("answer_job", job=make_job())
        await app.plugins.call("job_changed", job=make_job(), previous=None)
    assert not app.plugins.all["bad"].off
    assert app.plugins.all["bad"].failures == {"answer_job": 4, "job_changed": 4}


async def test_refusal_and_a_failed_job_are_answers_and_reset_the_count(
    start: Start,
) -> None:
    app = await start(bad=DOES)
    values = {"files": [], "bench": None}
    for url, said in (("refuse", Refused), ("fail the job", JobFailed)):
        for _ in range(4):
            values["job"] = make_job(url="fail")
            assert await app.plugins.fold("process_files", "files", **values) == []
        values["job"] = make_job(url=url)
        with pytest.raises(said):
            await app.plugins.fold("process_files", "files", **values)
        assert not app.plugins.all["bad"].failures
    assert not app.plugins.all["bad"].off


# The trace


async def test_trace_names_plugin_hook_arguments_answer_and_time(
    start: Start, logged: list[str]
) -> None:
    app = await start({"trace_hooks": True}, rule=PLUGINS / "traced.py")
    await app.plugins.call("check_job", job=make_job())
    await app.plugins.call_first("answer_job", job=make_job())
    await app.plugins.call("job_changed", job=make_job(), previous=None)
    with pytest.raises(Refused):
        await app.plugins.call("check_claim")
    lines = [line for line in logged if line.startswith("INFO rule.")]
    assert [re.sub(r"\d+\.\d ms$", "n ms", line) for line in lines] == [
        "INFO rule.check_job(job, guild, app): NoneType, n ms",
        "INFO rule.answer_job(job): str, n ms",
        "INFO rule.job_changed(): LookupError, n ms",
        "INFO rule.check_claim(): Refused, n ms",
    ]
    assert not any("stays out" in line for line in logged)


async def test_without_the_trace_no_call_is_logged(
    start: Start, logged: list[str]
) -> None:
    app = await start(rule=CHECKS)
    await app.plugins.call("check_job", job=make_job())
    assert not [line for line in logged if "rule." in line]


# The API's version


async def test_plugin_that_needs_a_newer_api_is_off_with_the_remedy(
    start: Start,
) -> None:
    good = f"{GOOD.read_text()}\n"
    app = await start(
        newer=good + "API = 99",
        same=good + f"API = {bossbot.API}",
        odd=good + "API = 'one'",
        later=good + "API = 2\nfrom bossbot import NotYetThere",
    )
    assert app.plugins.all["newer"].off == (
        "it needs version 99 of the plugin API, and this bot has 1. "
        "Update the bot: git pull"
    )
    assert app.plugins.all["later"].off.startswith("it needs version 2 of the plugin")
    assert app.plugins.all["odd"].off and not app.plugins.all["same"].off
    assert await app.plugins.call("answer_job", job=make_job()) == ["good"]


async def test_check_that_returns_its_refusal_refuses(start: Start) -> None:
    app = await start({"rule__does": "return a refusal"}, rule=CHECKS)
    with pytest.raises(Refused, match="not today"):
        await app.plugins.call("check_job", job=make_job())


@pytest.mark.parametrize(
    "wrong", ["return False", "return 'no'", "yield Refused('no')"]
)
@pytest.mark.parametrize("kind", ["async def", "def"])
async def test_check_that_answers_in_place_of_raising_refuses(
    start: Start, logged: list[str], kind: str, wrong: str
) -> None:
    app = await start(rule=f"@hookimpl\n{kind} check_job(job): {wrong}")
    with pytest.raises(Refused, match="broken"):
        await app.plugins.call("check_job", job=make_job())
    assert any("To veto, raise Refused" in line for line in logged)


async def test_hook_behind_a_decorator_of_the_plugins_own_is_awaited(
    start: Start,
) -> None:
    app = await start(rule=PLUGINS / "decorated.py")
    with pytest.raises(Refused, match="not today"):
        await app.plugins.call("check_job", job=make_job())
    assert await app.plugins.call("answer_job", job=make_job()) == ["an answer"]


@pytest.mark.parametrize("what", ["refuse", "fail the job"])
async def test_hook_that_has_nothing_to_refuse_fails_and_the_next_is_called(
    start: Start, what: str
) -> None:
    app = await start({"a__does": what}, a=DOES, b=DOES)
    await app.plugins.call("job_changed", job=(job := make_job()), previous=None)
    assert sys.modules["bossbot_plugins.b"].seen == [job.id]
    assert app.plugins.all["a"].failures["job_changed"] == 1


async def test_fold_takes_nothing_of_another_kind(start: Start) -> None:
    app = await start({"a__does": "return a text"}, a=DOES)
    values = {"job": make_job(), "files": ["x"], "bench": None}
    assert await app.plugins.fold("process_files", "files", **values) == ["x"]
    assert app.plugins.all["a"].failures["process_files"] == 1
    assert app.plugins.failed_ever == {("a", "process_files"): 1}


async def test_calls_at_the_same_time_drop_a_failing_hook_once(start: Start) -> None:
    app = await start({"a__does": "fail after=0"}, a=MIXED)
    values = {"job": make_job(), "files": ["x"], "bench": None}
    fold = app.plugins.fold
    folded = await asyncio.gather(
        *(fold("process_files", "files", **values) for _ in range(9))
    )
    assert folded == [["x"]] * 9
    assert sorted(app.plugins.all["a"].hooks) == [
        *("answer_job", "check_job", "job_changed"),
    ]
