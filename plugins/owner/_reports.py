"""What the log says on a job or an error, fit to be shown to others."""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from bossbot import HERE, cut_line, one_line, redact

ID = re.compile(r"[0-9a-f]{8}|[0-9a-f]{10}")  # of an error that was answered, of a job
TAIL_BYTES = 2**20  # of the newest file, when it has to be quick
MAX_LINES = 200
MAX_WIDTH = 500  # characters of a line


def clean(line: str) -> str:
    """A line without secrets, ids of Discord, what follows a link's host, and the
    owner's folders. What a site wrote may still be in it."""
    line = redact(cut_line(line))
    line = re.sub(
        r"(\w+://)(?:[^\s/'\"<>@]*@)?([^\s/'\"<>?#]+)[^\s'\"<>]*", r"\1\2/…", line
    )
    line = re.sub(r" ?\b(?:guild|user)=\d+", "", line)
    line = re.sub(r"\d{16,20}", "[id]", line)
    for folder, name in ((HERE, "."), (Path.home(), "~")):
        if len(str(folder)) > 1:
            line = line.replace(str(folder), name)
    return one_line(line, fold=False)[:MAX_WIDTH].rstrip()


def lines_on(name: str, folder: Path, whole: bool = True) -> list[str]:
    """The newest lines of the log that have an id in them, with the tracebacks below
    them, cleaned; unless ``whole``, only what was logged last is looked at. Blocks."""
    found: list[str] = []
    for path in sorted(folder.glob("boss-bot_*.log"), key=age, reverse=True):
        with contextlib.suppress(OSError):
            found = [*pick(name, read(path, whole)), *found][-MAX_LINES:]
        if not whole or len(found) == MAX_LINES:
            break
    return found


def age(path: Path) -> float:
    with contextlib.suppress(OSError):  # it has just been removed
        return path.stat().st_mtime
    return 0


def read(path: Path, whole: bool) -> Iterator[str]:
    with path.open("rb") as file:
        if not whole:
            file.seek(max(os.fstat(file.fileno()).st_size - TAIL_BYTES, 0))
        for line in file:
            yield line.decode(errors="replace").rstrip("\n")


def pick(name: str, lines: Iterator[str]) -> list[str]:
    found: list[str] = []
    inside = False
    for line in lines:
        # What belongs to a line above begins with two spaces.
        inside = inside if line.startswith("  ") else name in line
        if inside:
            found.append(line)
            del found[: -2 * MAX_LINES]
    return [clean(line) for line in found[-MAX_LINES:]]


def block(lines: Sequence[str], limit: int) -> str:
    """The last lines that fit into so many characters, as Discord shows them in a block
    of code; "" when there are none."""
    shown: list[str] = []
    for line in reversed(lines):
        line = line.replace("`", "'")[:200]
        limit -= len(line) + 1
        if limit < 0:
            break
        shown.insert(0, line)
    return "```\n" + "\n".join(shown) + "\n```" if shown else ""
