"""Whether the bot is well: what /healthz and /readyz say, and what systemd is told."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from conftest import MakeApp, MakeSettings, our_plugins
from discord_support import Stage, link, module

from bossbot import BossBot

pytest_plugins = ("discord_fixtures",)

ANY_PORT = {"metrics__listen": "127.0.0.1:0"}
LIFE = {"loop": "ok", "database": "ok", "fork_server": "ok"}
READY = {**LIFE, "disk": "ok", "queue": "ok", "gateway": "ok", "worker": "ok"}


async def address(logged: list[str]) -> str:
    """Where the newest bot's port is, once it is open."""
    async with asyncio.timeout(60):
        while True:
            found = re.findall(r"health are at (http://\S+)", "\n".join(logged))
            if found:
                return str(found[-1])
            await asyncio.sleep(0.01)


def read(url: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


async def ask(logged: list[str], path: str) -> tuple[int, dict[str, Any]]:
    url = await address(logged) + path
    return await asyncio.to_thread(read, url)


@contextlib.asynccontextmanager
async def watched(stage: Stage, **values: Any) -> AsyncIterator[BossBot]:
    stage.add_plugin("metrics")
    stage.add_plugin("retention")
    async with stage.bot(**ANY_PORT, **values) as bot:
        yield bot


async def until_failed(logged: list[str], path: str, name: str) -> dict[str, Any]:
    """The answer once this check fails."""
    async with asyncio.timeout(60):
        while True:
            code, said = await ask(logged, path)
            if name in said["failed"]:
                assert (code, said["status"]) == (503, "failed")
                return said
            await asyncio.sleep(0.02)


async def test_bot_that_is_well_says_so(
    stage: Stage, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watched(stage) as bot:
        ok = {"status": "ok", "failed": []}
        assert await ask(logged, "/healthz") == (200, {**ok, "checks": LIFE})
        assert await ask(logged, "/readyz?a=b") == (200, {**ok, "checks": READY})
        for attribute, part in (("has_gateway", "gateway"), ("works", "worker")):
            with monkeypatch.context() as half:
                half.setattr(bot.app, attribute, False)
                code, said = await ask(logged, "/readyz")
                assert (code, READY.keys() - said["checks"]) == (200, {part})
        url = await address(logged)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            await asyncio.to_thread(urllib.request.urlopen, f"{url}/jobs")
    with pytest.raises(urllib.error.URLError):
        await asyncio.to_thread(read, f"{url}/healthz")


async def test_database_that_another_program_has_locked_is_named(
    stage: Stage, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watched(stage) as bot:
        monkeypatch.setattr(module("_health"), "ANSWER_S", 2)
        other = sqlite3.connect(bot.app.settings.data_dir / "bossbot.db")
        with contextlib.closing(other):
            other.execute("BEGIN IMMEDIATE")
            probes = set[Any]()
            for _ in range(3):  # those who ask do not pile up
                code, said = await ask(logged, "/healthz")
                probes.add(bot.app.database._probe)
                assert (code, said["failed"]) == (503, ["database"])
                assert said["checks"]["database"] == "no answer within 2 s"
            assert len(probes) == 1
            other.rollback()
        async with asyncio.timeout(60):
            while (await ask(logged, "/healthz"))[0] != 200:
                await asyncio.sleep(0.05)


async def test_fork_server_that_was_killed_is_named_and_comes_back(
    stage: Stage, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.server = None
    async with watched(stage) as bot:
        runner: Any = bot.app.runner
        if not runner.can_fork:
            return
        runner.renew_server_s = 3600
        os.kill(runner._server.pid, signal.SIGSTOP)
        said = await until_failed(logged, "/healthz", "fork_server")
        assert said["checks"]["fork_server"] == "the fork server is stopped"
        os.kill(runner._server.pid, signal.SIGCONT)
        async with asyncio.timeout(60):
            while (await ask(logged, "/healthz"))[0] != 200:
                await asyncio.sleep(0.02)
        loop, waits = asyncio.get_running_loop(), list[float]()
        call_later = loop.call_later

        def noting(wait_s: float, work: Any, *more: Any, **how: Any) -> Any:
            if work == runner._renew_server:
                waits.append(wait_s)
            return call_later(wait_s, work, *more, **how)

        monkeypatch.setattr(loop, "call_later", noting)
        for deaths in (1, 2, 3):
            runner._start_server()
            runner._server.kill()
            async with asyncio.timeout(60):
                while len(waits) < deaths:  # else the death before it is still named
                    await asyncio.sleep(0.01)
            said = await until_failed(logged, "/healthz", "fork_server")
            assert said["failed"] == ["fork_server"]
        assert waits == [3600, 7200, 14400], "those that die at once wait longer"
        runner._start_server()
        killed, runner.renew_server_s = runner._server, 0.01
        runner._server_began_s = 0  # as if it had lived for long
        killed.kill()
        async with asyncio.timeout(60):
            while runner._server in (None, killed):
                await asyncio.sleep(0.01)
            while (await ask(logged, "/healthz"))[0] != 200:
                await asyncio.sleep(0.02)


async def test_gateway_that_was_cut_is_named_and_does_not_count_as_dead(
    stage: Stage, logged: list[str]
) -> None:
    async with watched(stage):
        stage.fake.accepts_connections = False
        await stage.fake.drop_gateway()
        said = await until_failed(logged, "/readyz", "gateway")
        assert said["failed"] == ["gateway"]
        assert "gateway" in said["checks"]["gateway"]
        assert (await ask(logged, "/healthz"))[0] == 200


async def test_full_disk_and_a_worker_that_has_ended_are_named(
    stage: Stage, logged: list[str]
) -> None:
    async with watched(stage, retention__min_free_space="1000000TiB") as bot:
        worker: Any = bot.app.worker
        said = await until_failed(logged, "/readyz", "disk")
        assert re.match(r"only [\d.]+ \w+ are free", said["checks"]["disk"])
        worker._dispatcher.cancel()
        said = await until_failed(logged, "/readyz", "worker")
        assert said["failed"] == ["disk", "worker"]
        bot.app.stopping.set()
        assert await worker.health() == "the bot stops"


async def test_loop_that_is_blocked_is_named(
    stage: Stage, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watched(stage):
        monkeypatch.setattr(module("_health"), "ANSWER_S", 0.1)
        url, answers = await address(logged), list[Any]()
        asking = threading.Thread(target=lambda: answers.append(read(f"{url}/healthz")))
        asking.start()
        asking.join()  # the loop stands still meanwhile
        [(code, said)] = answers
        assert (code, said["failed"]) == (503, ["loop"])
        ended = asyncio.new_event_loop()
        ended.close()
        health = module("_health")
        page = health.ask_from_outside(ended, health.ask({}))
        assert page.status == 503 and b"it has ended" in page.body


async def test_part_that_breaks_when_it_is_asked_is_not_well(
    stage: Stage, logged: list[str]
) -> None:
    async with watched(stage) as bot:
        storage: Any = bot.app.queue

        async def health() -> str:
            raise RuntimeError("no\nnews")

        storage.health = health
        _, said = await ask(logged, "/readyz")
        assert said["checks"]["queue"] == "RuntimeError: no news"


# The port


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("9642", "expected an address and a port"),
        ("127.0.0.1:x", "expected an address and a port"),
        ("127.0.0.1:99999", "expected an address and a port"),
        (":9642", "expected an address and a port"),
        ("::1:9642", "needs brackets"),
        ("[::1:9642", "expected an address and a port"),
        (" 127.0.0.1:9642", "expected an address and a port"),
        ("http://127.0.0.1:9642", "expected an address and a port"),
        ("off", "expected an address and a port"),
    ],
)
def test_address_that_is_none_is_a_mistake_in_the_settings(
    make_app: MakeApp, make_settings: MakeSettings, listen: str, expected: str
) -> None:
    app = make_app(make_settings(metrics__listen=listen), our_plugins("metrics"))
    off = app.plugins.all["metrics"].off
    assert off.startswith("[plugins.metrics] listen") and expected in off


def test_address_may_be_a_name_or_ipv6() -> None:
    from bossbot_plugins._health import split_address

    assert split_address("[::1]:9642") == ("::1", 9642)
    assert split_address("localhost:1") == ("localhost", 1)


async def test_port_that_is_taken_is_said_once_and_the_bot_runs(
    stage: Stage, logged: list[str]
) -> None:
    stage.add_plugin("metrics")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        async with stage.bot(metrics__listen=listen) as bot:
            async with asyncio.timeout(60):
                while not any("cannot listen on" in line for line in logged):
                    await asyncio.sleep(0.01)
            [said] = [line for line in logged if "cannot listen on" in line]
            assert listen in said and "[plugins.metrics]" in said
            await stage.says(f"$dlt {link(stage.image())}")
            await stage.gets(1)
            assert not bot.app.plugins.all["metrics"].failures


@contextlib.contextmanager
def opened(host: str = "127.0.0.1") -> Iterator[Any]:
    """A port with one page."""
    page = module("_health").Page
    with mock.patch.object(module("_port"), "LOOK_S", 0.01):
        port = module("_port").Port(host, 0, {"/": lambda: page(b"well")})
    with contextlib.closing(port):
        yield port


def idle(port: Any, stack: contextlib.ExitStack, source: str = "") -> socket.socket:
    """A client that says nothing more."""
    where = (source, 0) if source else None
    one = socket.create_connection(port.server_address[:2], 10, source_address=where)
    one.sendall(b"GET / HTT")
    return stack.enter_context(one)


def is_ended(client: socket.socket) -> bool:
    """Waits until the port has let go of it."""
    with contextlib.suppress(ConnectionResetError):
        return client.recv(1) == b""
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_address_of_the_port_can_be_opened(host: str) -> None:
    if host == "::1" and not socket.has_dualstack_ipv6():
        return
    with opened(host) as port:
        for method, body in (("GET", b"well"), ("HEAD", b"")):
            asked = urllib.request.Request(port.url, method=method)
            with urllib.request.urlopen(asked, timeout=20) as answer:
                assert (answer.status, answer.read()) == (200, body)
        for method in ("POST", "TRACE", "<b>"):
            asked = urllib.request.Request(port.url, method=method)
            with pytest.raises(urllib.error.HTTPError, match="501"):
                urllib.request.urlopen(asked, timeout=20)


def test_clients_that_say_nothing_keep_nobody_else_from_an_answer() -> None:
    most = module("_port").MAX_OF_ADDRESS
    with opened() as port, contextlib.ExitStack() as stack:
        kept = [idle(port, stack, "127.0.0.2") for _ in range(most)]
        assert is_ended(idle(port, stack, "127.0.0.2")), "one too many of its address"
        with urllib.request.urlopen(port.url, timeout=20) as answer:
            assert answer.read() == b"well"
        kept += [idle(port, stack, "127.0.0.3") for _ in range(most)]
        assert is_ended(idle(port, stack, "127.0.0.4")), "one too many of all"
        assert len(port._open) == module("_port").MAX_REQUESTS


def test_client_that_says_a_byte_now_and_then_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module("_port"), "WHOLE_S", 0)
    monkeypatch.setattr(module("_port").Answer, "timeout", 60)  # none is that slow
    with opened() as port, contextlib.ExitStack() as stack:
        assert is_ended(idle(port, stack))
        for _ in range(1000):
            if not port._open:
                break
            time.sleep(0.01)
        assert not port._open


# systemd


@contextlib.contextmanager
def manager(monkeypatch: pytest.MonkeyPatch, address: str) -> Any:
    """What systemd does: a socket that is told of the service's states."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(address.replace("@", "\0", 1))
        told.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        yield told


async def states(told: socket.socket, last: str) -> list[str]:
    """The states up to this one."""
    found: list[str] = []
    async with asyncio.timeout(60):
        while last not in found:
            found.append(
                (await asyncio.get_running_loop().sock_recv(told, 100)).decode()
            )
    return found


@pytest.mark.parametrize("kind", ["path", "abstract"])
async def test_systemd_is_told_of_start_life_and_stop(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    name = (
        str(tmp_path / "notify")
        if kind == "path"
        else f"@{tmp_path.name}-{os.getpid()}"
    )
    stage.add_plugin("systemd")
    monkeypatch.setenv("WATCHDOG_USEC", "40000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    with manager(monkeypatch, name) as told:
        async with stage.bot() as bot:
            assert await states(told, "WATCHDOG=1") == ["READY=1", "WATCHDOG=1"]
            for _ in range(3):
                assert await states(told, "WATCHDOG=1") == ["WATCHDOG=1"]
            bot.app.stopping.set()
            assert set(await states(told, "STOPPING=1")) <= {"WATCHDOG=1", "STOPPING=1"}
            assert await states(told, "WATCHDOG=1") == ["WATCHDOG=1"]  # uploads end


async def test_loop_that_is_blocked_feeds_no_watchdog(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.add_plugin("systemd")
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    with manager(monkeypatch, str(tmp_path / "notify")) as told:
        async with stage.bot():
            await states(told, "WATCHDOG=1")
            with contextlib.suppress(BlockingIOError):
                while told.recv(100):
                    pass
            time.sleep(0.1)  # noqa: ASYNC251
            with pytest.raises(BlockingIOError):
                told.recv(100)
            await states(told, "WATCHDOG=1")


async def test_systemd_that_is_not_there_or_watches_another_process_is_no_matter(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    stage.add_plugin("systemd")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    async with stage.bot():
        assert module("systemd").feed_every_s() is None
        await stage.says(f"$dlt {link(stage.image())}")
        await stage.gets(1)
    assert not [line for line in logged if "failed in run" in line]
