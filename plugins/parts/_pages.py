"""The pages of memory that a download changes: a child copies them while it waits.

A forked process shares its parent's memory, and each page is copied when it is first
written to, which for Python is also to read an object. That takes a child more time than
the download itself. The pages are nearly the same each time, so that a rehearsal shows
them, and to copy them at once takes half as long. Needs Linux 5.14; elsewhere nothing
happens.
"""

import ctypes
import itertools
import mmap
import os
import re
import signal
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bossbot_plugins import _walls
from bossbot_plugins._landlock import libc

REHEARSAL_S = 10  # at most
POPULATE_WRITE = 23  # linux/mman.h
PRESENT, EXCLUSIVE = 1 << 63, 1 << 56  # Documentation/admin-guide/mm/pagemap.rst


def rehearsed(work: Callable[[], object]) -> Sequence[int]:
    """The pages of this process that a child changes by some work, which is done in one:
    an address, then a length in bytes, and so on; empty where that cannot be told."""
    # In an array: to read numbers of Python's own would change more pages.
    if sys.platform != "linux":
        return array("Q")
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            signal.alarm(REHEARSAL_S)  # which ends it: the server waits meanwhile
            work()
            with open(writing, "wb") as file:
                array("Q", (one for pair in _changed() for one in pair)).tofile(file)
        finally:  # whatever happens, it goes no further
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        data = file.read()
    found = array("Q", data[: len(data) // 16 * 16])  # it may have died meanwhile
    os.waitpid(pid, 0)
    return found


def _changed() -> Iterator[tuple[int, int]]:
    """The pages that this process shares with no other one."""
    page, folder = mmap.PAGESIZE, Path("/proc/self")
    with _walls.looking_at_itself():
        maps, pagemap = (folder / "maps").open(), (folder / "pagemap").open("rb")
    with maps, pagemap:
        for line in maps.read().splitlines():
            bounds = re.match("([0-9a-f]+)-([0-9a-f]+) rw-p", line)
            if not bounds or ("[" in line and "[heap]" not in line):  # a stack
                continue
            start, end = (int(one, 16) // page for one in bounds.groups())
            pagemap.seek(8 * start)
            entries = array("Q", pagemap.read(8 * (end - start)))
            own = (entry & PRESENT and entry & EXCLUSIVE for entry in entries)
            place = start
            for changed, some in itertools.groupby(own, bool):
                length = sum(1 for _ in some)
                if changed:
                    yield place * page, length * page
                place += length


def copy(pages: Sequence[int]) -> None:
    """Give this process its own copies of some pages."""
    numbers = iter(pages)
    for start, length in zip(numbers, numbers, strict=True):
        libc().madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), POPULATE_WRITE)
