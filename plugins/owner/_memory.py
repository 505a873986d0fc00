"""The memory of the bot and its processes."""

import contextlib
import os
import resource
import sys
from collections import defaultdict
from pathlib import Path

PROC = Path("/proc")


def memory() -> dict[str, float]:
    """Bytes of the bot, its fork server, and their children; {} where the system does
    not say. Blocks."""
    if not PROC.is_dir() or sys.platform != "linux":
        return {}
    children = defaultdict(list)
    for path in PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # it has just ended
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children[parent].append(int(path.parent.name))
    own = os.getpid()
    servers, rest = children[own], list[int]()
    for pid in [*servers]:
        rest += below(pid, children)
    found = {"bot": [own], "fork_server": servers, "children": rest}
    return {name: float(sum(map(bytes_of, pids))) for name, pids in found.items()}


def below(pid: int, children: dict[int, list[int]]) -> list[int]:
    found = [*children.get(pid, [])]
    for one in found:  # which grows
        found += children.get(one, [])
    return found


def bytes_of(pid: int) -> int:
    """What is a process's own, and its share of what it has with others, as far as the
    system tells; else all that it has."""
    with contextlib.suppress(OSError, ValueError):
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int((PROC / str(pid) / "statm").read_text().split()[1])
        return pages * resource.getpagesize()
    return 0
