"""A Redis of the tests' own, once for all tests of a process."""

import contextlib
import functools
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest


class RedisServer:
    """A redis-server on a socket in a folder of its own."""

    def __init__(self, *options: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="redis-"))  # a short path
        self.socket = self.folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *("redis-server", "--port", "0", "--unixsocket", str(self.socket)),
                *("--dir", str(self.folder), "--save", "", "--daemonize", "no"),
                *("--logfile", str(self.folder / "log"), *self.options),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.wait()

    def wait(self) -> None:
        """Wait until it answers."""
        import redis

        with contextlib.closing(redis.Redis.from_url(self.url)) as client:
            for _ in range(1000):
                with contextlib.suppress(redis.exceptions.RedisError, OSError):
                    if client.ping():
                        return
                time.sleep(0.01)
        raise TimeoutError((self.folder / "log").read_text())

    def kill(self, how: int = signal.SIGKILL) -> None:
        if self.process:
            self.process.send_signal(how)
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGCONT)
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def own_redis(*options: str) -> Iterator[RedisServer]:
    """A server for one test."""
    server = RedisServer(*options)
    try:
        server.start()
        yield server
    finally:
        server.end()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Sentinel(RedisServer):
    """A Sentinel that watches a primary, and its replica, under the name "bot"."""

    def __init__(self, primary: int, port: int) -> None:
        super().__init__()
        self.port, self.primary = port, primary

    def start(self) -> None:
        config = self.folder / "sentinel.conf"
        lines = [
            *(f"port {self.port}", f"dir {self.folder}", "daemonize no"),
            *(f"unixsocket {self.socket}", f"logfile {self.folder / 'log'}"),
            f"sentinel monitor bot 127.0.0.1 {self.primary} 1",
            "sentinel down-after-milliseconds bot 500",
            "sentinel failover-timeout bot 3000",
        ]
        config.write_text("\n".join(lines))
        self.process = subprocess.Popen(["redis-server", config, "--sentinel"])
        self.wait()


class Guarded(NamedTuple):
    """A primary, its replica, and the Sentinel that watches them."""

    primary: RedisServer
    replica: RedisServer
    sentinel: Sentinel


@contextlib.contextmanager
def guarded_redis(*options: str) -> Iterator[Guarded]:
    """Servers of which one takes over when the other is gone."""
    import redis

    first, second, third = free_port(), free_port(), free_port()
    of_first = ("--replicaof", "127.0.0.1", str(first))
    at_once = ("--repl-diskless-sync-delay", "0")
    with (
        own_redis(*options, *at_once, "--port", str(first)) as primary,
        own_redis(*options, "--port", str(second), *of_first) as replica,
    ):
        with contextlib.closing(
            redis.Redis.from_url(primary.url, socket_timeout=60)
        ) as client:
            while not client.info("replication")["connected_slaves"]:
                time.sleep(0.01)
            assert client.set("x", 1) and client.wait(1, 60_000)
        sentinel = Sentinel(first, third)
        try:
            sentinel.start()
            with contextlib.closing(redis.Redis.from_url(sentinel.url)) as client:
                while not client.sentinel_slaves("bot"):
                    time.sleep(0.01)
            yield Guarded(primary, replica, sentinel)
        finally:
            sentinel.end()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The server that tests share; each takes a prefix of its own."""
    from redis import utils

    with own_redis() as server, pytest.MonkeyPatch.context() as patch:
        # Which each connection asks the disk for.
        patch.setattr(utils, "get_lib_version", functools.cache(utils.get_lib_version))
        yield server


@pytest.fixture
def redis_prefix() -> str:
    return secrets.token_hex(6)
