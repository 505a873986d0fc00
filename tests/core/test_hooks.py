"""The contract of the hooks: what each may ask for, what becomes of its answer, and that
checks fail closed."""

import asyncio
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import discord
import pytest
from conftest import AddPlugin, Home, SmallApp, WritePlugin, make_job
from discord_support import Stage, job_id, link
from routing import route

import bossbot
from bossbot import App, Cause, Job, JobFailed, Refused, StartError

pytest_plugins = ("discord_fixtures",)

IMPORTS = """\
import asyncio, contextlib, threading
from bossbot import *
"""
BROKEN = bossbot.BROKEN_CHECK

Start = Callable[..., Any]


@pytest.fixture
def start(
    small_app: SmallApp, write_plugin: WritePlugin, add_plugin: AddPlugin
) -> Start:
    """Starts an app with the owner's plugins, given as name=code; ``settings`` holds
    settings. One of them may be a site, whose links are https://site.example/..."""

    async def start(settings: dict[str, Any] | None = None, **codes: str) -> App:
        add_plugin(SITE)
        for name, code in codes.items():
            write_plugin(name, IMPORTS + textwrap.dedent(code))
        app = small_app(**(settings or {}))
        await app.start()
        return app

    return start


SITE = Path(__file__).parent / "plugins" / "site.py"


async def intake(app: App, number: int = 1) -> Any:
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
    own = """
        class Config(PluginConfig):
            token: str = ""

        @hookimpl
        def register_platforms(config):
            url = "https://own.example/"
            return [Platform("own", url, url, "e", {"a": config.token, "b": 1})]
        """
    settings = {"site": table, "own": {**table, "token": "x"}}
    app = await start({"plugins": settings}, own=own)
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
    code = """
        @hookimpl
        def register_subcommands():
            return [Subcommand("greet", "say hello", greet, arguments)]

        def arguments(parser):
            parser.add_argument("name")

        async def greet(app, args):
            print(f"Hello, {args.name}! {type(app).__name__}")
            return 7
        """
    bare_home.plugin("greeting", IMPORTS + textwrap.dedent(code))
    done = bare_home.run("greet", "Ada")
    assert (done.returncode, done.stdout) == (7, "Hello, Ada! App\n")
    assert "say hello" in bare_home.run("--help").stdout


TABLES = """
@hookimpl
def register_tables():
    return [{}]
"""
LIKES = "'CREATE TABLE likes (job_id TEXT)'"
INDEX = "'CREATE INDEX likes_by_job ON likes (job_id)'"


async def tables(app: App) -> list[str]:
    sql = "SELECT name FROM sqlite_master WHERE name LIKE 'likes%' ORDER BY name"
    return [row["name"] for row in await app.database.all(sql)]


async def test_register_tables_makes_them_before_the_first_link(start: Start) -> None:
    app = await start(likes=TABLES.format(LIKES))
    assert await tables(app) == ["likes"]
    await app.database.one("INSERT INTO likes VALUES ('x')")


async def test_register_tables_runs_only_new_versions_at_a_reload(
    start: Start, write_plugin: WritePlugin
) -> None:
    app = await start(likes=TABLES.format(LIKES))
    await app.database.one("INSERT INTO likes VALUES ('x')")
    for _ in range(2):
        write_plugin("likes", IMPORTS + TABLES.format(f"{LIKES}, {INDEX}"))
        assert not (await app.reload("likes")).off
        assert await tables(app) == ["likes", "likes_by_job"]
    assert await app.database.one("SELECT * FROM likes")
    write_plugin("likes", IMPORTS + TABLES.format(LIKES))
    older = await app.reload("likes")
    assert "its tables have version 2" in older.off and "Update" in older.off
    write_plugin("likes", IMPORTS)
    assert not (await app.reload("likes")).off, "a plugin without tables leaves them"
    assert await tables(app) == ["likes", "likes_by_job"]


async def test_register_tables_with_a_mistake_leaves_no_half_and_only_the_checks(
    start: Start,
) -> None:
    code = TABLES.format(f"{LIKES}, 'CREATE TABEL more (x)'")
    check = "@hookimpl\nasync def check_job(job): ..."
    app = await start(likes=f"{code}\n{check}")
    assert app.plugins.all["likes"].off.startswith("its tables cannot be made")
    assert app.plugins.all["likes"].hooks == ["check_job"]
    assert await tables(app) == []
    assert (await intake(app)).job


async def test_tables_of_a_part_that_cannot_be_made_stop_the_start(
    start: Start,
) -> None:
    code = """
        class Mine(Facts):
            async def get(self, key): return ""
            async def set(self, key, value): ...

        @hookimpl
        def register_parts():
            return {"facts": Mine}
        """
    mine = textwrap.dedent(code) + TABLES.format("'CREATE TABEL x'")
    with pytest.raises(StartError, match="my_facts: its tables cannot be made"):
        await start(my_facts=mine)


# What a hook may ask for

ASKS = """
class Config(PluginConfig):
    size: int = 1

class GuildConfig(PluginConfig):
    colour: str = "red"

@hookimpl
{kind} answer_job(guild, settings, config, app, job):
    return f"{{job.id}} {{guild.colour}} {{config.size}} {{settings.max_items}} " + (
        type(app).__name__
    )
"""


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_answer_job_may_ask_for_everything_in_any_order(
    start: Start, kind: str
) -> None:
    settings = {"max_items": 9, "plugins": {"asks": {"size": 5}}}
    app = await start(settings, asks=ASKS.format(kind=kind))
    job = make_job(id="aa", guild_settings={"asks": {"colour": "blue"}})
    assert await app.plugins.call("answer_job", job=job) == ["aa blue 5 9 App"]


async def test_registration_may_ask_for_the_app_the_settings_and_what_came_before(
    start: Start, write_plugin: WritePlugin
) -> None:
    code = """
        @hookimpl
        def register_platforms(app, settings, config):
            assert app.settings is settings and config.proxy
            url = "https://zebra.example/"
            return [Platform("zebra", url, url, "e")]

        @hookimpl
        def register_subcommands(app):
            assert "zebra" in app.plugins.registered("platforms")
            return []
        """
    app = await start({"zebra__proxy": "http://p.example"}, zebra=code)
    assert app.plugins.registered("platforms")["zebra"].proxy == "http://p.example"


async def test_extract_text_returns_passages_of_every_plugin(start: Start) -> None:
    code = """
        @hookimpl
        def extract_text(job, file):
            return [Passage(file + {end!r}, "x", 2.5)]
        """
    app = await start(a=code.format(end="1"), b=code.format(end="2"), c="")
    found = await app.plugins.call("extract_text", job=make_job(), file="f")
    assert found == [[("f1", "x", 2.5)], [("f2", "x", 2.5)]]


@pytest.mark.parametrize("hook", ["check_claim", "check_machine", "run"])
async def test_guild_is_refused_where_there_is_no_job(start: Start, hook: str) -> None:
    app = await start(asks=f"@hookimpl\nasync def {hook}(guild): ...")
    assert "guild" in app.plugins.all["asks"].off


# Checks fail closed

HARM = {
    "raises": "async def {hook}(): 1 / 0",
    "raises in a thread": "def {hook}(): raise OSError('disk')",
    "exits": "async def {hook}(): raise SystemExit",
    "raises what is no Exception": (
        "async def {hook}(): raise type('Odd', (BaseException,), {{}})"
    ),
    "is cancelled": "async def {hook}(): raise asyncio.CancelledError",
    "hangs": "async def {hook}(): await asyncio.Event().wait()",
    "swallows its cancel": (
        "async def {hook}():\n"
        "    with contextlib.suppress(asyncio.CancelledError):\n"
        "        await asyncio.Event().wait()"
    ),
    "blocks a thread": "def {hook}(): threading.Event().wait(9)",
    "fails the job": "async def {hook}(): raise JobFailed(Cause.AGE)",
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
    code = "".join(f"@hookimpl\n{HARM[harm].format(hook=hook)}\n" for hook in hooks)
    app = await start(rule=code)
    app.plugins.quick_limit_s = 0.02
    rule = app.plugins.all["rule"]
    for hook in hooks:
        for _ in range(12):
            with pytest.raises(Refused) as caught:
                await app.plugins.call(hook, **CALLS[hook])
            assert str(caught.value) == BROKEN
        failed = f"ERROR plugin rule failed in {hook}"
        assert sum(failed in line for line in logged) == 12
    assert app.plugins.all["rule"] is rule and not rule.off
    assert sorted(rule.hooks) == hooks
    assert rule.failures == dict.fromkeys(hooks, 12)


@pytest.mark.parametrize("value", ["'many'", "[1]", "-1"])
@pytest.mark.parametrize("hook", ["check_job", "check_attempt", "check_upload"])
async def test_check_with_wrong_settings_of_a_guild_refuses(
    start: Start, hook: str, value: str
) -> None:
    code = f"""
        from pydantic import Field

        class GuildConfig(PluginConfig):
            per_minute: int = Field(5, ge=0)

        @hookimpl
        async def {hook}(guild): ...
        """
    app = await start(rule=code)
    tables = {"rule": {"per_minute": value}}
    for wrong in (tables, {"rule": {"per_mintue": 1}}, {"rule": 5}):
        values = {**CALLS[hook], "job": make_job(guild_settings=wrong)}
        with pytest.raises(Refused, match="settings cannot be read"):
            await app.plugins.call(hook, **values)
    right = {"rule": {"per_minute": 3}, "other": {"x": 1}}
    values = {**CALLS[hook], "job": make_job(guild_settings=right)}
    assert await app.plugins.call(hook, **values) == []


async def test_check_job_that_breaks_keeps_every_link_out(start: Start) -> None:
    app = await start(rule="@hookimpl\nasync def check_job(job): 1 / 0")
    for number in range(7):
        with pytest.raises(Refused, match=re.escape(BROKEN)):
            await intake(app, number)
    assert await app.queue.list() == []


@pytest.mark.parametrize("cause", ["PERMISSION", "QUOTA"])
async def test_check_attempt_fails_a_job_before_it_is_downloaded(
    stage: Stage, cause: str
) -> None:
    stage.hook(
        "late",
        "async def check_attempt(job):\n"
        f"    raise Refused('Not today.', cause=Cause.{cause})",
    )
    async with stage.bot() as bot:
        await stage.says(f"$download {link('hang=never')}")
        await stage.hears("Not today.")
        [job] = await bot.app.queue.list()
    assert (job.status, job.cause) == (bossbot.Status.FAILED, Cause[cause])
    assert (job.engine, job.attempts) == ("", 1)


async def test_check_claim_holds_the_jobs_until_it_lets_them_go(
    stage: Stage, logged: list[str], tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    stage.hook(
        "film",
        "async def check_claim():\n"
        "    from pathlib import Path\n"
        f"    if not Path({str(gate)!r}).exists(): raise Refused('It is film time.')",
    )
    async with stage.bot() as bot:
        await stage.says(f"$download {link(stage.image())}")
        job = job_id(await stage.hears("Download started"))
        async with asyncio.timeout(60):
            while "WARNING no job is started now: It is film time." not in logged:
                await asyncio.sleep(0.01)
        stored = await bot.app.queue.get(job)
        assert stored and (stored.status, stored.attempts) == ("queued", 0)
        gate.touch()
        await stage.gets(1)
    warned = [line for line in logged if "film time" in line]
    assert len(warned) == 1, "not at every look at the queue"


async def test_check_upload_that_breaks_posts_nothing_and_says_so(
    stage: Stage,
) -> None:
    stage.hook("rule", "async def check_upload(files):\n    1 / 0")
    async with stage.bot():
        await stage.says(f"$download {link(stage.image())}")
        await stage.hears("Download failed", BROKEN)
    assert not stage.posted()


async def test_another_hook_that_fails_never_takes_the_check_away(
    start: Start, logged: list[str]
) -> None:
    code = """
        @hookimpl
        async def check_job(job):
            raise Refused("no")

        @hookimpl
        async def answer_job(job):
            1 / 0

        @hookimpl
        def job_changed(job):
            raise SystemExit
        """
    app = await start(rule=code)
    rule = app.plugins.all["rule"]
    for _ in range(7):
        assert await app.plugins.call("answer_job", job=make_job()) == []
        await app.plugins.call("job_changed", job=make_job(), previous=None)
        with pytest.raises(Refused, match="no"):
            await intake(app)
    assert app.plugins.all["rule"] is rule and not rule.off
    assert rule.hooks == ["check_job"]
    for hook in ("answer_job", "job_changed"):
        assert any(f"{hook} of plugin rule is switched off" in one for one in logged)
        assert sum(f"plugin rule failed in {hook}" in one for one in logged) == 5


@pytest.mark.parametrize(
    "wrong",
    [
        'def register_tables():\n    return ["CREATE TABL oops"]',
        "def register_commands(bot):\n    oops",
    ],
)
async def test_failed_reload_leaves_no_moment_without_the_check(
    start: Start, write_plugin: WritePlugin, wrong: str
) -> None:
    check = "@hookimpl\nasync def check_job(job):\n    raise Refused('vetoed')\n"
    app = await start(mine=check)
    write_plugin("mine", f"{IMPORTS}{check}\n@hookimpl\n{wrong}\n")
    reloading = asyncio.create_task(app.reload("mine"))
    while not reloading.done():
        with pytest.raises(Refused, match="vetoed"):
            await app.plugins.call("check_job", job=make_job())
        await asyncio.sleep(0)


async def test_check_is_back_after_a_reload(
    start: Start, write_plugin: WritePlugin
) -> None:
    code = IMPORTS + "@hookimpl\nasync def check_job(job): raise Refused('{}')"
    app = await start(rule="@hookimpl\nasync def check_job(job): 1 / 0")
    for text in ("first", "second"):
        write_plugin("rule", code.format(text))
        await app.reload("rule")
        with pytest.raises(Refused, match=text):
            await intake(app)


# Failures are counted per hook


async def test_success_of_another_hook_does_not_reset_the_count(start: Start) -> None:
    code = """
        @hookimpl
        async def answer_job(job):
            raise RuntimeError("again")

        @hookimpl
        async def job_changed(job):
            pass
        """
    app = await start(bad=code)
    for number in range(1, 6):
        assert not app.plugins.all["bad"].off
        assert await app.plugins.call("answer_job", job=make_job()) == []
        await app.plugins.call("job_changed", job=make_job(), previous=None)
        if number < 5:
            assert app.plugins.all["bad"].failures == {"answer_job": number}
    assert app.plugins.all["bad"].off == (
        "answer_job failed too often: RuntimeError: again"
    )


async def test_failures_of_two_hooks_do_not_add_up(start: Start) -> None:
    code = """
        @hookimpl
        async def answer_job(job): 1 / 0

        @hookimpl
        async def job_changed(job): 1 / 0
        """
    app = await start(bad=code)
    for _ in range(4):
        await app.plugins.call("answer_job", job=make_job())
        await app.plugins.call("job_changed", job=make_job(), previous=None)
    assert not app.plugins.all["bad"].off
    assert app.plugins.all["bad"].failures == {"answer_job": 4, "job_changed": 4}


async def test_refusal_and_a_failed_job_are_answers_and_reset_the_count(
    start: Start,
) -> None:
    code = """
        said = None

        @hookimpl
        async def process_files(files):
            raise said or RuntimeError("again")
        """
    app = await start(bad=code)
    module = sys.modules["bossbot_plugins.bad"]
    values = {"job": make_job(), "files": [], "bench": None}
    for said in (Refused("no"), JobFailed(Cause.AGE)):
        for _ in range(4):
            module.said = None
            assert await app.plugins.fold("process_files", "files", **values) == []
        module.said = said
        with pytest.raises(type(said)):
            await app.plugins.fold("process_files", "files", **values)
        assert not app.plugins.all["bad"].failures
    assert not app.plugins.all["bad"].off


# The trace


async def test_trace_names_plugin_hook_arguments_answer_and_time(
    start: Start, logged: list[str]
) -> None:
    code = """
        class GuildConfig(PluginConfig): ...

        @hookimpl
        async def check_job(job, guild, app): ...

        @hookimpl
        def answer_job(job):
            return "an answer that stays out of the log"

        @hookimpl
        async def job_changed():
            raise LookupError

        @hookimpl
        async def check_claim():
            raise Refused("no")
        """
    app = await start({"trace_hooks": True}, rule=code)
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
    app = await start(rule="@hookimpl\nasync def check_job(job): ...")
    await app.plugins.call("check_job", job=make_job())
    assert not [line for line in logged if "rule." in line]


# The API's version


async def test_plugin_that_needs_a_newer_api_is_off_with_the_remedy(
    start: Start,
) -> None:
    works = "@hookimpl\nasync def answer_job(job): return 'works'"
    app = await start(
        newer=f"API = 99\n{works}",
        same=f"API = {bossbot.API}\n{works}",
        odd=f"API = 'one'\n{works}",
        later=f"from bossbot import NotYetThere\n\nAPI = 2\n{works}",
    )
    assert app.plugins.all["newer"].off == (
        "it needs version 99 of the plugin API, and this bot has 1. "
        "Update the bot: git pull"
    )
    assert app.plugins.all["later"].off.startswith("it needs version 2 of the plugin")
    assert app.plugins.all["odd"].off and not app.plugins.all["same"].off
    assert await app.plugins.call("answer_job", job=make_job()) == ["works"]


async def test_check_that_returns_its_refusal_refuses(start: Start) -> None:
    code = """
        @hookimpl
        async def check_job(job):
            return Refused("not today")
        """
    app = await start(rule=code)
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
    code = """
        import functools

        def plain(hook):
            @functools.wraps(hook)
            def wrapper(*args, **options):
                return hook(*args, **options)
            return wrapper

        @hookimpl
        @plain
        async def check_job(job):
            raise Refused("not today")

        @hookimpl
        @plain
        async def answer_job(job):
            return "an answer"
        """
    app = await start(rule=code)
    with pytest.raises(Refused, match="not today"):
        await app.plugins.call("check_job", job=make_job())
    assert await app.plugins.call("answer_job", job=make_job()) == ["an answer"]


@pytest.mark.parametrize("error", ["Refused('no')", "JobFailed(Cause.AGE)"])
async def test_hook_that_has_nothing_to_refuse_fails_and_the_next_is_called(
    start: Start, error: str
) -> None:
    app = await start(
        a=f"@hookimpl\nasync def job_changed(job): raise {error}",
        b="seen = []\n@hookimpl\nasync def job_changed(job): seen.append(job.id)",
    )
    await app.plugins.call("job_changed", job=(job := make_job()), previous=None)
    assert sys.modules["bossbot_plugins.b"].seen == [job.id]
    assert app.plugins.all["a"].failures["job_changed"] == 1


async def test_fold_takes_nothing_of_another_kind(start: Start) -> None:
    app = await start(a="@hookimpl\nasync def process_files(files): return 'x.mp4'")
    values = {"job": make_job(), "files": ["x"], "bench": None}
    assert await app.plugins.fold("process_files", "files", **values) == ["x"]
    assert app.plugins.all["a"].failures["process_files"] == 1
    assert app.plugins.failed_ever == {("a", "process_files"): 1}


async def test_calls_at_the_same_time_drop_a_failing_hook_once(start: Start) -> None:
    app = await start(
        a="@hookimpl\nasync def process_files(files):\n"
        "    import asyncio\n    await asyncio.sleep(0)\n    raise ValueError\n\n"
        "@hookimpl\nasync def check_job(job): ..."
    )
    values = {"job": make_job(), "files": ["x"], "bench": None}
    fold = app.plugins.fold
    folded = await asyncio.gather(
        *(fold("process_files", "files", **values) for _ in range(9))
    )
    assert folded == [["x"]] * 9
    assert app.plugins.all["a"].hooks == ["check_job"]
