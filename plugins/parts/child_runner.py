"""Runs the engines in child processes, watched and limited from outside.

A fork server with the engines' libraries warm makes a child for each attempt; the
inside of a child, mainly its sandbox, is in ``_child.py``.
"""

import asyncio
import contextlib
import importlib.util
import itertools
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bossbot_plugins import _messages, _walls
from bossbot_plugins._addresses import home_networks, is_public
from bossbot_plugins._broker import Broker, Judge
from bossbot_plugins._figures import counter, gauge
from bossbot_plugins._files import TOO_DEEP_BYTES, size_of
from bossbot_plugins._messages import NONSENSE, making_sense
from bossbot_plugins._programs import JS_RUNTIMES, find_programs
from loguru import logger
from pydantic import ByteSize, Field

from bossbot import (
    HERE,
    MAX_LINE,
    PLUGIN_PACKAGE,
    App,
    Cause,
    Fetched,
    Finding,
    JobFailed,
    Part,
    PluginConfig,
    PluginError,
    Progress,
    Ran,
    Request,
    Runner,
    _,
    cut_line,
    hookimpl,
    in_thread,
    ngettext,
    plugin_folders,
)

MAX_LOG_BYTES = 256 * 1024  # of what a child prints; the rest is dropped
GROUP_MEMORY_BYTES = 2**30  # on top of memory_limit: ffmpeg, a JavaScript runtime
MAX_TASKS = 512  # processes and threads of one child; RLIMIT_NPROC spares root
MAX_URLS = 30  # that one child is asked about, for a second each at most
MAX_SLOW = 1000  # links that are remembered
KEPT_ENVIRONMENT = re.compile(
    r"(PATH|LANG|LC_\w+|TZ|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|SYSTEMROOT"
    r"|(HTTPS?|ALL|NO)_PROXY|PYTHONDONTWRITEBYTECODE)$",
    re.IGNORECASE,
)


class Config(PluginConfig):
    """[plugins.child_runner] in config.toml."""

    memory_limit: ByteSize = Field(
        ByteSize(384 * 2**20), description="memory limit of one download"
    )
    allow_private_addresses: bool = Field(
        False, description="true lets members reach your home network"
    )


@hookimpl
def register_parts(config: Config) -> dict[str, Callable[[App], Part]]:
    if not importlib.util.find_spec(f"{PLUGIN_PACKAGE}._child"):
        raise PluginError("_child.py is missing, the child's side of it")
    return {"runner": partial(ChildRunner, config=config)}


@hookimpl
def check_machine() -> list[Finding]:
    programs = find_programs()
    findings = []
    if "ffmpeg" not in programs or "ffprobe" not in programs:
        findings.append(
            Finding(
                "ffmpeg is missing",
                "nothing is made to fit, and videos with separate sound lose quality",
                "Debian: apt install ffmpeg. macOS: brew install ffmpeg.",
            )
        )
    if programs.keys().isdisjoint(JS_RUNTIMES):
        findings.append(
            Finding(
                "a JavaScript runtime is missing",
                "most of YouTube does not work",
                f"{sys.executable} -m pip install deno, or install Node.js.",
            )
        )
    for wall, stands in _walls.standing().items():
        if not stands:
            findings.append(
                Finding(
                    f"this system has no wall around {wall}",
                    "only Python's own checks hold a download that takes over its process",
                    "See docs/promises.md, The walls around a download.",
                )
            )
    return findings


@hookimpl
def register_metrics(registry: Any, app: App) -> None:
    runner: Any = app.runner
    if not hasattr(runner, "fenced"):  # it is the owner's
        return
    text, read = "Children at work", lambda: len(runner.running)
    registry.register(gauge("bossbot_child_processes", text, (), read))
    text, read = "How they ended", runner.exits.copy
    registry.register(counter("bossbot_child_process_exits", text, ("reason",), read))
    text, read = "What they may not do", runner.fenced.copy
    registry.register(counter("bossbot_fence_refusals", text, ("kind",), read))


def kept_environment() -> dict[str, str]:
    """The part of the bot's environment that the children get."""
    return {k: v for k, v in os.environ.items() if KEPT_ENVIRONMENT.match(k)}


def named_proxies(proxy: str | None, environment: dict[str, str]) -> list[str]:
    """A proxy, and those that an environment names."""
    names = ("http_proxy", "https_proxy", "all_proxy")
    variables = [value for key, value in environment.items() if key.lower() in names]
    return [one for one in [proxy, *variables] if one]


def find_all(proxies: Sequence[str]) -> set[tuple[str, int]]:
    """The addresses and ports of proxies; blocks."""
    found: set[tuple[str, int]] = set()
    for one in proxies:
        with contextlib.suppress(OSError, ValueError):
            parts = urlsplit(one if "://" in one else f"//{one}")
            if parts.hostname:
                port = parts.port or {"https": 443}.get(parts.scheme, 80)
                addresses = socket.getaddrinfo(parts.hostname, port)
                found |= {(str(a[4][0]), int(a[4][1])) for a in addresses}
    return found


# What a child's own fence says: see _child.watch_sockets.
FENCE = re.compile(r"(private address |socket )|program \[|os\.s|pty\.")
HARDWARE = re.compile(r"h264_(vaapi|nvenc|v4l2m2m|qsv)")


def encoder_devices() -> list[str]:
    """This machine's hardware encoders, as far as programs may use them."""
    patterns = ("dri/renderD*", "nvidia*", "nvidia-uvm*", "video1[0-9]", "dma_heap/*")
    found = {str(one) for pattern in patterns for one in Path("/dev").glob(pattern)}
    return sorted(one for one in found if os.access(one, os.R_OK | os.W_OK))


def _nowhere(host: str, port: int) -> bool:
    return False


class Child:
    """One child process, seen from the bot."""

    def __init__(self, number: int, setup: dict[str, Any]) -> None:
        self.number, self.setup = number, setup
        self.name = "spare"
        self.task = ""
        self.pid = 0  # known once it is a group of its own
        self.busy = False  # a file is on its way
        self.found = False  # one was
        self.fault: JobFailed | None = None  # why it was ended
        self.exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter | None = None
        self.broker: Broker

    def ended(self, status: int) -> None:
        """It has exited; what it leaves running goes, too, and lets its socket go."""
        if not self.exit.done():
            self.exit.set_result(status)
            self._kill_group()

    def _kill_group(self) -> None:
        if self.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def kill(self) -> None:
        """End it with everything it started; its socket then closes."""
        self._kill_group()
        if self.writer:
            self.writer.close()  # one without a group yet sees this and ends
        self.broker.close()

    def holds(self) -> tuple[int, int]:
        """The bytes of memory and the tasks of its process group; blocks."""
        pages = tasks = 0
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                if (
                    os.getpgid(int(path.name)) == self.pid
                ):  # few are; to read takes long
                    values = (path / "stat").read_text().rpartition(")")[2].split()
                    pages += int(values[21])
                    tasks += int(values[17])
        return pages * resource.getpagesize(), tasks


class ChildRunner(Runner):
    """The ``Runner`` of this machine: starts the children, and the fork server they
    come from."""

    can_fork = sys.platform == "linux"  # elsewhere a fork after threads is not safe
    stall_s, stall_bytes = 60.0, 32 * 1024  # a download gains so much in that time
    find_s = 60.0  # until a first file begins, and ten pauses between requests more
    answer_s = 60.0  # for a question to the engines
    renew_server_s = 10.0  # after the fork server has ended, if no download comes first
    slow_s = 3600.0  # before a link that took the engines too long is asked about again

    def __init__(self, app: App, config: Config) -> None:
        super().__init__(app)
        self.config = config
        self.programs = find_programs()
        self.running: dict[int, Child] = {}
        self._spare: Child | None = None  # waits for a task
        self._renewing = asyncio.Lock()
        # All that are looked at, the spare one included, by number.
        self._children = weakref.WeakValueDictionary[int, Child]()
        self._numbers = itertools.count(1)
        self._server: subprocess.Popen[bytes] | None = None
        self._server_began_s = 0.0  # by time.monotonic()
        self._early_deaths = 0  # of servers in a row
        self._control: socket.socket | None = None
        self._environment = kept_environment()  # of the server
        self._tasks: set[asyncio.Task[None]] = set()
        self._askers = asyncio.Semaphore(2)
        self.exits = Counter(done=0, failed=0, cancelled=0)  # of children
        self.fenced = Counter(address=0, program=0)  # refused attempts
        self._slow: dict[str, float] = {}  # links that were given up, and until when
        _walls.hide()
        _walls.raise_open_files()

    def engine_plugins(self) -> dict[str, str]:
        """The plugin of each engine, by the engine's name."""
        return {
            engine.name: plugin.stem
            for plugin in self.app.plugins.all.values()
            for engine in plugin.engines
        }

    def _python(self, call: str, channel: socket.socket, log: int, *passed: int) -> Any:
        """Start a Python that runs a function of the child's side."""
        environment = kept_environment()
        own, ours = self.app.settings.plugins_dir, self.app.plugins.ours
        folders = [str(folder) for folder in plugin_folders(own, ours)]
        core = str(Path(__file__).with_name("_stand_in.py"))
        code = (
            f"import os, runpy, sys; sys.path.insert(0, {str(HERE)!r}); "
            f"bossbot = runpy.run_path({core!r})['import_core'](); "
            f"bossbot.open_plugins({folders!r}); bossbot.import_plugin('_child').{call}"
        )
        return subprocess.Popen(
            [sys.executable, "-P", "-c", code],  # -P: no working directory in sys.path
            stdin=channel.fileno(),
            stdout=log,
            stderr=log,
            env=environment,
            pass_fds=passed,
            start_new_session=True,
        )

    async def start(self) -> None:
        """Start the fork server; it warms up while the bot goes on."""
        self._start_server()
        await self._renew_spare()

    def _start_server(self) -> None:
        if self._server or not self.can_fork:
            return
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log = self._log_pipe(lambda: "fork server")
        self._server_began_s = time.monotonic()
        self._environment = kept_environment()
        try:
            self._server = self._python("serve()", theirs, log)
        except OSError:  # there is no room for another process
            control.close()
            raise
        finally:
            theirs.close()
            os.close(log)
        self._control = control
        stems = sorted(set(self.engine_plugins().values()))
        self._control.send(json.dumps({"plugins": stems}).encode())
        self._control.setblocking(False)
        asyncio.get_running_loop().add_reader(self._control, self._read_server)

    def _read_server(self) -> None:
        assert self._control and self._server
        try:
            packet = self._control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if packet:
            message = json.loads(packet)
            if child := self._children.get(message["child"]):
                child.ended(message["exit"])
            return
        logger.error("the fork server ended; the next download starts a new one")
        self._forget_server()
        if time.monotonic() - self._server_began_s > self.renew_server_s:
            self._early_deaths = 0
        wait_s = self.renew_server_s * 2**self._early_deaths
        self._early_deaths = min(self._early_deaths + 1, 6)
        asyncio.get_running_loop().call_later(wait_s, self._renew_server)

    async def health(self) -> str:
        """See ``Part``."""
        if not self.can_fork:
            return ""
        if not self._server or self._server.poll() is not None:
            return "the fork server has ended"
        stat = Path(f"/proc/{self._server.pid}/stat").read_text()
        stopped = (
            stat.rpartition(")")[2].split()[0] in "Tt"
        )  # by SIGSTOP, or a debugger
        return "the fork server is stopped" if stopped else ""

    def _forget_server(self) -> None:
        if self._control and self._server:
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()  # at which a living server kills its children, and ends
            self._keep(asyncio.to_thread(self._server.wait))
        self._control = self._server = None
        if self._spare:  # it goes with the server
            self._spare.kill()
            self._spare = None

    def _log_pipe(self, name: Callable[[], str]) -> int:
        """The writing end of a pipe whose lines go to the log."""
        reading, writing = os.pipe()

        async def copy() -> None:
            reader = asyncio.StreamReader(limit=65536)
            await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb")
            )
            left, begun = MAX_LOG_BYTES, b""  # of a line that goes on
            while chunk := await reader.read(65536):
                *lines, rest = chunk[:left].split(b"\n")
                left = max(left - len(chunk), 0)
                for line in lines:
                    log(begun + line)
                    begun = b""
                begun = (begun + rest)[: 8 * MAX_LINE]  # more than is shown of it
                if not left:  # one that prints without end waits for us, not we for it
                    await asyncio.sleep(0.01)
            if left:
                log(begun)

        def log(line: bytes) -> None:
            text = line.decode(errors="replace")
            for part in filter(None, text.split("\r")):
                logger.debug("[{}] {}", name(), cut_line(part))

        self._keep(copy())
        return writing

    def _keep(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Kill every child and the server."""
        for child in list(self.running.values()):
            child.kill()
        self._forget_server()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3):
                while self._tasks:  # one may have begun another one
                    await asyncio.wait(self._tasks)

    def _setup(self) -> dict[str, Any]:
        """What a child is sent before its task; ``private`` files it may not read, even
        if the folder around them is open to it."""
        settings, home = self.app.settings, os.path.expanduser("~")
        private = [HERE, home, settings.data_dir, settings.plugins_dir]
        platforms = self.app.plugins.registered("platforms").values()
        private += [one.cookies_file for one in platforms if one.cookies_file]
        return {
            "bot": os.getpid(),
            "memory_bytes": int(self.config.memory_limit),
            "private": [str(place) for place in private],
            "programs": dict(self.programs),  # as they are now
        }

    @contextlib.asynccontextmanager
    async def child(
        self, name: str, task: str, judge: Judge = _nowhere, **request: Any
    ) -> AsyncIterator[Child]:
        """A child at work on a task, which reaches the addresses that ``judge`` lets
        pass; it is dead when the block ends."""
        child, self._spare = self._spare, None
        if not child or child.exit.done() or child.setup != self._setup():
            if child:
                child.kill()
            child = await self._new_child()
        child.name, child.task, child.broker.judge = name, task, judge
        self.running[child.number] = child
        how = "cancelled"
        assert child.writer
        try:
            request["task"] = task
            self._keep(self._renew_spare())
            guard = asyncio.create_task(self._count_tasks(child))
            child.writer.write(json.dumps(request, default=str).encode() + b"\n")
            try:
                yield child
                how = "done"
            finally:
                guard.cancel()
        except JobFailed:
            how = "failed"
            raise
        finally:
            self.exits[how] += 1
            child.kill()
            del self.running[child.number]
            if self._control:
                self._keep(self._renew_spare())

    async def _new_child(self) -> Child:
        """A child that waits for its task."""
        child = Child(next(self._numbers), self._setup())
        self._children[child.number] = child
        ours, theirs = socket.socketpair()
        line, their_line = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log = self._log_pipe(lambda: child.name)
        child.broker = Broker(line, _nowhere)
        try:
            await self._send_for(child, theirs, log, their_line)
            child.reader, child.writer = await asyncio.open_unix_connection(
                sock=ours, limit=_messages.MAX_LINE_BYTES
            )
        except BaseException:
            ours.close()  # at which a child that has started ends
            child.broker.close()
            raise
        finally:
            theirs.close()
            their_line.close()
            os.close(log)
        return child

    def _renew_server(self) -> None:
        if not self.app.stopping.is_set():
            self._start_server()

    async def _renew_spare(self) -> None:
        """Have a child wait for the next task, unless all slots are taken."""
        most = self.app.settings.max_concurrent_downloads

        def wanted() -> bool:
            return self._control is not None and self.downloads() < most

        async with self._renewing:
            if wanted() and not self._spare:
                child = await self._new_child()
                if wanted():
                    self._spare = child
                else:  # no more
                    child.kill()

    async def _count_tasks(self, child: Child) -> None:
        """End a child that multiplies, before it takes the machine's time, and all of
        them when nothing can be watched any more."""
        usual = _walls.all_tasks()
        while usual:
            await asyncio.sleep(0.1)
            if not _walls.may_watch():
                child.fault = JobFailed(Cause.INTERNAL, "epoll watches no more")
                child.kill()
                return
            if _walls.all_tasks() - usual > MAX_TASKS:
                _, tasks = await asyncio.to_thread(child.holds)
                if tasks > MAX_TASKS:
                    child.fault = JobFailed(Cause.INTERNAL, f"{tasks} processes")
                    child.kill()
                    return

    async def _send_for(
        self, child: Child, theirs: socket.socket, log: int, line: socket.socket
    ) -> None:
        """Start a process that takes the other ends of the sockets and the pipe."""
        packet = json.dumps({"child": child.number, "setup": child.setup}).encode()
        deaths = 0
        while True:
            self._start_server()
            if not self._control:
                call = f"main(os.dup(0), 1, {line.fileno()}, {child.setup!r})"
                process = self._python(call, theirs, log, line.fileno())
                self._keep(self._wait_for(process, child))
                return
            try:
                socket.send_fds(
                    self._control, [packet], [theirs.fileno(), log, line.fileno()]
                )
                return
            except BlockingIOError:  # it is busy; to end it would end its children
                await asyncio.sleep(0.05)
            except OSError:  # it has just died
                self._forget_server()
                deaths += 1
                if deaths > 1:
                    raise

    async def _wait_for(self, process: Any, child: Child) -> None:
        status = await asyncio.to_thread(process.wait)
        child.ended(status)

    async def events(self, child: Child) -> AsyncIterator[dict[str, Any]]:
        """The messages of the child, up to "done"; see ``_messages.py``.

        Raises:
            JobFailed: the failure it reported, or how it died.
        """
        said, started_s = -_messages.BURST_BYTES, time.monotonic()
        try:
            while (line := await child.reader.readline()).endswith(b"\n"):
                said += len(line) + _messages.LINE_BYTES
                if said > _messages.BYTES_PER_S * (time.monotonic() - started_s):
                    raise ValueError("its output has no end")
                message = _messages.parse(line)
                match message["event"]:
                    case "started":
                        child.pid = child.pid or int(message["pid"])
                    case "failed":
                        raise self._failure(message)
                    case "done":
                        yield message
                        return
                    case _:
                        yield message
        except (*NONSENSE, ConnectionError) as error:
            # One that has not said that it began has read no task: another one will.
            wait_s = None if child.pid else 0.0
            nonsense = JobFailed(Cause.INTERNAL, f"child: {error!r}", "", wait_s)
            raise (child.fault or nonsense) from error
        if child.fault:
            raise child.fault
        if not child.pid:
            raise JobFailed(Cause.INTERNAL, "it ended before it began", "", 0.0)
        try:
            async with asyncio.timeout(5):
                status = await asyncio.shield(child.exit)
        except TimeoutError:
            status = -signal.SIGKILL
        if status == -signal.SIGXCPU:
            raise JobFailed(Cause.TIMED_OUT, "over its time on the processor")
        how = (
            f"signal {signal.Signals(-status).name}" if status < 0 else f"exit {status}"
        )
        text = _(
            "The download process died ({how}). Try again, and if that does not help, ask "
            "the bot's owner."
        )
        raise JobFailed(
            Cause.INTERNAL,
            f"the download process died: {how}",
            text.format(how=how),
        )

    def _failure(self, message: dict[str, Any]) -> JobFailed:
        engines = self.app.plugins.registered("engines").values()
        sentences = [one for engine in engines for one in engine.sentences]
        failed = _messages.failure(message["error"], sentences)
        if fence := FENCE.match(failed.detail):
            self.fenced["address" if fence[1] else "program"] += 1
        return failed

    # The contract

    async def supports(
        self,
        urls: Sequence[str],
        without: str = "",
        after_guess: bool = False,
        own: bool = False,
    ) -> list[str]:
        """See ``Runner``."""
        plugins = self.engine_plugins()
        found: dict[str, str] = {}
        asked = [url for url in dict.fromkeys(urls) if not self._is_slow(url)]
        for start in range(0, len(asked), MAX_URLS):
            some = asked[start : start + MAX_URLS]
            choices = await self._ask(
                "supports",
                urls=some,
                plugins=sorted(set(plugins.values())),
                without=without,
                after_guess=after_guess,
                own=own,
            )
            with making_sense():
                for url, choice in zip(some, choices, strict=True):
                    found[url] = self._chosen(url, choice)
        return [found.get(url, "") for url in urls]

    def _chosen(self, url: str, choice: Any) -> str:
        """The engine that a child chose for a link, "" for none."""
        engine, slow = choice
        if slow:
            self._slow[url] = time.monotonic() + self.slow_s
            if len(self._slow) > MAX_SLOW:
                del self._slow[next(iter(self._slow))]
        return str(engine) if engine in self.engine_plugins() else ""

    def _is_slow(self, url: str) -> bool:
        """Whether a link took the engines too long of late."""
        return time.monotonic() < self._slow.get(url, 0)

    async def versions(self) -> dict[str, tuple[str, int | None]]:
        """See ``Runner``."""
        plugins = self.engine_plugins()
        answer = await self._ask("versions", plugins=sorted(set(plugins.values())))
        with making_sense():
            return _messages.versions(answer, plugins)

    async def run(
        self,
        argv: Sequence[str],
        home: Path,
        on_line: Callable[[str], None] | None = None,
        background: bool = False,
    ) -> Ran:
        """See ``Runner``."""
        answer = await self._answer(
            home.parent.parent.name,
            "run",
            on_line or (lambda line: None),
            argv=list(argv),
            home=str(home),
            lines=on_line is not None,
            background=background,
            devices=encoder_devices() if any(map(HARDWARE.fullmatch, argv)) else [],
            cpu_s=self.app.settings.process_timeout_s * (os.cpu_count() or 1),
            max_file_bytes=int(self.app.settings.max_job_size),
        )
        with making_sense():
            return _messages.ran(answer)

    def downloads(self) -> int:
        """See ``Runner``."""
        return sum(one.task == "download" for one in self.running.values())

    def end_all(self, failure: JobFailed) -> int:
        """See ``Runner``."""
        ended = [
            one for one in self.running.values() if one.task in ("download", "run")
        ]
        for child in ended:
            child.fault = failure
            child.kill()
        return len(ended)

    async def _ask(self, task: str, **request: Any) -> Any:
        """The answer of a short task that belongs to no job."""
        home = str(self.app.settings.data_dir / "temp")
        async with self._askers, asyncio.timeout(self.answer_s):
            return await self._answer(
                task, task, lambda line: None, home=home, cpu_s=self.answer_s, **request
            )

    async def _answer(
        self, name: str, task: str, on_line: Callable[[str], None], **request: Any
    ) -> Any:
        async with self.child(name, task, **request) as child:
            async for message in self.events(child):
                with making_sense():
                    match message["event"]:
                        case "line":
                            text = str(message["text"])
                        case "done":
                            return message["answer"]
                        case event:
                            raise ValueError(event)
                on_line(text)

    async def fetch(
        self,
        request: Request,
        on_progress: Callable[[Progress], None],
        on_file: Callable[[Fetched], None],
    ) -> Fetched:
        """See ``Runner``."""
        fetched = Fetched(folder=request.folder)
        request.programs = self.programs
        try:
            async with asyncio.timeout(request.timeout_s):
                await self._fetch(request, fetched, on_progress, on_file)
        except TimeoutError:
            raise JobFailed(Cause.TIMED_OUT, "over download_timeout_s") from None
        except JobFailed as error:
            if error.cause is not Cause.ENGINE_OUTDATED:
                raise
            said = f"{_(str(error))}{await self._which(request.engine)}"
            raise JobFailed(error.cause, error.detail, said) from error
        return fetched

    async def _which(self, engine: str) -> str:
        """ " (It is yt-dlp 2026.01.02, 40 days old.)", or "" when that is unknown."""
        with contextlib.suppress(JobFailed, OSError, KeyError):
            version, days = (await self.versions())[engine]
            text = _("(It is {engine}.)")
            if days is not None:
                text = ngettext(
                    "(It is {engine}, {days} day old.)",
                    "(It is {engine}, {days} days old.)",
                    days,
                )
            return " " + text.format(engine=f"{engine} {version}", days=days)
        return ""

    async def _fetch(
        self,
        request: Request,
        fetched: Fetched,
        on_progress: Callable[[Progress], None],
        on_file: Callable[[Fetched], None],
    ) -> None:
        """Put what a child reports while it downloads into ``fetched``."""
        plugins = self.engine_plugins()
        if request.engine and request.engine not in plugins:
            raise JobFailed(Cause.UNSUPPORTED, f"no engine {request.engine}")
        if not request.engine and self._is_slow(request.url):
            raise JobFailed(Cause.UNSUPPORTED, "the engines' patterns take too long")
        allow_private = self.config.allow_private_addresses
        urls = named_proxies(request.proxy, self._environment)
        proxies = await in_thread(partial(find_all, urls)) if urls else set()

        def judge(host: str, port: int) -> bool:
            known = allow_private or (host, port) in proxies
            passes = known or is_public(host, home_networks())
            self.fenced["address"] += not passes
            return passes

        async with (
            self.child(
                request.prefix.partition("_")[0],
                "download",
                judge,
                request=vars(request),
                home=str(request.folder.with_name("home")),
                plugins=plugins,
                allow_private=allow_private,
                proxies=sorted(proxies),
                networks=home_networks(),
                cpu_s=request.timeout_s,
                max_file_bytes=request.max_file_bytes,
            ) as child,
            self._watched(child, request),
        ):
            more = False  # files than there may be
            async for message in self.events(child):
                with making_sense():
                    match message["event"]:
                        case "engine" if not request.engine:
                            request.engine = self._chosen(
                                request.url, message["choice"]
                            )
                        case "info":
                            told = _messages.facts(message["facts"])
                            if "leads_to" in fetched.facts:  # the first word counts
                                told.pop("leads_to", None)
                            fetched.facts |= told
                            if "leads_to" in told:
                                on_file(fetched)
                        case "progress":
                            child.busy = child.found = True
                            progress = _messages.progress(message["progress"])
                            on_progress(progress)
                        case "file" if len(fetched.paths) < request.max_items:
                            path = _messages.path(message["path"])
                            if alt := _messages.alt(message.get("alt", "")):
                                fetched.alts[path.name] = alt
                            fetched.paths.append(path)
                            child.busy, child.found = False, True
                            on_file(fetched)
                        case "file":
                            more = True
                        case "item_failed":
                            failed = self._failure(message)
                            if len(fetched.failures) < request.max_items:
                                fetched.failures.append(failed)
                        case "done" if more:
                            fetched.facts["more"] = True
                        case "done":
                            pass
                        case event:
                            raise ValueError(event)

    @contextlib.asynccontextmanager
    async def _watched(self, child: Child, request: Request) -> AsyncIterator[None]:
        """Kill a child that takes too much memory or disk, or stalls; the block then
        ends with that reason."""
        reason: list[JobFailed] = []
        most_memory = self.config.memory_limit + GROUP_MEMORY_BYTES

        def measure() -> tuple[int, int]:
            home = request.folder.with_name("home")
            folders = (request.folder, home, request.cache_dir)
            sizes = (size_of(folder, TOO_DEEP_BYTES) for folder in folders)
            return sum(sizes), child.holds()[0]

        async def watch() -> None:
            mark_bytes, mark_s = 0, time.monotonic()
            find_until_s = mark_s + self.find_s + 10 * request.sleep_request_s
            before = await asyncio.to_thread(size_of, request.cache_dir)
            while True:
                await asyncio.sleep(1)
                size, memory = await asyncio.to_thread(measure)
                size -= before
                # It shrinks when the parts of a video have been put together.
                moved = abs(size - mark_bytes) >= self.stall_bytes
                if moved or not child.busy:
                    mark_bytes, mark_s = size, time.monotonic()
                if size > request.max_job_bytes + 2**24 > 2**24:
                    reason.append(JobFailed(Cause.TOO_LARGE, "over max_job_size"))
                elif memory > most_memory:
                    reason.append(JobFailed(Cause.TOO_LARGE, f"{memory} of memory"))
                elif time.monotonic() - mark_s > self.stall_s:
                    reason.append(JobFailed(Cause.TIMED_OUT, "it stood still"))
                elif not child.found and time.monotonic() > find_until_s:
                    reason.append(JobFailed(Cause.TIMED_OUT, "it found no file"))
                if reason:
                    child.kill()
                    return

        task = asyncio.create_task(watch())
        try:
            yield
        except JobFailed as error:
            raise (reason or [error])[0] from error
        finally:
            task.cancel()
