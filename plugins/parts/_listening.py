"""Shared by all queues: passes changes on to listeners."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from bossbot import App, Change, Job, Queue

MAX_BEHIND = 100  # changes; a listener that is further behind gets no progress


class ListenedQueue(Queue):
    """A queue whose ``changes`` are those that were passed on to it."""

    tick_s = 1.0  # changes() yields None so often

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self._listeners: set[asyncio.Queue[Any]] = set()
        self._stopped = False

    async def get(self, job_id: str) -> Job | None:
        """See ``Queue``."""
        return (await self.find([job_id])).get(job_id)

    def _pass_on(
        self, change: Callable[[], Change | None], lossy: bool = False
    ) -> None:
        """Give each listener its own copy of a change, or None, which wakes it."""
        for listener in self._listeners:
            if not lossy or listener.qsize() < MAX_BEHIND:
                listener.put_nowait(change())

    def _end_changes(self) -> None:
        self._stopped = True
        for listener in self._listeners:
            listener.put_nowait(StopAsyncIteration)

    async def changes(self) -> AsyncIterator[Change | None]:
        """See ``Queue``."""
        listener: asyncio.Queue[Any] = asyncio.Queue()
        self._listeners.add(listener)
        loop = asyncio.get_running_loop()
        try:
            while not (self._stopped and listener.empty()):
                yield None
                due_s = loop.time() + self.tick_s  # however much comes meanwhile
                while (left_s := due_s - loop.time()) > 0:
                    try:
                        async with asyncio.timeout(left_s):
                            change = await listener.get()
                    except TimeoutError:
                        break
                    if change is StopAsyncIteration:
                        return
                    yield change
        finally:
            self._listeners.discard(listener)
