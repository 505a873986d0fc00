"""The pages of memory that a download changes: a child copies them while it waits.

A forked process shares its parent's memory, and each page is copied when it is first
written to, which for Python is also to read an object. That takes a child more time than
the download itself. The pages are nearly the same each time, so that a rehearsal shows
them, and to copy them at once takes half as long. Only on Linux; elsewhere nothing
happens.
"""

import ctypes
import mmap
import os
import re
import signal
import sys
from array import array
from collections.abc import Callable, Iterator
from typing import BinaryIO

from bossbot_plugins import _walls
from bossbot_plugins._landlock import libc

REHEARSAL_S = 10  # at most
MAX_PIECES = 1024  # linux/uio.h
PRESENT, EXCLUSIVE = 1 << 63, 1 << 56  # Documentation/admin-guide/mm/pagemap.rst


def rehearsed(work: Callable[[], object]) -> "array[int]":
    """The pages of this process that a child changes by some work, which is done in one:
    for each the address and length of its first byte; empty where that cannot be found."""
    if sys.platform != "linux":
        return array("L")
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            signal.alarm(REHEARSAL_S)  # which ends it: the server waits meanwhile
            areas = _areas()  # before it gets more, which later children do not have
            work()
            with open(writing, "wb") as file:
                array(
                    "L", (one for page in _changed(areas) for one in (page, 1))
                ).tofile(file)
        finally:  # whatever happens, it goes no further
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        data = file.read()
    piece = 2 * array("L").itemsize
    found = array("L", data[: len(data) // piece * piece])  # it may have died meanwhile
    os.waitpid(pid, 0)
    return found


def _areas() -> list[tuple[int, int]]:
    """The first page and the end of each area of memory that is this process's own."""
    areas = []
    with _of_itself("maps") as file:
        for line in file.read().splitlines():
            bounds = re.match(b"([0-9a-f]+)-([0-9a-f]+) rw-p", line)
            if bounds and (b"[" not in line or b"[heap]" in line):  # no stack
                start, end = (int(one, 16) // mmap.PAGESIZE for one in bounds.groups())
                areas.append((start, end))
    return areas


def _changed(areas: list[tuple[int, int]]) -> Iterator[int]:
    """The addresses of the pages there that this process shares with no other one."""
    with _of_itself("pagemap") as file:
        for start, end in areas:
            file.seek(8 * start)
            entries = array("Q", file.read(8 * (end - start)))
            for place, entry in enumerate(entries, start):
                if entry & PRESENT and entry & EXCLUSIVE:
                    yield place * mmap.PAGESIZE


def _of_itself(name: str) -> BinaryIO:
    """What the kernel says of this process's memory."""
    with _walls.looking_at_itself():
        return open(f"/proc/self/{name}", "rb")


def copy(pages: "array[int]") -> None:
    """Give this process its own copies of some pages: a byte of each is written onto
    itself, in few calls."""
    address, length = pages.buffer_info()
    count, piece = length // 2, 2 * pages.itemsize
    for first in range(0, count, MAX_PIECES):
        some = ctypes.c_void_p(address + first * piece)
        number = ctypes.c_ulong(min(MAX_PIECES, count - first))
        libc().process_vm_writev(
            os.getpid(), some, number, some, number, ctypes.c_ulong()
        )
