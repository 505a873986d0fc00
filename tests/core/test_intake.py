"""Intake: links in words, what a link must be, and where it goes."""

import asyncio
import json
import re
import unicodedata
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from bossbot_plugins.download import find_links
from bossbot_plugins.local_worker import Config as WorkerConfig
from bossbot_plugins.local_worker import LocalWorker
from bossbot_plugins.platform_router import check_link
from conftest import (
    PARTS,
    SUPPORT_PLUGINS,
    AddPlugin,
    MakeApp,
    MakeSettings,
    SmallApp,
    make_job,
    our_plugins,
)
from discord_support import module
from hypothesis import example, given, settings
from hypothesis import strategies as st
from routing import route, route_all
from sqlite_support import Disk, on_disk

from bossbot import App, Job, Progress, Refused, Status

EXAMPLES = settings(deadline=None)
# All that can be encoded; to name a codec takes a second more.
CHARACTERS = st.characters(exclude_categories=["Cs"])

# Links in words


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("", []),
        ("  \n ", []),
        ("https://a.b/c", ["https://a.b/c"]),
        (
            "https://a.b/1 https://a.b/2\nhttps://a.b/3",
            [f"https://a.b/{n}" for n in "123"],
        ),
        ("https://a.b/c https://a.b/c", ["https://a.b/c"]),
        ("<https://a.b/c>", ["https://a.b/c"]),
        ("<https://a.b/c>,", ["https://a.b/c"]),
        ("<https://a.b/c>.", ["https://a.b/c"]),
        ("https://a.b/c.", ["https://a.b/c"]),
        ("https://a.b/c,", ["https://a.b/c"]),
        ("https://a.b/c!?", ["https://a.b/c"]),
        ("(https://a.b/c)", ["https://a.b/c"]),
        ("(https://a.b/c).", ["https://a.b/c"]),
        ("[https://a.b/c]", ["https://a.b/c"]),
        ("(<https://a.b/c>)", ["https://a.b/c"]),
        ("||https://a.b/c||", ["https://a.b/c"]),
        ("||<https://a.b/c>||", ["https://a.b/c"]),
        ("**https://a.b/c**", ["https://a.b/c"]),
        ("`https://a.b/c`", ["https://a.b/c"]),
        ('"https://a.b/c"', ["https://a.b/c"]),
        ("https://a.b/c_(d)", ["https://a.b/c_(d)"]),
        ("(https://a.b/c_(d))", ["https://a.b/c_(d)"]),
        ("https://youtu.be/abcdefghij_", ["https://youtu.be/abcdefghij_"]),
        ("https://youtu.be/abcdefghij-", ["https://youtu.be/abcdefghij-"]),
        ("https://a.b/?q=x*", ["https://a.b/?q=x*"]),
        ("hello https://a.b/c", ["https://a.b/c"]),
        ("> . ! <>", []),
    ],
)
def test_links_are_found_in_words(text: str, links: list[str]) -> None:
    assert find_links(text) == links


@EXAMPLES
@given(st.text(CHARACTERS, max_size=300) | st.text("<>()[]|*`\"'.,:!? ab", max_size=40))
@example("(" * 5000 + ")" * 5000)
def test_finding_links_never_fails_and_invents_nothing(text: str) -> None:
    for link in find_links(text):
        assert link and link in text and not re.search(r"\s", link)


@EXAMPLES
@given(
    st.from_regex(
        r"https://[a-z]{1,9}\.[a-z]{2,3}/[A-Za-z0-9_\-=/]{0,20}",
        fullmatch=True,
        alphabet=CHARACTERS,
    ),
    st.sampled_from(
        ["{}", "<{}>", "({})", "{}.", "<{}>,", "||{}||", "({}).", "a {} b"]
    ),
)
def test_link_is_found_as_it_is_whatever_surrounds_it(link: str, words: str) -> None:
    assert link in find_links(words.format(link))


# What a link must be


@pytest.mark.parametrize(
    ("link", "checked"),
    [
        ("https://a.example", "https://a.example/"),
        ("http://a.example/x", "http://a.example/x"),
        ("HTTPS://A.Example/Path", "https://a.example/Path"),
        ("https://a.example/p?q=1&r=ü#frag", "https://a.example/p?q=1&r=ü#frag"),
        ("https://a.example:8443/x", "https://a.example:8443/x"),
        ("https://a.example./x", "https://a.example/x"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://例え.テスト/", "https://xn--r8jz45g.xn--zckzah/"),
        ("https://a_b.example/", "https://a_b.example/"),
        ("http://127.0.0.1:80/", "http://127.0.0.1/"),  # the child's sandbox judges
        ("http://[::1]/", "http://[::1]/"),
        ("http://[0:0:0:0:0:0:0:1]:8/", "http://[::1]:8/"),
        ("http://１２７.０.０.１/", "http://127.0.0.1/"),
        ("http://localhost/", "http://localhost/"),
        ("https://a.example//x//y", "https://a.example//x//y"),
        (
            "https://a.example/?u=http://b.example/",
            "https://a.example/?u=http://b.example/",
        ),
        ("https://a.example/@user/video/1", "https://a.example/@user/video/1"),
        ("https://1/", "https://1/"),
    ],
)
def test_link_is_passed_on_in_one_form(link: str, checked: str) -> None:
    assert check_link(link) == checked


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("hello", "http:// or https://"),
        ("a.example/x", "http:// or https://"),
        ("//a.example/x", "http:// or https://"),
        ("ftp://a.example/x", "http:// or https://"),
        ("file:///etc/passwd", "http:// or https://"),
        ("javascript:alert(1)", "http:// or https://"),
        ("data:text/html,x", "http:// or https://"),
        ("ytsearch5:cats", "http:// or https://"),
        ("r:file:///etc/passwd", "http:// or https://"),
        ("r:http://127.0.0.1/", "http:// or https://"),
        ("oauth:reddit", "http:// or https://"),
        ("ytdl:https://a.example/", "http:// or https://"),
        ("mastodon:http://127.0.0.1/", "http:// or https://"),
        (":ytfav", "http:// or https://"),
        ("http:a.example", "http:// or https://"),
        ("http:/a.example", "http:// or https://"),
        ("-o/etc/passwd", "http:// or https://"),
        ("--exec", "http:// or https://"),
        ("https://user@a.example/", "user names"),
        ("https://user:pass@a.example/", "user names"),
        ("https://a.example@127.0.0.1/", "user names"),
        ("https://@a.example/", "user names"),
        ("https://a.example\\@127.0.0.1/", "backslash"),
        ("https://a.example/\\x", "backslash"),
        ("https://a.example/a b", "space"),
        ("https://a.example/a\tb", "space"),
        ("https://a.example/a\nb", "space"),
        ("https://a.example/\0", "hidden"),
        ("https://a.example/\x7f", "hidden"),
        ("https://a.example/\u200b", "hidden"),
        ("https://a.example/\u202egpj", "hidden"),
        ("https://a.example/\u2066x", "hidden"),
        ("https://a.example/\u00ad", "hidden"),
        ("https://a.example/\ufeff", "hidden"),
        ("https://a.example/\u3000", "hidden"),
        ("https://a.example/\ud800", "hidden"),
        ("https://", "host"),
        ("https:///x", "host"),
        ("https://?x", "host"),
        ("https://.", "host"),
        ("https://..", "host"),
        ("https://a..b/", "host"),
        ("https://.a.example/", "host"),
        ("https://a%2eexample/", "host"),
        ("https://a.example%00.b/", "host"),
        ("https://a.example:99999/", "port"),
        ("https://a.example:x/", "port"),
        ("https://a.example:-1/", "port"),
        ("https://[::1/", "host"),
        ("https://[fe80::1%25eth0]/", "host"),
        ("https://[x]/", "host"),
        ("https://a.example{}/", "host"),
        ("https://a.example'/", "host"),
        ("https://" + "a" * 64 + ".example/", "host"),
        ("https://a.example/" + "x" * 2000, "2,000"),
        ("", "http:// or https://"),
    ],
)
def test_what_is_no_link_is_refused_with_the_reason(link: str, reason: str) -> None:
    with pytest.raises(Refused, match=r"^Invalid URL: ") as caught:
        check_link(link)
    assert reason in str(caught.value)


@EXAMPLES
@given(
    st.text(CHARACTERS, max_size=80).map(lambda rest: f"http://{rest}")
    | st.builds(
        "https://{}{}{}".format,
        st.text("abz019.-_[]:%@ßİﬁ①．。", max_size=20),
        st.sampled_from(["", ":80", ":0", ":", "/", "?", "#"]),
        st.text(CHARACTERS, max_size=40),
    )
    | st.text(CHARACTERS, max_size=80)
)
def test_checked_link_is_stable_and_has_a_plain_host(link: str) -> None:
    try:
        checked = check_link(link)
    except Refused as error:
        assert len(str(error)) < 200
        return
    assert check_link(checked) == checked
    parts = urlsplit(checked)
    assert parts.scheme in ("http", "https")
    assert re.fullmatch(r"[a-z0-9._\-]+|[0-9a-f:.]+", parts.hostname or "")
    assert parts.username is None and parts.password is None
    assert checked.isprintable() and "\\" not in checked
    checked.encode()


@EXAMPLES
@given(st.characters(categories=("Cc", "Cf", "Cs", "Co", "Zs", "Zl", "Zp")))
def test_hidden_character_is_refused_wherever_it_is(char: str) -> None:
    assert unicodedata.category(char)[0] in "CZ"
    for link in (f"https://a{char}.example/", f"https://a.example/{char}x"):
        with pytest.raises(Refused, match="hidden character"):
            check_link(link)


# Where it goes

PLUGINS = Path(__file__).parent / "plugins"
ToyApp = Callable[..., App]


@pytest.fixture
def toy_app(
    make_app: MakeApp,
    make_settings: MakeSettings,
    add_plugin: AddPlugin,
    tmp_path: Path,
) -> ToyApp:
    """With real parts up to the queue, the platforms of toys.py, and their engines."""

    def make(generic: bool = True) -> App:
        names = ["toys", "_toy_engine", *(["generic"] if generic else [])]
        for name in names:
            add_plugin(PLUGINS / f"{name}.py")
        add_plugin(SUPPORT_PLUGINS / "nowhere.py")
        return make_app(make_settings(), our_plugins(*PARTS))

    return make


async def test_link_goes_to_its_platform_or_the_first_engine_that_knows_it(
    toy_app: ToyApp,
) -> None:
    routes = {
        "https://m.shop.example/9?utm=1": ("https://shop.example/9", "shop", "first"),
        "https://SHOP.example/9": ("https://shop.example/9", "shop", "first"),
        "https://shop.example/video/9": (
            *("https://shop.example/video/9", "shop", "second"),
        ),
        "https://both.example/": ("https://both.example/", "early", "first"),
        "https://second.example/a": ("https://second.example/a", "", "second"),
        "https://first.example/second.example": (
            *("https://first.example/second.example", "", "first"),
        ),
        "https://other.example/?q=1": ("https://other.example/?q=1", "", "generic"),
    }
    app = toy_app()
    assert await route_all(app, list(routes)) == list(routes.values())
    for link, where in routes.items():
        assert await route(app, link) == where
    # A platform may refuse a link of its own, which does not hold up the others.
    with pytest.raises(Refused, match="own feed") as caught:
        await route(app, "https://shop.example/feed")
    assert caught.value.platform == "shop"
    links = ["nonsense", "https://first.example/", "https://shop.example/feed"]
    wrong, first, feed = await route_all(app, links)
    assert isinstance(wrong, Refused) and "Invalid URL" in str(wrong)
    assert first == ("https://first.example/", "", "first")
    assert isinstance(feed, Refused) and "own feed" in str(feed)


async def test_link_that_no_engine_knows_has_none(toy_app: ToyApp) -> None:
    app = toy_app(generic=False)
    link = "https://other.example/x"
    assert await route_all(app, [link]) == [(link, "", "")]


async def test_link_whose_engine_is_off_goes_to_another(toy_app: ToyApp) -> None:
    app = toy_app()
    for plugin in app.plugins.all.values():
        plugin.engines = [one for one in plugin.engines if one.name != "first"]
    app.plugins.changed()
    assert await route(app, "https://shop.example/9") == (
        "https://shop.example/9",
        "shop",
        "generic",
    )


async def intake(app: App, link: str, key: str = "1:0", **more: Any) -> Any:
    return await app.intake(
        Job(
            url=link,
            guild_id=1,
            channel_id=2,
            user_id=3,
            request_key=key,
            message_id=4,
            **more,
        )
    )


@pytest.fixture
async def open_app(small_app: SmallApp, add_plugin: AddPlugin) -> App:
    """Started, with a queue that nobody works on; one link starts at once."""
    for name in ("toys", "_toy_engine"):
        add_plugin(PLUGINS / f"{name}.py")
    app = small_app(max_concurrent_downloads=1)
    await app.start()
    return app


async def test_accepted_link_is_committed_as_it_was_normalised(open_app: App) -> None:
    accepted = await intake(open_app, "https://m.shop.example/9?utm=1#x")
    assert accepted.job.position == 0
    (stored,) = await open_app.queue.list()
    assert stored == accepted.job
    assert (stored.url, stored.platform, stored.engine) == (
        *("https://shop.example/9", "shop", "first"),
    )
    assert (stored.guild_id, stored.channel_id, stored.user_id) == (1, 2, 3)
    assert (stored.message_id, stored.status) == (4, Status.QUEUED)
    assert re.fullmatch("[0-9a-f]{10}", stored.id)
    assert await intake(open_app, "https://shop.example/8") is None  # same request
    second = await intake(open_app, "https://shop.example/8", "1:1")
    assert second.job.position == await open_app.queue.position(second.job.id) == 2


async def test_job_carries_what_a_worker_elsewhere_needs(open_app: App) -> None:
    open_app.guilds.folder.mkdir(exist_ok=True)
    (open_app.guilds.folder / "1.toml").write_text("[x]\nper_minute = 3\n")
    options = {"quality": "low", "audio": True}
    accepted = await intake(open_app, "https://shop.example/9", options=options)
    stored = await open_app.queue.get(accepted.job.id)
    assert stored and stored.options == options
    assert stored.guild_settings == {"x": {"per_minute": 3}}
    assert stored.limit_bytes == open_app.settings.max_file_size


@pytest.mark.parametrize("link", ["words", "ftp://x/", "https://u@shop.example/"])
async def test_what_is_no_link_is_never_queued(open_app: App, link: str) -> None:
    with pytest.raises(Refused, match="Invalid URL"):
        await intake(open_app, link)
    assert await open_app.queue.list() == []


async def test_hook_may_refuse_or_answer_a_link(
    open_app: App, add_plugin: AddPlugin
) -> None:
    add_plugin(SUPPORT_PLUGINS / "rules.py")
    assert not (await open_app.reload("rules")).off
    with pytest.raises(Refused, match=r"^no$"):
        await intake(open_app, "https://shop.example/no")
    accepted = await intake(open_app, "https://shop.example/known")
    assert (accepted.job, accepted.answer) == (None, "It is here.")
    assert await open_app.queue.list() == []
    assert (await intake(open_app, "https://shop.example/yes")).job


class Many(NamedTuple):
    keys: list[str]  # of their requests
    taking: asyncio.Future[list[Any]]
    looked_at: list[str]
    may_go_on: asyncio.Event

    async def have_come(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.looked_at) < count:
                await asyncio.sleep(0.001)
        for _ in range(50):  # nor do others come
            await asyncio.sleep(0)


@pytest.fixture
async def many(
    open_app: App, add_plugin: AddPlugin
) -> AsyncIterator[Callable[[float], Many]]:
    """Ten links that come at once, to a check that waits, with turns that last so long;
    and those that the check has seen."""
    add_plugin(SUPPORT_PLUGINS / "slow.py")
    assert not (await open_app.reload("slow")).off
    slow, keys = module("slow"), [f"{number}:0" for number in range(10)]
    started = []

    def many(turn_s: float) -> Many:
        open_app.turn_s = turn_s
        link = "https://shop.example/1"
        taking = asyncio.gather(*(intake(open_app, link, key) for key in keys))
        started.append(taking)
        return Many(keys, taking, slow.looked_at, slow.may_go_on)

    yield many
    for taking in started:
        taking.cancel()


async def test_of_many_links_at_once_the_first_are_taken_in_first(
    open_app: App, many: Callable[[float], Many]
) -> None:
    links = many(60)
    await links.have_come(open_app.turns)
    assert links.looked_at == links.keys[: open_app.turns]
    links.may_go_on.set()
    assert all(one.job for one in await links.taking)
    assert links.looked_at == links.keys


async def test_slow_check_does_not_keep_the_other_links_waiting(
    many: Callable[[float], Many],
) -> None:
    links = many(0.01)
    await links.have_come(10)
    links.may_go_on.set()
    assert all(one.job for one in await links.taking)


async def test_link_that_gives_up_leaves_its_turn(
    open_app: App, many: Callable[[float], Many]
) -> None:
    links = many(60)
    await links.have_come(open_app.turns)
    links.taking.cancel()
    await asyncio.wait([links.taking])
    links.may_go_on.set()
    for number in range(20, 30):
        assert (await intake(open_app, "https://shop.example/2", f"{number}:0")).job


async def test_slow_disk_does_not_keep_the_other_links_waiting(
    open_app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_app.turn_s = 0.01
    path = open_app.settings.data_dir / "bossbot.db"
    disk = Disk(path, path.with_name("disk.db"))
    monkeypatch.setattr(module("sqlite_database"), "sync_file", disk.sync_file)
    disk.free.clear()
    link = "https://shop.example/1"
    taking = [
        asyncio.create_task(intake(open_app, link, f"{number}:0"))
        for number in range(10)
    ]
    async with asyncio.timeout(60):
        while on_disk(path, "SELECT count(*) FROM jobs") != [(10,)]:
            await asyncio.sleep(0.01)
    assert not any(one.done() for one in taking)
    disk.free.set()
    assert all(one.job for one in await asyncio.gather(*taking))


class Claimer(LocalWorker):
    """Claims jobs, and does no more with them."""

    def __init__(self, app: App) -> None:
        super().__init__(app, WorkerConfig())
        self.claimed: list[str] = []

    def _spawn(self, job: Job, work: Any) -> None:
        work.close()
        self.claimed.append(job.request_key)


async def test_link_is_claimed_behind_those_that_are_being_taken_in(
    open_app: App, many: Callable[[float], Many]
) -> None:
    worker, links = Claimer(open_app), many(60)
    worker.give_way_s = 60
    await links.have_come(open_app.turns)
    await open_app.queue.add(make_job(request_key="first"))
    claiming = asyncio.create_task(worker._claim())
    await links.have_come(open_app.turns)
    await open_app.database.all("SELECT 1")  # a claim would have been before this
    assert worker.claimed == [] and open_app.queue.waits()
    links.may_go_on.set()
    await claiming
    assert worker.claimed == ["first"]


async def test_flood_of_links_does_not_keep_a_worker_waiting(
    open_app: App, many: Callable[[float], Many]
) -> None:
    worker, links = Claimer(open_app), many(60)
    await links.have_come(open_app.turns)
    await open_app.queue.add(make_job(request_key="first"))
    await worker._claim()
    assert worker.claimed == ["first"] and not links.taking.done()


async def test_nothing_is_claimed_when_a_stop_came_while_the_worker_gave_way(
    open_app: App, many: Callable[[float], Many]
) -> None:
    worker, links = Claimer(open_app), many(60)
    await links.have_come(open_app.turns)
    await open_app.queue.add(make_job(request_key="first"))
    claiming = asyncio.create_task(worker._claim())
    await asyncio.sleep(0)
    open_app.stopping.set()
    await claiming
    assert worker.claimed == []


async def test_job_changed_comes_for_every_change_in_order(
    open_app: App, add_plugin: AddPlugin
) -> None:
    note = open_app.settings.data_dir / "changes"
    add_plugin(PLUGINS / "notes.py")
    await open_app.reload("notes")
    queue = open_app.queue
    await intake(open_app, "https://shop.example/1")
    job = await queue.claim("worker", 60)
    assert job
    job.status = Status.COMPLETED
    assert await queue.finish(job)
    await open_app.stop()  # which leaves nothing out
    assert [json.loads(line) for line in note.read_text().splitlines()] == [
        [None, "queued"],
        ["queued", "downloading"],
        ["downloading", "completed"],
    ]


async def test_job_progressed_comes_as_the_queue_passes_it_on(
    open_app: App, add_plugin: AddPlugin
) -> None:
    note = open_app.settings.data_dir / "progress"
    add_plugin(PLUGINS / "notes.py")
    await open_app.reload("notes")
    job = (await intake(open_app, "https://shop.example/1")).job
    await open_app.queue.report(job, Progress("Gray", share=0.5))
    await open_app.stop()
    assert note.read_text() == "https://shop.example/1 Gray 0.5\n"
