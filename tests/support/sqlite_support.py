"""What the tests of the queue and of its database share: a look from outside, and a
database that another process holds."""

import asyncio
import contextlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
print("for so long", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


def on_disk(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """What another process would read: only committed rows."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


@contextlib.contextmanager
def locked_by_another_process(
    path: Path, at_least_s: float = 0
) -> Iterator["subprocess.Popen[str]"]:
    """The process holds the database until it reads a line, but no less than that
    time, after which it writes one."""
    with subprocess.Popen(
        [sys.executable, "-c", LOCK, str(path), str(at_least_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin and process.stdout and process.stdout.readline()
        yield process


class Disk:
    """Stands for the disk under a database: holds what a power cut would leave. Put it
    in the place of ``sqlite_database.sync_file``."""

    def __init__(self, path: Path, copy: Path) -> None:
        self.path, self.copy = path, copy
        self.syncs = 0
        self.free = threading.Event()  # cleared, it holds the syncs up
        self.free.set()
        self.error: OSError | None = None  # raised by a sync
        self.errors: list[OSError] = []  # by one each

    def sync_file(self, wal: Path) -> None:
        self.syncs += 1
        assert self.free.wait(30)
        if self.errors:
            raise self.errors.pop(0)
        if self.error:
            raise self.error
        for suffix in ("", "-wal"):
            shutil.copy(f"{self.path}{suffix}", f"{self.copy}{suffix}")

    def holds(self, sql: str) -> list[tuple[Any, ...]]:
        """What the bot would read after a power cut."""
        with tempfile.TemporaryDirectory() as folder:
            for suffix in ("", "-wal"):
                shutil.copy(f"{self.copy}{suffix}", f"{folder}/bossbot.db{suffix}")
            return on_disk(Path(folder, "bossbot.db"), sql)


async def longest_pause_s(turns: int) -> float:
    """Of the event loop, over some turns."""
    longest = 0.0
    for _ in range(turns):
        before = time.monotonic()
        await asyncio.sleep(0.01)
        longest = max(longest, time.monotonic() - before)
    return longest
