"""The log lines about a job or an error, in a form that is safe to show to others."""

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


SECRET = "[secret]"
NAMED = (
    "(?:token|secret|passw|api[_-]?key|session[_-]?id|csrf|authorization|ct0|sapisid)"
)
IS = r"['\"]?\s?(?:[:=]|%3D)\s?['\"]?"
KINDS = "(?:bearer|basic|bot|oauth)"
S, FOLDER = r"[\\/]+", r"[^\\/:'\"]{1,64}"
# Private things, and their replacements. Secrets that the bot
# knows are gone before; these are for what sites and programs say. Each begins with
# something fixed, or is bounded: a line from outside takes linear time.
PRIVATE = [
    (re.compile(pattern), shown)
    for pattern, shown in (
        (r"(\w{1,20}://)(?:[^\s/'\"<>@]*@)?([^\s/'\"<>?#]+)[^\s'\"<>]*", r"\1\2/…"),
        (r"//[^\s/@'\"]*:[^\s/@'\"]*@", f"//{SECRET}@"),
        # A link without "https:", or as it is within JSON or another link.
        (r"((?<![\w.-])(?:[\w-]+\.)+[a-z]{2,})(?:\\?/|%2F)[^\s'\"<>]*", r"\1/…"),
        # A header or an entry with a telling name, and what looks like a key.
        (r"(?i)(cookie2?['\"]?\s?[:=]).*", rf"\1 {SECRET}"),
        (r"((?:TRUE|FALSE)\s/\S*\s(?:TRUE|FALSE)\s\d+\s\S+\s)\S+", rf"\1{SECRET}"),
        (
            rf"(?i)({NAMED}[\w-]{{0,20}}{IS})(?:{KINDS} )?[^\s'\"&;,)}}]+",
            rf"\1{SECRET}",
        ),
        (rf"(?i)\b({KINDS}) [\w.~+/=-]{{16,}}", rf"\1 {SECRET}"),
        (r"(?<![\w-])[\w-]{17,}\.[\w-]{5,}\.[\w-]{17,}", SECRET),
        (r"(?a)(?<!\w)(?=\w*\d)(?=\w*[A-Za-z])\w{32,}", SECRET),
        # People, and their machines.
        (r"[\w.+-]{1,64}@[\w.-]{1,200}\.[^\W\d_]{2,}", "[e-mail]"),
        (r"((?:/home|/Users)/+)[^/\s'\":;,)]+", r"\1[name]"),
        (rf"(?i)([a-z]:{S}users{S})(?:{FOLDER}(?={S})|[^\s\\/:'\"]+)", r"\1[name]"),
        (
            r"(?<![\w.])(?!127\.|0\.0\.0\.0)\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)",
            "[address]",
        ),
        (
            r"(?i)(?<![\w:])(?=[\da-f:]{0,30}::|(?:[\da-f]{1,4}:){5})[\da-f:]{3,}",
            "[address]",
        ),
        (r" ?\b(?:guild|user)=\d+", ""),
        (r"\d{16,20}", "[id]"),
        (r"`{3,}", "'''"),  # would end a block of code
    )
]


# A path from the root, and what of it is nobody's: libraries.
PATH = re.compile(r"(?<![\w.~/:…\\])(?:/[^\s/'\"<>:,;()]+){2,}")
LIBRARIES = re.compile(r".*/(?:site-packages|python3\.\d+)/")


def shorten(found: re.Match[str]) -> str:
    if found[0].startswith(("/home/[", "/Users/[")):
        return found[0]
    library = LIBRARIES.match(path := found[0])
    return "…/" + (path[library.end() :] if library else path.rpartition("/")[2])


def clean(line: str) -> str:
    """A line without secrets, ids of Discord, what follows a link's host, addresses, and
    the names of people and folders, as far as they can be recognised. What a site wrote may
    still be in it."""
    line = redact(cut_line(line, 4 * MAX_WIDTH))
    for folder, name in ((HERE, "."), (Path.home(), "~")):
        if len(str(folder)) > 1:
            line = line.replace(str(folder), name)
    for pattern, shown in PRIVATE:
        line = pattern.sub(shown, line)
    line = PATH.sub(shorten, line)
    return one_line(line, fold=False)[:MAX_WIDTH].rstrip()


def lines_on(name: str, folder: Path, whole: bool = True) -> list[str]:
    """The newest lines of the log that have an id in them, with the tracebacks below
    them, cleaned; unless ``whole``, only the end of the log is read. Blocks."""
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
    inside, whole = False, re.compile(rf"\b{name}\b")  # not in a longer number
    for line in lines:
        # What belongs to a line above begins with two spaces.
        inside = inside if line.startswith("  ") else bool(whole.search(line))
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
