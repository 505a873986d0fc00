"""The audit log, ``data/logs/audit.jsonl``: a line of JSON for each change of a
setting."""

import asyncio
import contextlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bossbot_plugins._files import write_atomically

from bossbot import App

MAX_BYTES = 2**20  # of the file; then it takes the place of the old one
OLD = "audit.1.jsonl"

_turn = asyncio.Lock()


async def note(app: App, guild_id: int, user_id: int, what: str, **facts: Any) -> None:
    """Write a line, and wait until it is on the disk. Raises OSError."""
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "guild": guild_id,
        "who": user_id,
        "what": what,
        **facts,
    }
    async with _turn:
        text = json.dumps(line, default=str)
        await asyncio.to_thread(_append, _path(app), text)


async def forget(app: App, user_id: int, guild_id: int | None = None) -> None:
    """Remove a member's id from the lines of one server or all; the rest of them stays.
    Raises OSError."""
    async with _turn:
        for path in (_path(app), _path(app).with_name(OLD)):
            await asyncio.to_thread(_forget, path, user_id, guild_id)


def _path(app: App) -> Path:
    return app.settings.data_dir / "logs" / "audit.jsonl"


def _forget(path: Path, user_id: int, guild_id: int | None) -> None:
    kept, found = [], False
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    for line in lines:
        with contextlib.suppress(ValueError):  # what a crash has cut
            facts = json.loads(line)
            if facts["who"] == user_id and guild_id in (None, facts["guild"]):
                line, found = json.dumps({**facts, "who": 0}), True
        kept.append(f"{line}\n")
    if found:
        write_atomically(path, "".join(kept).encode())


def _append(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > MAX_BYTES:
            path.replace(path.with_name(OLD))
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "rb+") as file:
        size = file.seek(0, os.SEEK_END)
        # What a crash has cut stays a line of its own.
        torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
        file.write(b"\n" * bool(torn) + line.encode() + b"\n")
        file.flush()
        os.fsync(descriptor)
