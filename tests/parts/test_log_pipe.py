"""What children print comes into the log by lines, however it arrives."""

import asyncio
import os
from typing import Any

import pytest
from bossbot_plugins import child_runner
from bossbot_plugins.child_runner import ChildRunner

import bossbot_contracts
from bossbot import MAX_LINE, redact


async def log_of(*chunks: bytes, logged: list[str]) -> list[str]:
    """What the log has when a child prints these, one after the other."""
    runner: Any = ChildRunner.__new__(ChildRunner)
    runner._tasks = set()
    pipe = runner._log_pipe(lambda: "x")
    (task,) = runner._tasks
    for chunk in chunks:
        left = memoryview(chunk)
        while left:
            written = await asyncio.to_thread(os.write, pipe, left)
            left = left[written:]
        await asyncio.sleep(0.01)
    os.close(pipe)
    await asyncio.wait_for(task, 60)
    return [line.removeprefix("DEBUG [x] ") for line in logged]


@pytest.mark.parametrize("size", [1, 7, 5000, 8191, 8192, 8193, 20_000])
async def test_query_is_whole_wherever_a_chunk_ends(
    logged: list[str], size: int
) -> None:
    before = b"words " * 100 + b"\n"
    link = b"GET https://a.example/x?token=hushhushhush&more=hush HTTP/1.1"
    text = before * 13 + link + b"\n" + before * 3
    pieces = [text[n : n + size] for n in range(0, len(text), size)]
    if size < 100:  # it is the border inside the link that counts
        at = text.index(b"token")
        pieces = [text[:at], *(text[n : n + size] for n in range(at, at + 40, size))]
        pieces.append(text[at + (40 + size - 1) // size * size :])
    lines = await log_of(*pieces, logged=logged)
    assert lines.count("words " * 100) == 16
    assert link.decode() in lines
    assert "hush" not in "".join(map(redact, lines))


async def test_long_line_is_cut_and_the_next_is_whole(logged: list[str]) -> None:
    lines = await log_of(b"a" * 100_000 + b"\nnext\r\nlast", logged=logged)
    assert lines == ["a" * MAX_LINE + "…", "next", "last"]


async def test_secret_at_the_end_of_a_cut_line_leaves_no_part(
    logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "very-secret-cookie-0123456789"
    monkeypatch.setattr(bossbot_contracts, "_secrets", {secret})
    for room in range(1, len(secret)):
        logged.clear()
        line = "a" * (MAX_LINE - room) + secret + "b" * 9000
        (shown,) = await log_of(line.encode(), logged=logged)
        assert "very" not in shown and len(shown) <= MAX_LINE + 1


async def test_what_is_too_much_is_dropped_at_the_end_of_a_line(
    logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_runner, "MAX_LOG_BYTES", 1000)
    lines = await log_of(b"0123456\n" * 124, b"half of a secret\n" * 9, logged=logged)
    assert lines == ["0123456"] * 124
