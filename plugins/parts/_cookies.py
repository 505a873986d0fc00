"""An attempt's own cookies.txt, and the cookies that a site rotates meanwhile."""

import contextlib
import re
from pathlib import Path

from loguru import logger

from bossbot import Platform, write_atomically

COOKIES_HEADER = "# Netscape HTTP Cookie File"


def write_cookies(platform: Platform, path: Path) -> Path | None:
    """An attempt's own cookies.txt, from the platform's settings; None without any.
    The content of the owner's file is left beside it, for ``keep_cookies``."""
    lines = [COOKIES_HEADER]
    if platform.cookies_file:
        try:
            data = platform.cookies_file.read_bytes()
            lines += data.decode().splitlines()
            write_atomically(path.with_suffix(".owner"), data)
        except (OSError, ValueError) as error:
            logger.warning("{}: cookies_file: {}", platform.name, error)
    for name, value in platform.cookies.items():
        if value and platform.cookies_domain:
            fields = (platform.cookies_domain, "TRUE", "/", "TRUE", "0", name)
            lines.append("\t".join([*fields, value.get_secret_value()]))
    if len(lines) == 1:
        return None
    write_atomically(path, ("\n".join(lines) + "\n").encode())
    return path


def keep_cookies(platform: Platform, used: Path) -> None:
    """Write rotated cookies back to the owner's file, unless it was changed in the
    meantime; named cookies do not go there."""
    with contextlib.suppress(OSError, ValueError):
        before = used.with_suffix(".owner").read_bytes()
        named = {name for name, value in platform.cookies.items() if value}
        rows = _cookie_rows(used.read_text("utf-8"))
        rows = {key: row for key, row in rows.items() if key[2] not in named}
        changed = rows and rows != _cookie_rows(before.decode())
        file = platform.cookies_file
        if changed and file and file.read_bytes() == before:
            lines = [COOKIES_HEADER, *("\t".join(row) for row in rows.values()), ""]
            write_atomically(file, "\n".join(lines).encode())


def _cookie_rows(text: str) -> dict[tuple[str, str, str], list[str]]:
    """The cookies of a cookies.txt by domain, path and name; "#HttpOnly_" begins no
    comment."""
    lines = [line for line in text.splitlines() if re.match(r"#HttpOnly_|[^#]", line)]
    rows = [row for line in lines if len(row := line.split("\t")) == 7]
    return {(row[0], row[2], row[5]): row for row in rows}
