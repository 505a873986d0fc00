"""Rates and cooldowns: per line of commands, member and server, by whatever door."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import discord
import pytest
from bossbot_plugins import limits
from bossbot_plugins._commands import check
from conftest import AddPlugin, SmallApp
from discord_support import Stage, link, module

import bossbot
from bossbot import Action, App, Job, QueueFull, Refused

pytest_plugins = ("discord_fixtures",)

OWNER, MEMBER = 30, 31


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets time pass, for the limits only."""
    passed_s = 0.0

    def wait(seconds: float) -> None:
        nonlocal passed_s
        passed_s += seconds
        monkeypatch.setattr(module("limits"), "now", lambda: bossbot.now() + passed_s)

    return wait


StartApp = Callable[..., Any]


@pytest.fixture
async def start(small_app: SmallApp) -> AsyncIterator[StartApp]:
    """Starts an app with limits and no permissions of anybody; the keywords are
    settings of limits."""

    async def start(**values: Any) -> App:
        keys = {f"limits__{key}": value for key, value in values.items()}
        app = small_app("permissions", "limits", **keys)

        async def is_owner(user: Any) -> bool:
            return bool(user.id == OWNER)

        bot: Any = SimpleNamespace(is_owner=is_owner)
        app.client.bot = bot
        await app.start(gateway=False, work=False)
        module("limits")._told.clear()
        return app

    yield start


number = itertools.count(1000)


async def use(
    app: App, name: str = "stats", user: int = MEMBER, guild: int = 1, **fields: Any
) -> Action:
    """A member does something; returns what."""
    action = Action(
        name=name,
        group="stats",
        guild_id=guild,
        channel=SimpleNamespace(id=2),
        user=SimpleNamespace(id=user),
        permissions=discord.Permissions.all(),
        owner=user == OWNER,
        guild_settings=app.guilds.tables(guild),
        **{"request": str(next(number)), **fields},
    )
    await check(app, action)
    return action


async def take(
    app: App, key: str = "", user: int = MEMBER, guild: int = 1, url: str = ""
) -> Any:
    """A link is taken in, of a command of its own unless the key says more."""
    return await app.intake(
        Job(
            url=url or f"https://a.example/{next(number)}",
            guild_id=guild,
            channel_id=2,
            user_id=user,
            request_key=key or f"{next(number)}:0",
        )
    )


# The rate


async def test_rate_counts_links_of_one_command_and_of_several(start: StartApp) -> None:
    app = await start(download_cooldown_s=0)
    for n in range(3):
        await take(app, f"9:{n}")
    await take(app)
    await take(app)
    with pytest.raises(Refused, match=r"5 links a minute\. Try again in 1 min"):
        await take(app)
    assert len(await app.queue.list()) == 5


async def test_rate_lets_the_next_pass_when_the_oldest_is_a_minute_old(
    start: StartApp, clock: Any
) -> None:
    app = await start(download_per_minute=2, download_cooldown_s=0)
    await take(app)
    clock(20)
    await take(app)
    with pytest.raises(Refused, match="Try again in 40 s"):
        await take(app)
    clock(40)
    await take(app)
    with pytest.raises(Refused, match="Try again in 20 s"):
        await take(app)


@pytest.mark.parametrize("count", [2, 9])
async def test_links_at_once_cannot_slip_in_together(
    start: StartApp, count: int
) -> None:
    app = await start(download_per_minute=2, download_cooldown_s=0)
    taken = await asyncio.gather(
        *(take(app, f"7:{n}") for n in range(count)), return_exceptions=True
    )
    assert sum(not isinstance(one, Refused) for one in taken) == 2
    assert len(await app.queue.list()) == 2


async def test_commands_at_once_cannot_slip_in_together(start: StartApp) -> None:
    app = await start()
    used = await asyncio.gather(*(use(app) for _ in range(5)), return_exceptions=True)
    assert sum(not isinstance(one, Refused) for one in used) == 1


# The cooldown


async def test_cooldown_runs_between_commands_and_not_between_their_links(
    start: StartApp, clock: Any
) -> None:
    app = await start()
    for n in range(3):
        await take(app, f"7:{n}")
    with pytest.raises(Refused, match=r"too fast\. Try again in 10 s"):
        await take(app, "8:0")
    with pytest.raises(Refused, match="too fast"):
        await use(app, "download")
    clock(10)
    await use(app, "download", request="8")
    await take(app, "8:0")


async def test_cooldown_of_a_command_that_is_not_over_does_not_stop_its_own_links(
    start: StartApp,
) -> None:
    app = await start()
    for key in ("7", "8"):
        await use(app, "download", request=key)
    await take(app, "7:0")
    with pytest.raises(Refused, match="too fast"):
        await take(app, "8:0")
    await take(app, "7:1")


async def test_all_links_of_a_command_are_refused_in_the_same_words(
    start: StartApp, clock: Any
) -> None:
    app = await start(download_per_minute=1)
    reasons = set()
    await take(app, "7:0")
    for n in range(1, 4):
        with pytest.raises(Refused) as caught:
            await take(app, f"7:{n}")
        reasons.add(str(caught.value))
        clock(3)
    assert reasons == {"You may ask for 1 link a minute. Try again in 1 min."}


# What is counted


async def test_commands_of_one_row_are_counted_together(start: StartApp) -> None:
    app = await start()
    for member, (one, other, together) in enumerate(
        [
            ("queue cancel", "queue retry", True),
            ("queue move", "queue cancel", True),
            ("ping", "help", True),
            ("about", "ping", True),
            ("privacy show", "queue purge", True),
            ("queue list", "queue clear", False),
            ("settings view", "settings update", False),
            ("stats", "help", False),
            ("queue clear", "queue purge", False),
        ],
        100,
    ):
        await use(app, one, member)
        if together:
            with pytest.raises(Refused, match="too fast"):
                await use(app, other, member)
        else:
            await use(app, other, member)


ROWS = [
    ("queue list", 10, 5),
    ("queue clear", 2, 30),
    ("queue cancel", 10, 5),
    ("settings view", 10, 5),
    ("settings update", 5, 15),
    ("search", 15, 1),
    ("ask", 5, 5),
    ("stats", 10, 5),
    ("help", 10, 5),
    ("privacy forget", 2, 30),
]


async def test_each_row_has_the_limits_of_the_table(
    start: StartApp, clock: Any
) -> None:
    app = await start()
    for name, _, cooldown_s in ROWS:
        await use(app, name)
        with pytest.raises(Refused, match=f"too fast. Try again in {cooldown_s} s"):
            await use(app, name)
    await app.stop()
    app = await start(**{f"{limits.LINES[name]}_cooldown_s": 0 for name, *_ in ROWS})
    clock(61)
    for name, per_minute, _ in ROWS:
        for _number in range(per_minute):
            await use(app, name)
        with pytest.raises(Refused, match=f"do that {per_minute} times a minute"):
            await use(app, name)


async def test_members_and_servers_have_limits_of_their_own(start: StartApp) -> None:
    app = await start()
    await use(app)
    await use(app, user=99)
    await use(app, guild=2)
    await use(app, guild=0)
    await take(app)
    await take(app, user=99)
    await take(app, guild=2)
    for again in (use(app), use(app, guild=2), take(app), take(app, user=99)):
        with pytest.raises(Refused):
            await again


async def test_owner_of_the_bot_is_under_no_limit(start: StartApp) -> None:
    app = await start(download_per_minute=1)
    for _ in range(20):
        await use(app, user=OWNER)
        await take(app, user=OWNER)


async def test_what_is_only_asked_for_counts_nothing(start: StartApp) -> None:
    app = await start()
    for _ in range(20):
        await use(app, dry=True)
    await use(app)
    await use(app, dry=True)


async def test_commands_of_other_plugins_have_no_limit(start: StartApp) -> None:
    app = await start()
    for _ in range(20):
        await use(app, "hello")


async def test_0_switches_a_limit_off(start: StartApp) -> None:
    app = await start(download_per_minute=0, download_cooldown_s=0, stats_cooldown_s=0)
    for _ in range(10):
        await take(app)
        await use(app)
    with pytest.raises(Refused, match="10 times a minute"):
        await use(app)


# What was refused does not count


async def test_job_refused_by_whomever_does_not_count(
    start: StartApp, add_plugin: AddPlugin
) -> None:
    add_plugin(Path(__file__).parent / "plugins" / "last_rule.py")
    app = await start(download_per_minute=2)
    for n in range(5):
        with pytest.raises(Refused, match=r"^no$"):
            await take(app, f"7:{n}", url="https://a.example/no")
        with pytest.raises(Refused, match="Invalid URL"):
            await take(app, f"7:{n}", url="https://")
    await take(app, "8:0")
    await take(app, "8:1")
    with pytest.raises(Refused, match="2 links"):
        await take(app, "8:2")


async def test_link_that_finds_the_queue_full_does_not_count(
    start: StartApp, small_app: SmallApp
) -> None:
    app = await start(download_per_minute=2)
    object.__setattr__(app.settings, "max_queue_size", 1)
    await take(app, user=99)
    for n in range(5):
        with pytest.raises(QueueFull):
            await take(app, f"7:{n}")
    await take(app, "8:0", guild=2)
    [job] = await app.queue.list(1)
    await app.queue.cancel(job.id)
    await take(app, "9:0")


async def test_same_request_twice_counts_once(start: StartApp) -> None:
    app = await start(download_per_minute=2)
    await take(app, "7:0")
    assert await take(app, "7:0") is None
    await take(app, "7:1")
    with pytest.raises(Refused, match="2 links"):
        await take(app, "7:2")


async def test_action_refused_gives_back_what_was_counted(start: StartApp) -> None:
    app = await start()
    action = await use(app)
    await app.plugins.call("action_refused", action=action)
    await use(app)
    with pytest.raises(Refused):
        await use(app)


# The server's own


@pytest.mark.parametrize(
    ("loosen", "guild", "owner", "counts"),
    [
        (True, {}, (5, 10), (5, 10)),
        (True, {"rate_per_minute": 50, "cooldown_s": 0}, (5, 10), (50, 0)),
        (True, {"rate_per_minute": 0}, (5, 10), (0, 10)),
        (False, {"rate_per_minute": 50, "cooldown_s": 0}, (5, 10), (5, 10)),
        (False, {"rate_per_minute": 0}, (5, 10), (5, 10)),
        (False, {"rate_per_minute": 3, "cooldown_s": 60}, (5, 10), (3, 60)),
        (False, {"rate_per_minute": 3, "cooldown_s": 60}, (0, 0), (3, 60)),
        (False, {}, (0, 0), (0, 0)),
    ],
)
async def test_server_chooses_its_own_unless_the_owner_says_no(
    loosen: bool, guild: dict[str, int], owner: Any, counts: Any
) -> None:
    config = limits.Config(
        download_per_minute=owner[0],
        download_cooldown_s=owner[1],
        guilds_may_loosen=loosen,
    )
    values = limits.GuildConfig(**guild).within(config, bossbot.Settings())
    assert (values.rate_per_minute, values.cooldown_s) == counts


async def test_server_s_rate_counts(start: StartApp) -> None:
    app = await start()
    model: Any = app.plugins.all["limits"].guild_config
    await app.guilds.set(1, "limits", model, "rate_per_minute", 1)
    await app.guilds.set(1, "limits", model, "cooldown_s", 0)
    await take(app)
    with pytest.raises(Refused, match="1 link a minute"):
        await take(app)
    with pytest.raises(Refused, match="1 link a minute"):
        await use(app, "download")


# The table


async def test_limits_survive_a_restart(start: StartApp) -> None:
    app = await start(download_cooldown_s=0)
    for _ in range(5):
        await take(app)
    await use(app)
    await app.stop()
    app = await start(download_cooldown_s=0)
    with pytest.raises(Refused, match="5 links a minute"):
        await take(app)
    with pytest.raises(Refused, match="too fast"):
        await use(app)


async def test_table_keeps_only_what_still_counts(start: StartApp, clock: Any) -> None:
    app = await start()
    for guild in range(50):
        await use(app, guild=guild)
    clock(61)
    await use(app)
    assert len(await app.database.all("SELECT * FROM limits")) == 1


async def test_a_use_costs_the_same_however_many_there_are(start: StartApp) -> None:
    app = await start()
    for sql, values in ((limits.OLD, (1, 1)), (limits.USED, ("stats", 1, 1))):
        plan = await app.database.all(f"EXPLAIN QUERY PLAN {sql}", *values)
        steps = [row["detail"] for row in plan]
        assert not [step for step in steps if step.startswith("SCAN")], steps


async def test_uses_from_a_clock_that_was_wrong_do_not_count(
    start: StartApp, clock: Any
) -> None:
    app = await start()
    clock(10_000)
    await use(app)
    clock(-10_000)
    await use(app)


async def test_broken_database_refuses(start: StartApp) -> None:
    app = await start()
    await app.database.all("DROP TABLE limits")
    with pytest.raises(Refused, match="A check of this bot is broken"):
        await take(app)


# In Discord


async def test_slash_and_prefix_share_one_limit(stage: Stage) -> None:
    fake, url = stage.fake, link(stage.image())
    stage.add_plugin("limits")
    async with stage.bot(limits__download_cooldown_s=0) as bot:
        words = [f"{url}/{n}" for n in range(4)]
        await stage.says(f"$download {' '.join(words[:3])}")
        await stage.gets(3)
        used = await fake.slash(
            stage.channel_id, "download", {"url": f"{url}/4 {url}/5 {url}/6"}
        )
        told = await stage.hears("5 links a minute", "Try again in", f"{url}/6")
        assert f"{url}/5" not in told.text and told.only_for is fake.member
        assert told in fake.interactions[used].answers
        await stage.gets(5)
        await stage.says(f"$dl {words[3]}")
        await stage.hears("5 links a minute", after=told.id)
        assert len(await bot.app.queue.list()) == 5


async def test_command_that_refuses_does_not_count(stage: Stage) -> None:
    fake = stage.fake
    for name in ("limits", "queue"):
        stage.add_plugin(name)
    async with stage.bot(limits__queue_change_per_minute=1):
        for number in ("none1", "none2"):
            said = await stage.says(f"$queue cancel {number}")
            assert number in (await stage.hears("", after=said.id)).text
            used = await fake.slash(stage.channel_id, "queue cancel", {"id": number})
            assert number in (await fake.answered(used)).text


async def test_slash_answer_is_private_and_a_message_of_its_own(stage: Stage) -> None:
    fake, url = stage.fake, link(stage.image())
    stage.add_plugin("limits")
    async with stage.bot() as bot:
        await stage.says(f"$download {url}")
        await stage.gets(1)
        used = await fake.slash(stage.channel_id, "download", {"url": url})
        told = await fake.answered(used)
        assert "too fast. Try again in" in told.text
        assert told.only_for is fake.member
        assert len(await bot.app.queue.list()) == 1


async def test_slash_with_only_refused_links_is_private(stage: Stage) -> None:
    async with stage.bot():
        used = await stage.fake.slash(
            stage.channel_id, "download", {"url": "https://user:pw@a.example/"}
        )
        told = await stage.hears("user names and passwords")
        assert told.only_for is stage.fake.member
        assert told in stage.fake.interactions[used].answers
        assert [m for m in stage.said() if not m.deleted] == [told]
