"""Fails at every link, with words that nobody should read."""

from bossbot import hookimpl


@hookimpl
async def answer_job() -> None:
    raise ValueError("``` @everyone https://user:hush@toy.example/secret-path?key=hush")
