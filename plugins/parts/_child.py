"""The child's side of a download: the fork server, the children, and their sandbox.

A library of ``child_runner.py``, which starts a Python that runs ``serve``. The fork
server warms the engines up once and forks a child for each attempt, which gets a socket
for JSON lines and a pipe for its output. When the bot goes away, both close and
everything dies.
"""

import contextlib
import dataclasses
import errno
import gc
import importlib.metadata
import ipaddress
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from bossbot import (
    PLUGIN_PACKAGE,
    SENTENCES,
    Cause,
    Engine,
    JobFailed,
    Progress,
    Request,
    import_plugin,
    open_plugins,
)

JS_MEMORY_BYTES = 2**30  # V8 needs it
# What makes ffmpeg open anything but a local file: "http:x", "concat:", "subfile,,:".
REMOTE_ARGUMENT = re.compile(r"^(?!file:)[A-Za-z][\w.+,-]*:|(?<!file)://")


def serve() -> None:
    """Be the fork server. Standard input is a socket: its first packet names the
    engines' plugins, and each later one asks for a child and brings its socket and
    pipe."""
    control = socket.socket(fileno=os.dup(0))
    setup = json.loads(control.recv(65536))
    pids: dict[int, int] = {}

    def reap(*_: Any) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                number = pids.pop(ended[0], 0)
                status = os.waitstatus_to_exitcode(ended[1])
                control.send(json.dumps({"child": number, "exit": status}).encode())

    signal.signal(signal.SIGCHLD, reap)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the bot's to handle
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for stem in setup["plugins"]:
        try:
            for engine in load_engines(stem).values():
                engine.warm()
        except (Exception, SystemExit):  # the boundary of a plugin; a child reports it
            traceback.print_exc()
    # A child imports its plugin from disk, so that a reload counts for it too.
    open_plugins(sys.modules[PLUGIN_PACKAGE].__path__)
    gc.collect()
    gc.freeze()  # the children share these pages
    while True:
        packet, descriptors, *_ = socket.recv_fds(control, 65536, 2)
        if not packet:
            for pid in pids:
                with contextlib.suppress(OSError):
                    os.killpg(pid, signal.SIGKILL)
            os._exit(0)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if pid == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            try:
                main(*descriptors)
            finally:
                os._exit(1)  # whatever happens, a child never becomes a server
        pids[pid] = json.loads(packet)["child"]
        for descriptor in descriptors:
            os.close(descriptor)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def load_engines(stem: str) -> dict[str, Engine]:
    """The engines of a plugin, by name; raises what the plugin raises."""
    module = import_plugin(stem)
    return {engine.name: engine for engine in module.register_engines()}


def main(talk: int, log: int) -> NoReturn:
    """Be the child of one attempt: read a request, carry it out, report the result."""
    if os.getpgrp() != os.getpid():
        os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if log > 2:
        os.close(log)
    connection = socket.socket(fileno=talk)
    lock = threading.Lock()

    def tell(**message: Any) -> None:
        # Engines pass halves of surrogate pairs on, which no file or database takes.
        text = json.dumps(message, ensure_ascii=False) + "\n"
        with lock:
            connection.sendall(text.encode("utf-8", "replace"))

    tell(event="started", pid=os.getpid())  # from here on we are a group to kill
    line = connection.makefile("rb").readline()
    if not line:
        os._exit(0)
    request = json.loads(line)

    def watch() -> None:
        with contextlib.suppress(OSError):
            connection.recv(1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    try:
        random.seed()
        os.environ |= {"HOME": request["home"], "TMPDIR": request["home"]}
        os.chdir(request["home"])
        memory = (request["memory_bytes"], JS_MEMORY_BYTES + request["memory_bytes"])
        resource.setrlimit(resource.RLIMIT_DATA, memory)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if size := request.get("max_file_bytes"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        tell(event="done", answer=TASKS[request["task"]](request, tell))
    except JobFailed as error:
        tell(event="failed", error=_words(error))
    # The boundary of an attempt: whatever it is, the parent must learn of it.
    except BaseException as error:
        traceback.print_exc()
        cause = Cause.INTERNAL
        if isinstance(error, MemoryError):
            cause = Cause.TOO_LARGE
        elif isinstance(error, OSError):
            errors = {errno.ENOSPC: Cause.DISK_FULL, errno.EFBIG: Cause.TOO_LARGE}
            cause = errors.get(error.errno or 0, cause)
        detail = f"{type(error).__name__}: {error}"
        tell(event="failed", error=_words(JobFailed(cause, detail)))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _words(error: JobFailed) -> list[Any]:
    """The arguments that make the error again, to be sent as JSON."""
    return [error.cause, error.detail[:4000], str(error)[:500], error.retry_after_s]


class ChildReport:
    """The child's ``Report``: an engine's reports go to the bot as JSON lines."""

    def __init__(self, tell: Callable[..., None], request: Request) -> None:
        self._tell = tell
        self._request = request
        self._last_s = 0.0
        self._bytes = 0

    def info(self, **facts: Any) -> None:
        """See ``Report``; texts are cut to 8,000 characters."""
        self._tell(event="info", facts={k: _cut(v) for k, v in facts.items()})

    def progress(self, progress: Progress) -> None:
        """See ``Report``; at most ten times a second. Stops a job that is too large."""
        limit = self._request.max_job_bytes
        if limit and self._bytes + progress.done_bytes > limit:
            raise JobFailed(Cause.TOO_LARGE, f"over max_job_size ({limit} bytes)")
        if time.monotonic() - self._last_s > 0.1:
            self._last_s = time.monotonic()
            facts = dataclasses.asdict(progress) | {"name": _cut(progress.name, 300)}
            self._tell(event="progress", progress=facts)

    def file(self, path: Path) -> None:
        """See ``Report``."""
        self._bytes += path.stat().st_size
        self._tell(event="file", path=str(path))

    def item_failed(self, failure: JobFailed) -> None:
        """See ``Report``."""
        self._tell(event="item_failed", error=_words(failure))


def _cut(value: Any, limit: int = 8000) -> Any:
    return value[:limit] if isinstance(value, str) else value


def _task_download(request: dict[str, Any], tell: Callable[..., None]) -> None:
    """Fetch a link with an engine."""
    job = Request(**request["request"])
    job.folder, job.cache_dir = Path(job.folder), Path(job.cache_dir)
    job.cookies_file = Path(job.cookies_file) if job.cookies_file else None
    job.failures = [(pattern, Cause(cause)) for pattern, cause in job.failures]
    if request["warm"]:  # a fresh interpreter; in the sandbox it may not
        load_engines(request["plugin"])[job.engine].warm()
    raise_sandbox(tell, job, request["allow_private"])
    engine = load_engines(request["plugin"])[job.engine]
    try:
        engine.download(job, ChildReport(tell, job))
    except JobFailed as error:
        if error.cause is Cause.ENGINE_OUTDATED:
            which = f"{engine.name} {engine.version()}"
            if (days := age_days(engine.name, engine.version())) is not None:
                which += f", {days} days old"
            raise JobFailed(
                error.cause, error.detail, f"{error} (It is {which}.)"
            ) from error
        raise


def _load_all(stems: Iterable[str]) -> list[Engine]:
    """The engines of several plugins, by name; a broken plugin has none."""
    engines: list[Engine] = []
    for stem in stems:
        try:
            engines += load_engines(stem).values()
        except (Exception, SystemExit):  # the boundary of a plugin
            traceback.print_exc()
    return sorted(engines, key=lambda engine: engine.name)


def _task_supports(
    request: dict[str, Any], tell: Callable[..., None]
) -> list[str | None]:
    """See ``Runner.supports``; None if there is no engine."""
    engines = {engine.name: engine for engine in _load_all(request["plugins"])}
    generic = next((e.name for e in engines.values() if e.generic), None)
    without = request.get("without", "")

    def asked(answer: Callable[[str], bool], url: str) -> bool:
        try:
            return answer(url)
        except Exception:  # the boundary of a plugin
            traceback.print_exc()
            return False

    def best(url: str) -> str | None:
        others = [e for name, e in engines.items() if name != without]
        known = [e for e in others if asked(e.supports, url)]
        sure = (e.name for e in known if len(known) == 1 or asked(e.single, url))
        found = next(sure, known[0].name if known else None)
        if without not in engines:
            return found if without else found or generic
        if not asked(engines[without].single, url):
            return found or (generic if generic != without else None)
        # Where they differ on what the link is, either may be wrong.
        differ = found and not asked(engines[found].single, url)
        return None if request.get("after_guess") and not differ else found

    return [best(url) for url in request["urls"]]


def _task_versions(request: dict[str, Any], tell: Callable[..., None]) -> Any:
    """The engines' versions, and how many days old each is."""
    versions = {e.name: e.version() for e in _load_all(request["plugins"])}
    return {name: (found, age_days(name, found)) for name, found in versions.items()}


def _task_run(request: dict[str, Any], tell: Callable[..., None]) -> list[Any]:
    """Run a helper program on local files; returns its exit code and the last 16,384
    characters of stdout and stderr."""
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    home = Path(request["home"])
    raise_sandbox(tell, Request("", home, "", programs=request["programs"]), False)
    outputs = [b"", b""]

    def read(number: int, stream: Any) -> None:
        while chunk := stream.readline(4096):
            outputs[number] = (outputs[number] + chunk)[-65536:]
            if request["lines"] and number == 0:
                tell(event="line", text=chunk.decode(errors="replace").strip())

    with subprocess.Popen(
        request["argv"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        streams = enumerate((program.stdout, program.stderr))
        threads = [threading.Thread(target=read, args=one) for one in streams]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    texts = (output.decode(errors="replace")[-16384:] for output in outputs)
    return [program.returncode, *texts]


TASKS: dict[str, Callable[..., Any]] = {
    "download": _task_download,
    "supports": _task_supports,
    "versions": _task_versions,
    "run": _task_run,
}


def age_days(package: str, version: str) -> int | None:
    """Days since a release whose version is its date, else since it was installed;
    None for what is no installed package."""
    today = datetime.now(UTC).date()
    with contextlib.suppress(ValueError):  # it only looks like a date
        if found := re.match(r"(20\d\d)\.(\d\d?)\.(\d\d?)(?!\d)", version):
            return (today - date(*(int(part) for part in found.groups()))).days
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, OSError):
        folder = Path(str(importlib.metadata.distribution(package).locate_file("")))
        installed = folder / f"{package.replace('-', '_')}-{version}.dist-info"
        return (today - date.fromtimestamp(installed.stat().st_mtime)).days
    return None


def is_public(address: str) -> bool:
    """Whether a literal address is on the internet; one that carries an IPv4 address
    (mapped, compatible, 6to4, Teredo, NAT64) is judged by that."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a name, or an odd spelling that the system would resolve
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        raw = ip.packed
        carried: list[Any] = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        siit = b"\0" * 8 + b"\xff\xff\0\0"  # RFC 7915
        if raw[:12] in (b"\0" * 12, siit, bytes.fromhex("0064ff9b") + b"\0" * 8):
            carried.append(ipaddress.IPv4Address(raw[12:]))
        if raw[:6] == bytes.fromhex("0064ff9b0001"):  # RFC 6052, a /48
            carried.append(ipaddress.IPv4Address(raw[6:8] + raw[9:11]))
        if judged := [str(v4) for v4 in carried if v4 is not None]:
            return all(is_public(v4) for v4 in judged)
    site_local = getattr(ip, "is_site_local", False)
    return ip.is_global and not ip.is_multicast and not site_local


def real_program(name: str, cwd: Any, environment: Any) -> str:
    """The real path of what a name would start: from a folder of PATH, or, with a
    slash in it, from the folder it would be started in."""
    if os.sep not in name:
        folders = os.pathsep.join(os.get_exec_path(environment))
        name = shutil.which(name, path=folders) or name
    return os.path.realpath(os.path.join(os.fsdecode(cwd or ""), name))


def raise_sandbox(
    tell: Callable[..., None], request: Request, allow_private: bool
) -> None:
    """Let this process reach only public addresses and the owner's own proxies, and
    start only the helper programs, on local files."""
    programs = set(request.programs.values())
    proxies = set()
    names = ("http_proxy", "https_proxy", "all_proxy")
    variables = [value for key, value in os.environ.items() if key.lower() in names]
    for proxy in filter(None, [request.proxy, *variables]):
        parts = urlsplit(proxy if "://" in proxy else f"//{proxy}")
        if parts.hostname:
            with contextlib.suppress(OSError, ValueError):
                port = parts.port or {"https": 443}.get(parts.scheme, 80)
                for found in socket.getaddrinfo(parts.hostname, port):
                    proxies.add(found[4][:2])

    def refuse(what: str, message: str) -> NoReturn:
        # The engine must not try again: the attempt ends here.
        tell(event="failed", error=_words(JobFailed(Cause.INVALID_URL, what, message)))
        os.killpg(0, signal.SIGKILL)
        raise SystemExit

    def check_address(address: Any) -> None:
        private = "That link leads to a private address, which I do not open."
        if not isinstance(address, tuple):
            refuse(f"socket {address!r}", private)
        if address[:2] in proxies or allow_private or is_public(str(address[0])):
            return
        refuse(f"private address {address[0]}", private)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            if arguments[1] is not None:
                check_address(arguments[1])
        elif event in ("subprocess.Popen", "os.posix_spawn", "os.exec"):
            name, environment = os.fsdecode(arguments[0]), arguments[-1]
            cwd = arguments[2] if event == "subprocess.Popen" else None
            program = real_program(name, cwd, environment)
            if os.sep not in name and program not in programs:  # engines look for some
                raise FileNotFoundError(errno.ENOENT, "not for downloads", name)
            argv = [os.fsdecode(argument) for argument in arguments[1]]
            if program not in programs or any(map(REMOTE_ARGUMENT.search, argv)):
                refuse(f"program {argv}", SENTENCES[Cause.INTERNAL])
        elif event in ("os.system", "os.spawn", "pty.spawn"):
            refuse(event, SENTENCES[Cause.INTERNAL])

    if proxies:  # the proxy would dial for us: judge the link's own host, too
        host = urlsplit(request.url).hostname or ""
        with contextlib.suppress(OSError):
            for found in socket.getaddrinfo(host, None):
                check_address(found[4])
    sys.addaudithook(audit)
