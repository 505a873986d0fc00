"""Keeps something about members elsewhere, and writes down what it is to forget."""

from bossbot import hookimpl

calls: list[tuple[int | None, int]] = []


@hookimpl
async def forget_downloads(guild_id: int | None, user_id: int) -> None:
    calls.append((guild_id, user_id))
