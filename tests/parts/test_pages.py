"""Tests of plugins/parts/_pages.py: what a child copies beforehand costs it nothing later.

In processes of their own, since a fork copies what the tests hold, too.
"""

import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPT = """
import mmap, os, resource, socket, sys, threading
import bossbot
bossbot.open_plugins([bossbot.OURS / "parts"])
from bossbot_plugins import _child, _pages, _walls

memory = bytearray(400 * mmap.PAGESIZE)

def work():
    for place in range(0, len(memory), 2 * mmap.PAGESIZE):
        memory[place] = 1

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

work()  # its pages are there
_walls.hide()
pages = _pages.rehearsed(work)
for copied in (False, True):
    if os.fork() == 0:
        if copied:
            _pages.copy(pages)
        print(faults(), flush=True)
        os._exit(0)
    os.wait()
for waits in (True, False):  # for a task
    (ours, theirs), (broker, _) = socket.socketpair(), socket.socketpair()
    nowhere = os.open(os.devnull, os.O_RDWR)
    if not waits:
        ours.send(b"\\n")
    if os.fork() == 0:
        _pages.copy = lambda pages: os._exit(77)
        try:
            _child.main(theirs.detach(), nowhere, broker.detach(), pages)
        finally:
            os._exit(1)
    print(os.waitstatus_to_exitcode(os.wait()[1]) == 77)
    ours.close()
print(len(_pages.rehearsed(lambda: sys.exit("broken"))))
_pages.REHEARSAL_S = 1
print(len(_pages.rehearsed(lambda: threading.Event().wait())))
_pages.REHEARSAL_S = 10

def changed():  # by making objects of Python's own memory, and of the system's
    make = lambda: made.extend(bytes(size) for size in [200, 2000] * 500)
    return sum(_pages.rehearsed(make)[1::2])

made = []
for size in (200, 2000):
    held = [bytes(size) for _ in range(5000)]
    del held[::8]
    made.append(held)
print(changed())
_pages.fill_holes()
print(changed())
"""


@pytest.fixture(scope="module")
def ran() -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,  # one that never ends is given up
    )


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_what_was_copied_beforehand_is_not_copied_at_work(
    ran: subprocess.CompletedProcess[str],
) -> None:
    shared, copied, waits, has_a_task, broken, endless, *_ = ran.stdout.split()
    assert int(shared) >= 200
    assert int(copied) < 20
    assert (waits, has_a_task) == ("True", "False")
    assert broken == endless == "0"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_without_holes_what_a_child_makes_lies_on_few_pages(
    ran: subprocess.CompletedProcess[str],
) -> None:
    scattered, together = map(int, ran.stdout.split()[-2:])
    assert together * 2 < scattered
