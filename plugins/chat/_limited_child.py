"""A process beside the bot for work that needs memory or opens strangers' files.

``LimitedChild`` starts a fresh Python when it is first asked, without the bot's
environment and modules, at low priority, with a limit on its memory; it ends when it has
been idle for a while, when a request takes too long, and with the bot. The child's side
is ``_limited_main.py``; both talk in frames: two lengths of 4 bytes, JSON, bytes.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import struct
import sys
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from bossbot_plugins import _walls
from loguru import logger

from bossbot import cut_line

MAX_ANSWER_BYTES = 4 * 2**20
LENGTHS = struct.Struct(">II")
DEATHS_S, OFF_S = 600.0, 3600.0
END_S = 5.0  # for a child that was killed to be gone
MAX_SAID_BYTES = 2000  # of what it printed last
KEPT_ENVIRONMENT = re.compile(r"PATH|LANG|LC_\w+|TZ|LD_LIBRARY_PATH|SYSTEMROOT")
ONE_THREAD = {
    **dict.fromkeys(
        ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"
    ),
    "MALLOC_ARENA_MAX": "1",
    "PYTHONUTF8": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}


class ChildError(Exception):
    """The child has no answer: it says why, it died, took too long, or is off."""

    def __init__(self, why: str, died: bool = False) -> None:
        super().__init__(why)
        self.died = died  # over this request


class LimitedChild:
    """A child that answers requests, one at a time.

    ``module`` is the file that it runs: its ``start(options)`` returns a function which
    takes a request and bytes, and returns an answer and bytes. With ``walled`` it loses
    files, network and other processes once the module is imported, as far as the kernel
    can take them. ``idle_s`` 0 lets it stay. It is off for an hour after so many
    ``deaths`` within ten minutes.
    """

    def __init__(
        self,
        module: Path,
        options: dict[str, Any],
        *,
        memory_bytes: int,
        idle_s: float,
        timeout_s: float = 60,
        walled: bool = False,
        private: Sequence[Path] = (),
        deaths: int = 3,
    ) -> None:
        self.name = module.stem.strip("_")
        self.idle_s, self.timeout_s = idle_s, timeout_s
        self._most_deaths = deaths
        self._request = {
            "module": str(module),
            "options": options,
            "memory_bytes": memory_bytes,
            "walls": str(Path(_walls.__file__).parent) if walled else "",
            "private": [str(path) for path in private],
        }
        self._main = Path(__file__).with_name("_limited_main.py")
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()
        self._deaths: list[float] = []
        self._off_until_s = 0.0
        self._idle: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._said = b""
        self._listening: asyncio.Task[Any]

    @property
    def pid(self) -> int:
        """The child's, 0 while there is none."""
        alive = self._process and self._process.returncode is None
        return self._process.pid if alive and self._process else 0

    @property
    def off(self) -> bool:
        """Whether it died too often of late to be started again now."""
        return time.monotonic() < self._off_until_s

    async def ask(
        self, request: dict[str, Any], body: bytes = b"", wait_s: float | None = None
    ) -> tuple[dict[str, Any], bytes]:
        """The answer to a request, at most ``MAX_ANSWER_BYTES`` of it.

        Raises:
            ChildError: there is none, or none within ``wait_s``; the child goes on then.
        """
        task = self._keep(self._exchange(request, body))
        try:
            async with asyncio.timeout(wait_s):
                return await asyncio.shield(task)  # half of an answer is useless
        except TimeoutError:
            raise ChildError(f"no answer within {wait_s} s") from None

    def _keep(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be gone

    async def stop(self) -> None:
        """End the child; the next request would start another one."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._end()

    async def _exchange(
        self, request: dict[str, Any], body: bytes
    ) -> tuple[dict[str, Any], bytes]:
        async with self._lock:
            if self.off:
                raise ChildError("it died too often")
            if self._idle:
                self._idle.cancel()
            try:
                async with asyncio.timeout(self.timeout_s):
                    if not self.pid:
                        await self._start()
                    await self._send(request, body)
                    answer, data = await self._receive()
            except TimeoutError:
                await self._died(f"no answer within {self.timeout_s:g} s")
            # Anything but a frame ends it, too.
            except (OSError, EOFError, ValueError, RecursionError) as error:
                await self._died(f"{type(error).__name__}: {error}")
            except BaseException:  # cancelled in the middle of a frame
                await self._end()
                raise
            if self.idle_s:
                loop = asyncio.get_running_loop()
                self._idle = loop.call_later(self.idle_s, self._let_go)
            if why := answer.get("error"):
                raise ChildError(cut_line(str(why)))
            return answer, data

    async def _start(self) -> None:
        environment = {
            key: value
            for key, value in os.environ.items()
            if KEPT_ENVIRONMENT.fullmatch(key)
        }
        pipe = asyncio.subprocess.PIPE
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", str(self._main)),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env=environment | ONE_THREAD,
            cwd="/",
            start_new_session=True,
        )
        self._said = b""
        self._listening = self._keep(self._listen(process))
        await self._send(self._request, b"")
        await self._receive()

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Keep the end of its output, for the log."""
        assert process.stderr
        while chunk := await process.stderr.read(4096):
            self._said = (self._said + chunk)[-MAX_SAID_BYTES:]

    async def _send(self, request: dict[str, Any], body: bytes) -> None:
        assert self._process and self._process.stdin
        text = json.dumps(request).encode()
        self._process.stdin.write(LENGTHS.pack(len(text), len(body)) + text + body)
        await self._process.stdin.drain()

    async def _receive(self) -> tuple[dict[str, Any], bytes]:
        assert self._process and self._process.stdout
        read = self._process.stdout.readexactly
        lengths = LENGTHS.unpack(await read(LENGTHS.size))
        if sum(lengths) > MAX_ANSWER_BYTES:
            raise ValueError(f"an answer of {sum(lengths)} bytes")
        answer = json.loads(await read(lengths[0]))
        if not isinstance(answer, dict):
            raise ValueError("no answer")  # noqa: TRY004 (of the child's)
        return answer, await read(lengths[1])

    async def _died(self, why: str) -> None:
        """End it, and count that. Raises ``ChildError``."""
        await self._end()
        said = cut_line(self._said.decode(errors="replace").strip())
        logger.warning("the child for {} died: {} {}", self.name, why, said)
        now_s = time.monotonic()
        self._deaths = [at for at in self._deaths if now_s - at < DEATHS_S] + [now_s]
        if len(self._deaths) >= self._most_deaths:
            logger.error("the child for {} is off for an hour", self.name)
            self._off_until_s, self._deaths = now_s + OFF_S, []
        raise ChildError(why, died=True)

    def _let_go(self) -> None:
        if not self._lock.locked():
            self._keep(self._end_idle())

    async def _end_idle(self) -> None:
        async with self._lock:
            await self._end()  # a request that comes meanwhile starts another one

    async def _end(self) -> None:
        process = self._process
        if self._idle:
            self._idle.cancel()
            self._idle = None
        if process:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            if process.stdin:
                process.stdin.close()
            assert process.stdout
            # It is over for asyncio once all that it wrote is read.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await process.stdout.read()
                    await process.wait()
            await asyncio.wait([self._listening], timeout=1)
            if self._process is process:
                self._process = None
