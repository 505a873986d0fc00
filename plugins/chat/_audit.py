"""The audit log, ``data/logs/audit.jsonl``: who changed what, a line of JSON each."""

import asyncio
import contextlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bossbot import App

MAX_BYTES = (
    2**20
)  # of the file; then it becomes audit.1.jsonl, in place of the last one

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
    path = app.settings.data_dir / "logs" / "audit.jsonl"
    async with _turn:
        await asyncio.to_thread(_append, path, json.dumps(line, default=str))


def _append(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > MAX_BYTES:
            path.replace(path.with_name("audit.1.jsonl"))
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "rb+") as file:
        size = file.seek(0, os.SEEK_END)
        # What a crash has cut stays a line of its own.
        torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
        file.write(b"\n" * bool(torn) + line.encode() + b"\n")
        file.flush()
        os.fsync(descriptor)
