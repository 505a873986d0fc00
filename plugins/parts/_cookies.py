"""An attempt's own cookies.txt, and the cookies that a site rotates meanwhile.

An attempt may write anything into its file. Of that, the owner's gets readable rows for
domains it has already, or of the platform itself; no row of it is lost by an attempt.
"""

import contextlib
import os
import re
import stat
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from bossbot_plugins._files import write_atomically
from loguru import logger

from bossbot import Platform, hide_secrets, make_private

COOKIES_HEADER = "# Netscape HTTP Cookie File"
MAX_JAR_BYTES = 2**20  # of a cookies.txt
MAX_ROW = 8192  # characters; browsers take 4,096 for name and value
MAX_OLD_VALUES = 500  # rotated ones that still count as secrets
CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")  # all but the tab
NO_TEXT = re.compile("[\udc80-\udcff]")  # it was not UTF-8
# What no engine stumbles over: of these, yt-dlp would print the whole row.
DOMAIN = re.compile(r"\.?\w[\w.-]*", re.ASCII)
EXPIRES = re.compile(r"(?:[0-9]{1,15}(?:\.[0-9]{1,15})?)?")

Rows = dict[tuple[str, str, str], list[str]]  # by domain, path and name

_lock = threading.Lock()
_given: dict[Path, str] = {}  # the owner's file as it was, by the attempt's
_values: dict[Path, list[str]] = {}  # of the owner's files, the latest first


def write_cookies(platform: Platform, path: Path) -> Path | None:
    """An attempt's own cookies.txt, from the platform's settings; None without any."""
    rows: Rows = {}
    if file := platform.cookies_file:
        try:
            if done := make_private(file):
                logger.warning("{}", done)
            text = _read(file)
            rows, bad = _cookie_rows(text)
            if bad:
                numbers = ", ".join(map(str, bad[:10])) + ", ..." * (len(bad) > 10)
                logger.warning("{}: no cookie in line {}", file, numbers)
            with _lock:
                if rows:
                    _given[path] = text
                _hide(file, rows)
        except (OSError, ValueError) as error:
            logger.warning("{}: cookies_file: {}", platform.name, error)
    for name, value in platform.cookies.items():
        if value and (domain := platform.cookies_domain):
            plain = CONTROL.sub("", value.get_secret_value()).replace("\t", "")
            row = [domain, "TRUE", "/", "TRUE", "0", name, plain]
            rows[_bare(domain), "/", name] = row
    if not rows:
        return None
    write_atomically(path, _cookies_txt(rows))
    return path


def keep_cookies(platform: Platform, used: Path) -> None:
    """Write rotated cookies back to the owner's file, unless it was changed in the
    meantime; named cookies do not go there."""
    file, before = platform.cookies_file, _given.pop(used, None)
    if file is None or before is None:
        return
    try:
        left, _ = _cookie_rows(_read(used, os.O_NOFOLLOW))
        rows, _ = _cookie_rows(before)
        new = _wanted(platform, rows, left)
        gone = [key for key, row in rows.items() if key not in left and _is_over(row)]
        if not left or (not new and not gone):
            return
        rows = {key: row for key, row in {**rows, **new}.items() if key not in gone}
        if (
            len(kept := _cookies_txt(rows)) > MAX_JAR_BYTES
        ):  # nobody could read it again
            raise ValueError(f"together they are larger than {MAX_JAR_BYTES} bytes")
        with _lock:
            if _read(file) == before:
                write_atomically(file, kept)
                _hide(file, rows)
    except (OSError, ValueError) as error:
        logger.warning("{}: its cookies are not kept: {}", platform.name, error)


def _wanted(platform: Platform, rows: Rows, left: Rows) -> Rows:
    """The new rows of an attempt that may go into the owner's file."""
    named = {name for name, value in platform.cookies.items() if value}
    host = platform.cookies_domain or urlsplit(platform.example).hostname or ""
    own = _bare(host).removeprefix("www.")
    known = {domain for domain, _, _ in rows}
    return {
        (domain, path, name): row
        for (domain, path, name), row in left.items()
        if domain in known or (own and f".{domain}".endswith(f".{own}"))
        if name not in named and not _is_over(row)
        if row[1:] != rows.get((domain, path, name), [""])[1:]
    }


def _is_over(row: list[str]) -> bool:
    return 0 < float(row[4] or 0) < time.time()


def _bare(domain: str) -> str:
    return domain.removeprefix("#HttpOnly_").removeprefix(".").lower()


def _cookie_rows(text: str) -> tuple[Rows, list[int]]:
    """The cookies of a cookies.txt, without control characters, and the numbers of the
    lines that hold something else; "#HttpOnly_" begins no comment."""
    rows: Rows = {}
    bad = []
    for number, line in enumerate(text.split("\n"), 1):
        line = CONTROL.sub("", line).lstrip(" ")
        mark = "#HttpOnly_" if line.startswith("#HttpOnly_") else ""
        if not line.strip() or (line.startswith("#") and not mark):
            continue
        row = line.removeprefix(mark).split("\t")
        fits = len(row) == 7 and len(line) <= MAX_ROW and not NO_TEXT.search(line)
        if not fits or not DOMAIN.fullmatch(row[0]) or not EXPIRES.fullmatch(row[4]):
            bad.append(number)
            continue
        bare = _bare(row[0])
        whole = (
            row[0].startswith(".") or row[1].upper() == "TRUE"
        )  # its subdomains, too
        row[:2] = [f"{mark}{'.' * whole}{bare}", str(whole).upper()]
        rows[bare, row[2], row[5]] = row
    return rows, bad


def _read(path: Path, flags: int = 0) -> str:
    """A cookies.txt; raises OSError or ValueError for anything that cannot be one."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | flags)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(f"{path.name} is not a file")
        data = file.read(MAX_JAR_BYTES + 1)
    if len(data) > MAX_JAR_BYTES:
        raise ValueError(f"{path.name} is larger than {MAX_JAR_BYTES} bytes")
    return data.decode("utf-8-sig", "surrogateescape")


def _cookies_txt(rows: Rows) -> bytes:
    lines = [COOKIES_HEADER, *("\t".join(row) for row in rows.values()), ""]
    return "\n".join(lines).encode()


def hide_values(file: Path) -> None:
    """Keep the values of an owner's file out of all texts, before anything uses it."""
    with contextlib.suppress(OSError, ValueError):
        _hide(file, _cookie_rows(_read(file))[0])


def _hide(file: Path, rows: Rows) -> None:
    """Keep the values of the owner's file out of the log, and those it had before, which
    attempts may still be using."""
    values = [value for row in rows.values() if len(value := row[6].strip('"')) > 3]
    known = dict.fromkeys([*values, *_values.get(file, ())])
    _values[file] = list(known)[: len(values) + MAX_OLD_VALUES]
    hide_secrets(f"the cookies in {file}", _values[file])
