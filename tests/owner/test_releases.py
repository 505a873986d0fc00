"""New releases: the package index and the bot's repository are asked once a day, whatever
they answer, and the owner is told once of each release."""

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import pytest
from aiohttp import web
from conftest import SmallApp
from discord_support import Stage, module
from fake_discord import Message

from bossbot import now

pytest_plugins = ("discord_fixtures",)

LATER = "9999.1.1"
PACKAGES = Path(__file__).parent / "plugins" / "packages.py"


class Index:
    """A package index. By path it answers with a status, headers and a body; a body of
    None never comes."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, dict[str, str], bytes | None]] = {}
        self.asked: list[str] = []
        self.url = ""

    def has(self, name: str, newest: str, about: str = "") -> None:
        """A package, as the real index tells of it."""
        told = {
            "info": {"description": about, "name": name, "version": newest},
            "releases": {"0.1": [{"python_version": "py3"}]},
        }
        self.answers[f"/{name}/json"] = (200, {}, json.dumps(told).encode())

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        status, headers, body = self.answers.get(request.path, (404, {}, b""))
        if body is None:
            await asyncio.Event().wait()
        return web.Response(status=status, headers=headers, body=body)


@pytest.fixture
async def index() -> AsyncIterator[Index]:
    index, application = Index(), web.Application()
    application.router.add_get("/{rest:.*}", index.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    index.url = "http://{}:{}".format(*runner.addresses[0][:2])
    yield index
    await runner.cleanup()


def told(stage: Stage) -> list[Message]:
    return stage.said(stage.fake.open_dm(stage.fake.owner.id).id)


async def test_owner_is_told_once_of_each_release_also_after_a_restart(
    stage: Stage, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.add_plugin("releases")
    stage.copy_plugin(PACKAGES)
    index.has("pluggy", LATER)
    index.has("rich", version("rich"))
    address = {"releases__index": f"{index.url}/{{name}}/json"}
    async with stage.bot(**address) as bot:
        app, releases = bot.app, module("releases")
        config = app.plugins.all["releases"].config
        monkeypatch.setattr(releases, "FIRST_S", 0)
        living = asyncio.create_task(releases.run(app, config))
        message = await stage.fake.wait_for(lambda: next(iter(told(stage)), None))
        runs = version("pluggy")
        assert f"New releases: pluggy {LATER} ({runs} runs). " in message.content
        assert "`git pull && " in message.content
        # The toy engine is on no index.
        assert sorted(index.asked) == ["/pluggy/json", "/rich/json"]
        async with asyncio.timeout(60):
            while not await app.facts.get("releases:told"):
                await asyncio.sleep(0.01)
        living.cancel()

        async def looks_after(days: int) -> int:
            """How many requests a look makes so many days after the last one."""
            before, ago = len(index.asked), timedelta(days=days)
            await app.facts.set("releases:asked", str(now() - ago.total_seconds()))
            day = (datetime.now(UTC) - ago).date().isoformat()
            await app.facts.set("problem:releases", day)
            await releases.look(app, config)
            return len(index.asked) - before

        assert await looks_after(0) == 0
        assert await looks_after(1) == 2
        assert len(told(stage)) == 1, "it is still the same release"
        index.has("rich", LATER)
        index.answers.pop("/pluggy/json")
        await looks_after(1)
        assert len(told(stage)) == 2
        assert f"New releases: rich {LATER}" in told(stage)[-1].content
        index.has("pluggy", LATER)  # of which they were told before
        await looks_after(1)
        assert len(told(stage)) == 2
        index.asked.clear()
        await app.facts.set("releases:asked", str(now() + 10**6))  # the clock was set
        await releases.look(app, config)
        assert len(index.asked) == 2
    async with stage.bot(**address) as bot:
        await module("releases").look(bot.app, config)
        assert len(index.asked) == 2, "a restart is no reason to ask"


async def test_second_release_of_a_day_is_told_the_next_day(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.add_plugin("releases")
    releases, newest = [("an engine", "1", "2")], module("releases")

    async def news(app: object, config: object) -> AsyncIterator[tuple[str, str, str]]:
        for release in releases:
            yield release

    async with stage.bot() as bot:
        app, config = bot.app, newest.Config(check_interval_s=0.001)
        monkeypatch.setattr(newest, "news", news)
        await newest.look(app, config)
        releases.append(("another", "3", "4"))
        await newest.look(app, config)
        assert len(told(stage)) == 1
        await app.facts.set("problem:releases", "2020-01-01")
        await newest.look(app, config)
        assert "an engine 2 (1 runs), another 4 (3 runs)" in told(stage)[-1].content
        assert len(told(stage)) == 2


@pytest.mark.parametrize(
    "values, gateway", [({"releases__check_interval_s": 0}, True), ({}, False)]
)
async def test_nobody_is_asked_where_it_is_off_and_by_workers(
    small_app: SmallApp,
    monkeypatch: pytest.MonkeyPatch,
    values: dict[str, int],
    gateway: bool,
) -> None:
    app = small_app("releases", **values)
    releases = module("releases")
    monkeypatch.setattr(releases, "FIRST_S", 10**6)  # else it stays
    app.has_gateway = gateway
    async with asyncio.timeout(60):
        await releases.run(app, app.plugins.all["releases"].config)


REDIRECT = {"Location": "/inner/json"}
GZIP = {"Content-Encoding": "gzip"}
QUOTED = r'{"info": {"description": "\"version\": \"9\"", "version": "1.2"}}'


@pytest.mark.parametrize(
    "status, headers, body, found",
    [
        (200, {}, b'{"info":{"version":"1.30.2"},"releases":{}}', "1.30.2"),
        (200, {}, QUOTED.encode(), "1.2"),
        (200, {}, b"x" * 2**20 + b'"version": "2026.07.04"', "2026.07.04"),
        (200, {}, b'{"info":{"version":"2.0rc1"}}', ""),
        (200, {}, b'{"info":{"version":"2`@everyone"}}', ""),
        (200, {}, b'{"version":"' + b"9" * 5000 + b'"}', ""),
        (200, {}, b"x" * 2**22 + b'"version": "3.0"', ""),
        (200, {}, b"<html>", ""),
        (200, {}, b"", ""),
        (200, GZIP, b'"version": "3.0"', "3.0"),  # which nobody unpacks
        (301, REDIRECT, b'"version": "3.0"', ""),
        (404, {}, b'"version": "3.0"', ""),
        (503, {}, b"", ""),
        (200, {}, None, ""),
    ],
)
async def test_index_may_answer_what_it_likes(
    index: Index,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    headers: dict[str, str],
    body: bytes | None,
    found: str,
) -> None:
    if body is None:
        monkeypatch.setattr(module("releases"), "ANSWER_S", 0.1)
    index.answers["/a/json"] = (status, headers, body)
    index.has("inner", LATER)
    assert await module("releases").newest_in_index(f"{index.url}/a/json") == found
    assert index.asked == ["/a/json"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://a..b/", "http://[/"])
async def test_index_that_is_not_there_has_no_news(url: str) -> None:
    assert await module("releases").newest_in_index(url) == ""


@pytest.mark.parametrize(
    "newer, older",
    [
        ("2026.10.26", "2026.7.4"),
        ("2026.11.01", "2026.10.30.232855.dev0"),
        ("1.10.0", "1.9.9"),
        ("1.0.1", "1.0"),
    ],
)
def test_versions_compare_by_their_numbers(newer: str, older: str) -> None:
    numbers = module("releases").numbers
    assert numbers(newer) > numbers(older)
    assert not numbers("2026.7.4") > numbers("2026.07.04")
    assert not numbers("") > numbers("1")


async def test_tags_of_the_repository_tell_of_the_bots_own_releases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@a.example")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True)

    git("init", "-q", "origin")
    git("-C", "origin", "commit", "-q", "--allow-empty", "-m", "a")
    for tag in ("v1.9.0", "v1.10.0", "v2.0.0rc1", "nightly", "v1.10.0-broken"):
        git("-C", "origin", "tag", tag)
    git("clone", "-q", "origin", "clone")
    releases = module("releases")
    monkeypatch.setattr(releases, "HERE", tmp_path / "clone")
    # What git starts sees no secrets of the bot.
    monkeypatch.setenv("BOSS_BOT_DISCORD_TOKEN", "hush")
    spy = tmp_path / "spy"
    spy.write_text(f'#!/bin/sh\nenv > {tmp_path}/seen\nexec git-upload-pack "$@"\n')
    spy.chmod(0o700)
    git("-C", "clone", "config", "remote.origin.uploadpack", str(spy))
    assert await releases.newest_tag() == "1.10.0"
    seen = (tmp_path / "seen").read_text()
    assert "PATH=" in seen and "hush" not in seen
    git("-C", "clone", "remote", "remove", "origin")
    assert await releases.newest_tag() == ""
    monkeypatch.setattr(releases, "HERE", tmp_path)
    assert await releases.newest_tag() == ""


async def test_repository_that_does_not_answer_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", *words], cwd=tmp_path, check=True)

    git("init", "-q")
    git("remote", "add", "origin", "ssh://a.example/a")
    hangs = tmp_path / "hangs"
    hangs.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 1000\n")
    hangs.chmod(0o700)
    releases, pid = module("releases"), tmp_path / "pid"
    monkeypatch.setattr(releases, "HERE", tmp_path)
    monkeypatch.setitem(releases.SILENT, "GIT_SSH_COMMAND", str(hangs))
    asking = asyncio.create_task(releases.newest_tag())
    async with asyncio.timeout(60):
        while not (pid.exists() and pid.read_text().strip()):
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        # What git had started is gone, too; it may wait to be reaped.
        command = Path("/proc", pid.read_text().strip(), "cmdline")
        with contextlib.suppress(OSError):
            while command.read_bytes():
                await asyncio.sleep(0.01)
    monkeypatch.setattr(releases, "ANSWER_S", 0.01)
    assert await releases.newest_tag() == ""
    git("remote", "set-url", "origin", "git://127.0.0.1:1/")
    assert await releases.newest_tag() == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await releases.newest_tag() == "", "there is no git"


@pytest.mark.parametrize(
    "index", ["", "pypi.org", "https://pypi.org/json", "file:///{name}"]
)
def test_index_that_is_no_address_is_a_mistake_in_the_settings(index: str) -> None:
    with pytest.raises(ValueError, match="expected https"):
        module("releases").Config(index=index)
