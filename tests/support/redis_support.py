"""A Redis of the tests' own, once for all tests of a process."""

import contextlib
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The server that tests share; each takes a prefix of its own."""
    with own_redis() as server:
        yield server


@pytest.fixture
def redis_prefix() -> str:
    return secrets.token_hex(6)
