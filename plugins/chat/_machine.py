"""The memory of this machine."""

import os
from contextlib import suppress
from pathlib import Path


def memory_bytes() -> int:
    """The memory of this machine or container; 0 where it does not say."""
    found = []
    with suppress(OSError, ValueError, AttributeError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(OSError, ValueError):  # "max" is not a number
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(found, default=0)
