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

def work_and_take_more():  # pages between the others, which later ones do not have
    global more
    more = mmap.mmap(-1, 400 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANON)
    more.write(b"x" * len(more))
    work()

pages = _pages.rehearsed(work_and_take_more)
for copied in (False, True):
    if os.fork() == 0:
        if copied:
            _pages.copy(pages)
        print(faults(), flush=True)
        os._exit(0)
    os.wait()
setup = {"bot": os.getpid(), "private": [], "programs": {}, "memory_bytes": 2**28}
for waits in (True, False):  # for a task
    (ours, theirs), (broker, _) = socket.socketpair(), socket.socketpair()
    nowhere = os.open(os.devnull, os.O_RDWR)
    if not waits:
        ours.send(b"\\n")
    if os.fork() == 0:
        _pages.copy = lambda pages: os._exit(77)
        try:
            _child.main(theirs.detach(), nowhere, broker.detach(), setup, pages)
        finally:
            os._exit(1)
    print(os.waitstatus_to_exitcode(os.wait()[1]) == 77)
    ours.close()
print(len(_pages.rehearsed(lambda: sys.exit("broken"))))
_pages.REHEARSAL_S = 1
print(len(_pages.rehearsed(lambda: threading.Event().wait())))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_what_was_copied_beforehand_is_not_copied_at_work() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,  # one that never ends is given up
    )
    shared, copied, waits, has_a_task, broken, endless = ran.stdout.split()
    assert int(shared) >= 200
    assert int(copied) < 20
    assert (waits, has_a_task) == ("True", "False")
    assert broken == endless == "0"
