"""Runs the engines in child processes, watched and limited from outside.

A fork server with the engines' libraries warm makes a child for each attempt; what goes
on inside a child, the fence above all, is in ``_child.py``.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from loguru import logger

from bossbot import (
    HERE,
    Cause,
    Download,
    Finding,
    Job,
    JobFailed,
    Pipeline,
    Platform,
    PluginError,
    Progress,
    Request,
    Runner,
    hookimpl,
    write_atomically,
)

CHILD = Path(__file__).resolve().with_name("_child.py")
CAN_FORK = sys.platform == "linux"  # elsewhere a fork after threads is not safe
MAX_LINE_BYTES = 256 * 1024
MAX_LOG_BYTES = 256 * 1024  # of what a child prints; the rest is dropped
GROUP_MEMORY_BYTES = 2**30  # on top of memory_limit: ffmpeg, a JavaScript runtime
MAX_URLS = 500  # that one child is asked about
STALL_S, STALL_BYTES = 60.0, 32 * 1024  # a download must gain so much in that time
JS_RUNTIMES = ("deno", "node", "bun", "qjs")
KEPT_ENVIRONMENT = re.compile(
    r"(PATH|LANG|LC_\w+|TZ|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|SYSTEMROOT"
    r"|(HTTPS?|ALL|NO)_PROXY|PYTHONDONTWRITEBYTECODE)$",
    re.IGNORECASE,
)
NO_PLATFORM = Platform("", "", "", "")
COOKIES_HEADER = "# Netscape HTTP Cookie File"


@hookimpl(trylast=True)  # any other runner is there because the host wants it
def register_runner(pipeline: Pipeline) -> Runner:
    if not CHILD.is_file():
        raise PluginError(f"{CHILD} is missing: git checkout {CHILD}")
    return Children(pipeline)


@hookimpl
def check_host() -> list[Finding]:
    programs = find_programs()
    findings = []
    if "ffmpeg" not in programs or "ffprobe" not in programs:
        findings.append(
            Finding(
                "no ffmpeg",
                "videos whose sound comes apart are fetched in a lower quality",
                "Debian: apt install ffmpeg. macOS: brew install ffmpeg.",
            )
        )
    if programs.keys().isdisjoint(JS_RUNTIMES):
        findings.append(
            Finding(
                "no JavaScript runtime",
                "most of YouTube does not work",
                f"{sys.executable} -m pip install deno, or install Node.js.",
            )
        )
    return findings


def find_programs() -> dict[str, str]:
    """The helper programs on this machine: name and absolute path."""
    folders = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    )
    names = ("ffmpeg", "ffprobe", *JS_RUNTIMES)
    found = {name: shutil.which(name, path=folders) for name in names}
    return {name: os.path.realpath(path) for name, path in found.items() if path}


class Child:
    """One child process, seen from the bot."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid = 0  # known once it is a group of its own
        self.busy = False  # a file is on its way
        self.exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter | None = None

    def kill(self) -> None:
        """End it with everything it started; its socket then closes."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        if self.writer:
            self.writer.close()  # one that is no group yet sees this and goes

    def memory_bytes(self) -> int:
        """What its process group holds in memory; blocks."""
        pages = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                values = path.read_text().rpartition(")")[2].split()
                if int(values[2]) == self.pid:
                    pages += int(values[21])
        return pages * resource.getpagesize()


class Children:
    """The ``Runner`` of this machine: starts the children, and the fork server they
    come from."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.programs = find_programs()
        self.running: dict[int, Child] = {}
        self._numbers = itertools.count(1)
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def engine_files(self) -> dict[str, str]:
        """The plugin file of each engine, by the engine's name."""
        folder = self.pipeline.settings.plugins_dir
        return {
            engine.name: str(folder / f"{plugin.stem}.py")
            for plugin in self.pipeline.plugins.all.values()
            for engine in plugin.engines
        }

    def _python(self, call: str, channel: socket.socket, log: int) -> Any:
        """Start a Python that runs a function of the child's side."""
        environment = {k: v for k, v in os.environ.items() if KEPT_ENVIRONMENT.match(k)}
        code = (
            f"import os, sys, pathlib; sys.path.insert(0, {str(HERE)!r}); import bossbot; "
            f"bossbot.import_plugin(pathlib.Path({str(CHILD)!r})).{call}"
        )
        return subprocess.Popen(
            [sys.executable, "-P", "-c", code],  # -P: no working directory in sys.path
            stdin=channel.fileno(),
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )

    def start(self) -> None:
        """Start the fork server; it warms up while the bot goes on."""
        if self._server or not CAN_FORK:
            return
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log = self._log_pipe("fork server")
        self._server = self._python("serve()", theirs, log)
        theirs.close()
        os.close(log)
        files = sorted(set(self.engine_files().values()))
        self._control.send(json.dumps({"engines": files}).encode())
        self._control.setblocking(False)
        asyncio.get_running_loop().add_reader(self._control, self._hear_server)

    def _hear_server(self) -> None:
        assert self._control and self._server
        try:
            packet = self._control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if packet:
            message = json.loads(packet)
            child = self.running.get(message["child"])
            if child and not child.exit.done():
                child.exit.set_result(message["exit"])
            return
        logger.error("the fork server ended; the next download starts a new one")
        self._forget_server()

    def _forget_server(self) -> None:
        if self._control and self._server:
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()  # at which a living server kills its children, and ends
            self._keep(asyncio.to_thread(self._server.wait))
        self._control = self._server = None

    def _log_pipe(self, name: str) -> int:
        """The writing end of a pipe whose lines go to the log."""
        reading, writing = os.pipe()

        async def copy() -> None:
            reader = asyncio.StreamReader(limit=65536)
            await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb")
            )
            left = MAX_LOG_BYTES
            while chunk := await reader.read(8192):
                for line in chunk[:left].decode(errors="replace").splitlines():
                    logger.debug("[{}] {}", name, line)
                left = max(left - len(chunk), 0)

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
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=3)

    @contextlib.asynccontextmanager
    async def child(self, name: str, task: str, **request: Any) -> AsyncIterator[Child]:
        """A child at work on a task; it is dead when the block ends."""
        child = Child(next(self._numbers))
        self.running[child.number] = child
        ours, theirs = socket.socketpair()
        log = self._log_pipe(name)
        try:
            try:
                self._send_for(child, theirs, log)
            except OSError:  # the server has just died
                self._forget_server()
                self._send_for(child, theirs, log)
            finally:
                theirs.close()
                os.close(log)
            child.reader, child.writer = await asyncio.open_unix_connection(
                sock=ours, limit=MAX_LINE_BYTES
            )
            request |= {
                "task": task,
                "memory_bytes": int(self.pipeline.settings.memory_limit),
            }
            child.writer.write(json.dumps(request, default=str).encode() + b"\n")
            yield child
        finally:
            child.kill()
            del self.running[child.number]

    def _send_for(self, child: Child, theirs: socket.socket, log: int) -> None:
        """Have a process made that takes the other end of the socket and the pipe."""
        self.start()
        if self._control:
            packet = json.dumps({"child": child.number}).encode()
            socket.send_fds(self._control, [packet], [theirs.fileno(), log])
        else:
            process = self._python("main(os.dup(0), 1)", theirs, log)
            self._keep(self._wait_for(process, child))

    async def _wait_for(self, process: Any, child: Child) -> None:
        status = await asyncio.to_thread(process.wait)
        if not child.exit.done():
            child.exit.set_result(status)

    async def events(self, child: Child) -> AsyncIterator[dict[str, Any]]:
        """What the child tells, up to "done".

        Raises:
            JobFailed: what it said, or how it died.
        """
        while True:
            try:
                line = await child.reader.readline()
            except (ValueError, ConnectionError) as error:
                raise JobFailed(Cause.INTERNAL, f"child: {error}") from error
            if not line:
                break
            try:
                message = json.loads(line)
            except ValueError:
                break
            match message["event"]:
                case "started":
                    child.pid = child.pid or message["pid"]
                case "failed":
                    raise _failure(message)
                case "done":
                    yield message
                    return
                case _:
                    yield message
        try:
            async with asyncio.timeout(5):
                status = await asyncio.shield(child.exit)
        except TimeoutError:
            status = -signal.SIGKILL
        how = (
            f"signal {signal.Signals(-status).name}" if status < 0 else f"exit {status}"
        )
        raise JobFailed(
            Cause.INTERNAL,
            f"the download process died: {how}",
            f"The download process died ({how}). Try again; if it happens again, tell "
            "the bot's owner.",
        )

    # What the pipeline asks for

    async def supports(self, urls: Sequence[str], without: str = "") -> list[str]:
        """See ``Runner``."""
        files = self.engine_files()
        others = set(files.values()) - {files.get(without)}
        found: list[str | None] = []
        for start in range(0, len(urls), MAX_URLS):
            found += await self._ask(
                "supports",
                urls=urls[start : start + MAX_URLS],
                plugins=sorted(others),
                own=bool(without),
            )
        return [engine or "" for engine in found]

    async def versions(self) -> dict[str, tuple[str, int | None]]:
        """See ``Runner``."""
        files = set(self.engine_files().values())
        found = await self._ask("versions", plugins=sorted(files))
        return {name: (version, days) for name, (version, days) in found.items()}

    async def run(self, job: Job, argv: Sequence[str]) -> dict[str, Any]:
        """See ``Runner``."""
        settings = self.pipeline.settings
        home = settings.data_dir / "temp" / job.id / str(job.fence) / "home"
        answer: dict[str, Any] = await self._answer(
            job.id,
            "run",
            argv=list(argv),
            home=str(home),
            cwd=str(home),
            max_file_bytes=int(settings.max_job_size),
        )
        return answer

    async def _ask(self, task: str, **request: Any) -> Any:
        """The answer of a short task that belongs to no job."""
        home = str(self.pipeline.settings.data_dir / "temp")
        async with asyncio.timeout(60):
            return await self._answer(task, task, home=home, **request)

    async def _answer(self, name: str, task: str, **request: Any) -> Any:
        async with self.child(name, task, **request) as child:
            async for message in self.events(child):
                if message["event"] == "done":
                    return message["answer"]

    async def fetch(self, job: Job, tell: Callable[[Progress], None]) -> Download:
        """See ``Runner``."""
        settings, storage = self.pipeline.settings, self.pipeline.storage
        platforms = self.pipeline.plugins.registered("platforms")
        platform: Platform = platforms.get(job.platform, NO_PLATFORM)
        folder = await asyncio.to_thread(storage.attempt_folder, job)
        request = Request(
            url=job.url,
            folder=folder / "files",
            prefix=f"{job.id}_{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}_temp",
            platform=job.platform,
            cache_dir=settings.data_dir / "cache" / (job.platform or "other"),
            programs=self.programs,
            max_items=settings.max_items,
            max_file_bytes=int(settings.max_download_size),
            max_job_bytes=int(settings.max_job_size),
            target_bytes=int(settings.max_file_size),
            options=platform.options,
            proxy=platform.proxy,
            sleep_request_s=platform.sleep_request_s,
            failures=platform.failures,
            cookies_file=await asyncio.to_thread(
                write_cookies, platform, folder / "home" / "cookies.txt"
            ),
        )
        request.cache_dir.mkdir(parents=True, exist_ok=True)
        download = Download()
        try:
            async with asyncio.timeout(settings.download_timeout_s):
                found = await self._download(job, request, download, tell)
        except TimeoutError:
            raise JobFailed(Cause.TIMED_OUT, "over download_timeout_s") from None
        finally:  # sites rotate cookies on pages of failure, too
            if request.cookies_file:
                await asyncio.to_thread(keep_cookies, platform, request.cookies_file)
        for path in found[: settings.max_items]:
            try:
                file = await asyncio.to_thread(storage.inspect, path, request.folder)
                download.files.append(file)
            except JobFailed as error:
                download.failures.append(error)
            except OSError as error:
                failed = JobFailed(Cause.NO_MEDIA, f"{path.name}: {error}")
                download.failures.append(failed)
        if not download.files and not download.facts.get("text"):
            failures = download.failures or [JobFailed(Cause.NO_MEDIA)]
            raise failures[0]
        return download

    async def _download(
        self,
        job: Job,
        request: Request,
        download: Download,
        tell: Callable[[Progress], None],
    ) -> list[Path]:
        """What a child tells while it downloads goes into ``download``; returns the
        files it names, not checked yet."""
        settings, found = self.pipeline.settings, list[Path]()
        files = self.engine_files()
        if job.engine not in files:
            raise JobFailed(Cause.UNSUPPORTED, f"no engine {job.engine}")
        async with (
            self.child(
                job.id,
                "download",
                request=dataclasses.asdict(request),
                home=str(request.folder.with_name("home")),
                plugin=files[job.engine],
                engine=job.engine,
                allow_private=settings.allow_private_addresses,
                warm=not CAN_FORK,
                max_file_bytes=request.max_file_bytes,
            ) as child,
            self._watched(child, request),
        ):
            async for message in self.events(child):
                match message["event"]:
                    case "info":
                        download.facts |= message["facts"]
                    case "progress":
                        child.busy = True
                        tell(Progress(**message["progress"]))
                    case "file":
                        found.append(Path(message["path"]))
                        child.busy = False
                    case "item_failed":
                        download.failures.append(_failure(message))
        return found

    @contextlib.asynccontextmanager
    async def _watched(self, child: Child, request: Request) -> AsyncIterator[None]:
        """Kill a child that holds too much memory or disk, or stands still; the block
        then ends with that reason."""
        reason: list[JobFailed] = []
        settings = self.pipeline.settings
        most_memory = settings.memory_limit + GROUP_MEMORY_BYTES

        def measure() -> tuple[int, int]:
            sizes = (p.lstat().st_size for p in request.folder.rglob("*"))
            return sum(sizes), child.memory_bytes()

        async def watch() -> None:
            mark_bytes, mark_s = 0, time.monotonic()
            while True:
                await asyncio.sleep(1)
                with contextlib.suppress(OSError):  # files come and go
                    size, memory = await asyncio.to_thread(measure)
                    gained = size - mark_bytes >= STALL_BYTES
                    if gained or not child.busy:
                        mark_bytes, mark_s = size, time.monotonic()
                    if size > request.max_job_bytes + 2**24 > 2**24:
                        reason.append(JobFailed(Cause.TOO_LARGE, "over max_job_size"))
                    elif memory > most_memory:
                        reason.append(JobFailed(Cause.TOO_LARGE, f"{memory} of memory"))
                    elif time.monotonic() - mark_s > STALL_S:
                        reason.append(JobFailed(Cause.TIMED_OUT, "it stood still"))
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


def _failure(message: dict[str, Any]) -> JobFailed:
    cause, *rest = message["error"]
    return JobFailed(Cause(cause), *rest)


def write_cookies(platform: Platform, path: Path) -> Path | None:
    """An attempt's own cookies.txt, from the platform's settings; None without any.
    What the host's file held is left beside it, for ``keep_cookies``."""
    lines = [COOKIES_HEADER]
    if platform.cookies_file:
        try:
            data = platform.cookies_file.read_bytes()
            lines += data.decode().splitlines()
            write_atomically(path.with_suffix(".host"), data)
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
    """Write rotated cookies back to the host's file, unless the host has changed it in
    the meantime; the named ones are not its business."""
    with contextlib.suppress(OSError, ValueError):
        before = used.with_suffix(".host").read_bytes()
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
