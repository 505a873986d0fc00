"""Takes time that does not count, as the link says."""

import asyncio

from bossbot import Job, hookimpl, off_the_clock, time_left_s

left_s: list[float | None] = []


async def wait(time_s: float) -> None:
    with off_the_clock():
        await asyncio.sleep(time_s)


@hookimpl
async def process_files(job: Job, files: list[int]) -> list[int]:
    match job.url:
        case "wait" | "wait, and hang":
            with off_the_clock():
                assert time_left_s() is None
                await asyncio.sleep(2.1)
            assert 0 < time_left_s() < 2
            if "hang" in job.url:
                await asyncio.sleep(600)
        case "tasks":
            async with asyncio.TaskGroup() as tasks:
                first = tasks.create_task(wait(0))
                tasks.create_task(wait(0.5))
                await first
                assert time_left_s() is None
            assert 0 < time_left_s() < 0.3
        case "late":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await wait(0.1)
                left_s.append(time_left_s())
    return [1]
