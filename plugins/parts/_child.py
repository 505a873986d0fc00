"""The child's side of a download: the fork server, the children, and their sandbox.

A library of ``child_runner.py``, which starts a Python that runs ``serve``. The fork
server warms the engines up once and forks a child for each attempt, which gets a socket
for JSON lines and a pipe for its output. When the bot goes away, both close and
everything dies.
"""

import contextlib
import dataclasses
import errno
import functools
import gc
import importlib
import importlib.metadata
import itertools
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
import traceback
from array import array
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, date, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from bossbot_plugins import _pages, _seccomp, _walls
from bossbot_plugins._addresses import Network, is_public
from bossbot_plugins._broker import use_broker
from bossbot_plugins._frames import to_apng
from bossbot_plugins._landlock import without
from bossbot_plugins._messages import (
    FRAMES,
    PRIVATE,
    known_alt,
    known_facts,
    known_progress,
    words,
)

from bossbot import (
    PLUGIN_PACKAGE,
    SENTENCES,
    Cause,
    Engine,
    JobFailed,
    Progress,
    Report,
    Request,
    open_plugins,
)

JS_MEMORY_BYTES = 2**30  # V8 needs it
MAX_DIALS = 10_000  # connections of one attempt
CHOICE_S = 1.0  # of the processor, to find the engine that supports a link
# What makes ffmpeg open anything but a local file: "http:x", "concat:", "subfile,,:".
REMOTE_ARGUMENT = re.compile(r"^(?!file:)[A-Za-z][\w.+,-]*:|(?<!file)://")


def serve() -> None:
    """Be the fork server. Standard input is a socket: its first packet names the
    engines' plugins, and each later one asks for a child and brings its two sockets and
    its pipe."""
    _walls.hide()
    control = socket.socket(fileno=os.dup(0))
    setup = json.loads(control.recv(65536))
    pids: dict[int, int] = {}

    def reap(*_: Any) -> None:
        # When the bot is gone, the loop below notices and ends the children.
        with contextlib.suppress(ChildProcessError, BrokenPipeError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                number = pids.pop(ended[0], 0)
                status = os.waitstatus_to_exitcode(ended[1])
                control.send(json.dumps({"child": number, "exit": status}).encode())

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the bot's to handle
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for stem in setup["plugins"]:
        try:
            stamp = stamp_of(stem)
            WARM[stem] = (stamp, load_engines(stem))
        except (Exception, SystemExit):  # the boundary of a plugin; a child reports it
            traceback.print_exc()
    _libraries.cache_clear()  # each child looks again
    # Files that have changed on disk since are imported again, so that a reload counts, too.
    open_plugins(sys.modules[PLUGIN_PACKAGE].__path__)
    _walls.prepare((os.getppid(), os.getpid()))  # once, for all children
    gc.collect()
    gc.freeze()  # the children share these pages
    pages = _pages.rehearsed(rehearse)
    signal.signal(signal.SIGCHLD, reap)
    while True:
        packet, descriptors, *_ = socket.recv_fds(control, 65536, 3)
        if not packet:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            for pid in list(pids):
                with contextlib.suppress(OSError):
                    os.killpg(pid, signal.SIGKILL)
            os._exit(0)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        asked = json.loads(packet)
        with contextlib.suppress(Exception):  # a child meets it again, and reports it
            readable_by_all(asked["setup"])
        pid = os.fork()
        if pid == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            try:
                talk, log, broker = descriptors
                main(talk, log, broker, asked["setup"], pages)
            finally:
                os._exit(1)  # whatever happens, a child never becomes a server
        pids[pid] = asked["child"]
        for descriptor in descriptors:
            os.close(descriptor)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


State = tuple[int, int] | None  # when a file was changed, and its size
# The engines that the fork server has warmed up, by plugin, and the files they are from.
WARM: dict[str, tuple[list[tuple[str, State]], dict[str, Engine]]] = {}


def stamp_of(stem: str) -> list[tuple[str, State]]:
    """The state of a plugin's file and of all libraries on disk; empty where one is a
    folder with code, which is not compared."""
    states = dict(_libraries())
    for folder in sys.modules[PLUGIN_PACKAGE].__path__:
        for name in (stem, f"{stem}.py"):
            with contextlib.suppress(OSError):
                path = os.path.join(folder, name)
                states[path] = _state_of(path, os.stat(path))
    return sorted(states.items()) if all(states.values()) else []


@functools.cache  # a child asks for each engine
def _libraries() -> dict[str, State]:
    """The states of the libraries of plugins, by path."""
    found = {}
    for folder in sys.modules[PLUGIN_PACKAGE].__path__:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name[0] == "_" and entry.name != "__pycache__":
                    try:
                        found[entry.path] = _state_of(entry.path, entry.stat())
                    except OSError:  # a link to nowhere
                        continue
    return found


def _state_of(path: str, status: os.stat_result) -> State:
    """The state of a file or folder; None for a folder with code."""
    if stat.S_ISDIR(status.st_mode) and next(Path(path).rglob("*.py"), None):
        return None
    return status.st_mtime_ns, status.st_size


def load_engines(stem: str) -> dict[str, Engine]:
    """The engines of a plugin, warm, by name; raises what the plugin raises."""
    stamp, engines = WARM.get(stem, ([], {}))
    if stamp and stamp == stamp_of(stem):
        return engines
    # The package is fresh: nothing has to be forgotten, and libraries are read once.
    module = importlib.import_module(f"{PLUGIN_PACKAGE}.{stem}")
    engines = {engine.name: engine for engine in module.register_engines()}
    for engine in engines.values():
        try:
            engine.warm()
        except Exception:  # it may only be slower
            traceback.print_exc()
    return engines


class Bot:
    """The bot, seen from the child, which reports to it, asks it, and dies with it."""

    def __init__(self, talk: int, broker: int) -> None:
        self.connection = socket.socket(fileno=talk)
        self.broker = socket.socket(fileno=broker)
        self._lock = threading.Lock()
        self._held = b""  # goes with the next message
        self.end_watch: Callable[[], None] = lambda: None

    def tell(self, later: bool = False, **message: Any) -> None:
        """Send a message, or ``later`` with the next one, since each wakes the bot; see
        ``ChildRunner.events``."""
        # Engines pass halves of surrogate pairs on, which no file or database takes.
        text = json.dumps(message, ensure_ascii=False) + "\n"
        with self._lock:
            self._held += text.encode("utf-8", "replace")
            if not later:
                self.connection.sendall(self._held)
                self._held = b""

    def watch(self) -> None:
        """Die with the bot from now on, with all that was started."""
        stopped, stop = os.pipe()

        def watch() -> None:
            poll = select.poll()
            poll.register(self.connection, select.POLLIN)
            poll.register(stopped, select.POLLIN)
            if stopped not in dict(poll.poll()):  # the bot says nothing any more
                os.killpg(0, signal.SIGKILL)

        def end() -> None:
            os.write(stop, b"x")
            thread.join()
            os.close(stopped)
            os.close(stop)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        self.end_watch = end


class Walls:
    """What keeps this process in, as far as the kernel has the walls. Those around its
    calls stand from the beginning: it reaches the network through the bot."""

    def __init__(self, bot: Bot, setup: dict[str, Any]) -> None:
        self.bot, self.setup = bot, setup
        if _walls.limit_calls((setup["bot"], os.getppid())):
            use_broker(bot.broker)

    def keep_to(
        self, own: Iterable[Path | str] = (), files: Iterable[str] = ()
    ) -> None:
        """Let this process write its own folders, read some files and what its engines
        and programs need, and nothing else."""
        modules = _walls.loaded(sys.modules[PLUGIN_PACKAGE])
        sources = _walls.sources(modules, self.setup["private"])
        readable = {*readable_by_all(self.setup), *sources, *files}
        self.bot.end_watch()
        _walls.limit_files(readable, [str(one) for one in own])
        self.bot.watch()


def readable_by_all(setup: dict[str, Any]) -> set[str]:
    """The paths that each child may read; found by the fork server, and again only
    where an engine has told this process of more."""
    programs, private = tuple(setup["programs"].values()), tuple(setup["private"])
    return _readable(_walls.told(), programs, private)


@functools.cache
def _readable(
    told: frozenset[str], programs: tuple[str, ...], private: tuple[str, ...]
) -> set[str]:
    # Our shelves hold no secrets; the owner's folder, which comes first, may.
    _own, *ours = sys.modules[PLUGIN_PACKAGE].__path__
    shelves = without(map(os.path.realpath, ours), private)
    return _walls.readable(told, programs, private) | shelves


def rehearse() -> None:
    """Do what most children do, without any reports."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    hello = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(
        ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="boss-bot.invalid"
    )
    with contextlib.suppress(ssl.SSLWantReadError):  # nobody answers
        hello.do_handshake()
    engines = _load_all(WARM)
    choose(engines, "https://boss-bot.invalid/a.jpg")
    for engine in engines.values():
        if not engine.generic:  # the rest belongs to another engine
            engine.warm()


def main(
    talk: int,
    log: int,
    broker: int,
    setup: dict[str, Any],
    pages: "array[int] | tuple[()]" = (),
) -> NoReturn:
    """Be the child of one attempt: get ready, read a request, carry it out, report the
    result."""
    _walls.hide()
    if os.getpgrp() != os.getpid():
        os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if log > 2:
        os.close(log)
    bot = Bot(talk, broker)
    tell = bot.tell
    tell(event="started", pid=os.getpid())  # from here on we are a group to kill
    try:
        if pages and not select.select([bot.connection], [], [], 0)[0]:  # there is time
            _pages.copy(pages)
        walls = Walls(bot, setup)  # after which it may not do that
        line = bot.connection.makefile("rb").readline()
        if not line:
            os._exit(0)
        request = json.loads(line)
        if os.getppid() == setup["bot"]:  # else the fork server watches it, too
            bot.watch()
        random.seed()
        os.environ |= {"HOME": request["home"], "TMPDIR": request["home"]}
        os.chdir(request["home"])
        memory = (setup["memory_bytes"], JS_MEMORY_BYTES + setup["memory_bytes"])
        resource.setrlimit(resource.RLIMIT_DATA, memory)
        _walls.limit(request["cpu_s"])
        if size := request.get("max_file_bytes"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        tell(event="done", answer=TASKS[request["task"]](request, bot, walls))
    except JobFailed as error:
        tell(event="failed", error=words(error))
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
        tell(event="failed", error=words(JobFailed(cause, detail)))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


class ChildReport:
    """The child's ``Report``: an engine's reports go to the bot as JSON lines."""

    def __init__(self, tell: Callable[..., None], request: Request) -> None:
        self._tell = tell
        self._request = request
        self._last_s = 0.0
        self._bytes = 0

    def info(self, **facts: Any) -> None:
        """See ``Report``; long texts are cut. The target of a link is reported before
        anything of that place is read, which could lie about it."""
        later = "leads_to" not in facts
        self._tell(later=later, event="info", facts=known_facts(facts))

    def progress(self, progress: Progress) -> None:
        """See ``Report``; at most ten times a second. Stops a job that is too large."""
        limit = self._request.max_job_bytes
        if limit and self._bytes + progress.done_bytes > limit:
            raise JobFailed(Cause.TOO_LARGE, f"over max_job_size ({limit} bytes)")
        if time.monotonic() - self._last_s > 0.1:
            self._last_s = time.monotonic()
            told = dataclasses.asdict(known_progress(progress))
            self._tell(event="progress", progress=told)

    def file(self, path: Path, alt: str = "") -> None:
        """See ``Report``; long texts are cut."""
        self._bytes += path.stat().st_size
        self._tell(event="file", path=str(path), alt=known_alt(alt))

    def item_failed(self, failure: JobFailed) -> None:
        """See ``Report``."""
        self._tell(event="item_failed", error=words(failure))


def _task_download(request: dict[str, Any], bot: Bot, walls: Walls) -> None:
    """Fetch a link with an engine."""
    job = Request(**request["request"])
    job.folder, job.cache_dir = Path(job.folder), Path(job.cache_dir)
    job.cookies_file = Path(job.cookies_file) if job.cookies_file else None
    job.failures = [(pattern, Cause(cause)) for pattern, cause in job.failures]
    if job.engine:
        engines = load_engines(request["plugins"][job.engine])
    else:
        engines = _load_all(set(request["plugins"].values()))
    walls.keep_to([job.folder, request["home"], job.cache_dir])
    if not job.engine:
        choice = choose(engines, job.url)
        bot.tell(event="engine", choice=choice)
        job.engine = choice[0]
    proxies = {(host, port) for host, port in request["proxies"]}
    networks = [ip_network(text) for text in request["networks"]]
    watch_sockets(bot.tell, job, request["allow_private"], proxies, networks)
    engine = engines.get(job.engine, NO_ENGINE)
    engine.download(job, ChildReport(bot.tell, job))


def _load_all(stems: Iterable[str]) -> dict[str, Engine]:
    """The engines of several plugins, by name; a broken plugin has none."""
    engines: dict[str, Engine] = {}
    for stem in stems:
        try:
            engines |= load_engines(stem)
        except (Exception, SystemExit):  # the boundary of a plugin
            traceback.print_exc()
    return dict(sorted(engines.items()))


def _nothing(request: Request, report: Report) -> NoReturn:
    raise JobFailed(Cause.UNSUPPORTED, "no engine knows the link")


NO_ENGINE = Engine("", str, lambda: None, lambda url: False, _nothing)


class _Slow(BaseException):
    """A link keeps the engines' patterns busy."""


def choose(
    engines: dict[str, Engine],
    url: str,
    without: str = "",
    after_guess: bool = False,
    own: bool = False,
) -> tuple[str, bool]:
    """The engine for a link as ``Runner.supports`` says, "" if there is none; and
    whether it was given up for taking too long."""
    generic = "" if own else next((n for n, e in engines.items() if e.generic), "")

    def asked(answer: Callable[[str], bool], url: str = url) -> bool:
        try:
            return answer(url)
        except Exception:  # the boundary of a plugin
            traceback.print_exc()
            return False

    def best() -> str:
        others = [e for name, e in engines.items() if name != without]
        known = [e for e in others if asked(e.supports)]
        if own:  # what it supports without a site's address, it supports by the ending
            nowhere = re.sub(r"(?<=://)[^/?#]*", "boss-bot.invalid", url, count=1)
            known = [e for e in known if not asked(e.supports, nowhere)]
        sure = (e.name for e in known if len(known) == 1 or asked(e.single))
        found = next(sure, known[0].name if known else "")
        if without not in engines:
            return found if without else found or generic
        if not asked(engines[without].single):
            return found or (generic if generic != without else "")
        # Where they differ on what the link is, either may be wrong.
        differ = found and not asked(engines[found].single)
        return "" if after_guess and not differ else found

    def give_up(*_: Any) -> NoReturn:  # a search for a pattern looks for signals, too
        raise _Slow

    try:
        signal.signal(signal.SIGVTALRM, give_up)
        signal.setitimer(signal.ITIMER_VIRTUAL, CHOICE_S)
        try:
            return best(), False
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except _Slow:
        return "", True


def _task_supports(
    request: dict[str, Any], bot: Bot, walls: Walls
) -> list[tuple[str, bool]]:
    """See ``choose``."""
    engines = _load_all(request["plugins"])
    walls.keep_to()
    how = request["without"], request["after_guess"], request["own"]
    return [choose(engines, url, *how) for url in request["urls"]]


def _task_versions(request: dict[str, Any], bot: Bot, walls: Walls) -> Any:
    """The engines' versions, and how many days old each is."""
    engines = _load_all(request["plugins"])
    walls.keep_to()
    versions = {name: engine.version() for name, engine in engines.items()}
    return {name: (found, age_days(name, found)) for name, found in versions.items()}


def _task_run(request: dict[str, Any], bot: Bot, walls: Walls) -> list[Any]:
    """Run a helper program on local files; returns its exit code and the last 16,384
    characters of stdout and stderr."""
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    home, argv = Path(request["home"]), request["argv"]
    job = Request("", home, "", programs=walls.setup["programs"])
    watch_sockets(bot.tell, job, False, (), ())
    files = [word.removeprefix("file:") for word in argv[1:]]
    files = [file for file in files if os.path.isabs(file) and os.path.isfile(file)]
    own = [home.with_name("files"), home, *request["devices"]]
    if request["background"]:
        give_way()
    walls.keep_to(own, files)
    if argv[0] == FRAMES:
        source, target = (Path(word.removeprefix("file:")) for word in argv[1:])
        to_apng(source, target)
        return [0, "", ""]
    outputs = [b"", b""]

    def read(number: int, stream: Any) -> None:
        while chunk := stream.readline(4096):
            outputs[number] = (outputs[number] + chunk)[-65536:]
            if request["lines"] and number == 0:
                bot.tell(event="line", text=chunk.decode(errors="replace").strip())

    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        streams = enumerate((program.stdout, program.stderr))
        threads = [threading.Thread(target=read, args=one) for one in streams]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    texts = (output.decode(errors="replace")[-16384:] for output in outputs)
    return [program.returncode, *texts]


def give_way() -> None:
    """Give this process, and all that it starts, the lowest priority."""
    # Linux may weigh each session as a whole, whatever the priorities in it.
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("19")
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError):  # not on this system
        os.nice(19)


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


def real_program(name: str, cwd: Any, environment: Any) -> str:
    """The real path of what a name would start: from a folder of PATH, or, with a
    slash in it, from the folder it would be started in."""
    if os.sep not in name:
        folders = os.pathsep.join(os.get_exec_path(environment))
        name = shutil.which(name, path=folders) or name
    return os.path.realpath(os.path.join(os.fsdecode(cwd or ""), name))


def watch_sockets(
    tell: Callable[..., None],
    request: Request,
    allow_private: bool,
    proxies: Collection[tuple[str, int]],
    networks: Collection[Network],
) -> None:
    """End the attempt, by an audit hook, when this process dials anything but public
    addresses and the owner's proxies, or starts anything but the helper programs on
    local files; ``networks`` are the home's. Code that took this process over can take
    the hook down, too, but the hook gives the member the reason."""
    programs = set(request.programs.values())
    dials = itertools.count(1)
    tcp_only = _seccomp.available() and not allow_private  # what the broker dials

    def refuse(what: str, message: str, cause: Cause = Cause.INVALID_URL) -> NoReturn:
        # The engine must not try again: the attempt ends here.
        tell(event="failed", error=words(JobFailed(cause, what, message)))
        os.killpg(0, signal.SIGKILL)
        raise SystemExit

    def check_address(address: Any) -> None:
        if not isinstance(address, tuple):
            refuse(f"socket {address!r}", PRIVATE)
        known = allow_private or address[:2] in proxies
        if known or is_public(str(address[0]), networks):
            return
        refuse(f"private address {address[0]}", PRIVATE)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            if arguments[1] is not None:
                check_address(arguments[1])
                if next(dials) > MAX_DIALS:
                    refuse(f"{MAX_DIALS} connections", "", Cause.TOO_LARGE)
        elif event in ("subprocess.Popen", "os.posix_spawn", "os.exec"):
            name, environment = os.fsdecode(arguments[0]), arguments[-1]
            cwd = arguments[2] if event == "subprocess.Popen" else None
            program = real_program(name, cwd, environment)
            if os.sep not in name and program not in programs:  # engines look for some
                raise FileNotFoundError(errno.ENOENT, "not for downloads", name)
            argv = [os.fsdecode(argument) for argument in arguments[1]]
            if program not in programs or any(map(REMOTE_ARGUMENT.search, argv)):
                refuse(f"program {argv}", SENTENCES[Cause.INTERNAL])
        elif event == "socket.__new__" and tcp_only and arguments[2] != -1:
            internet = arguments[1] in (socket.AF_INET, socket.AF_INET6)
            if internet and arguments[2] & 0xF != socket.SOCK_STREAM:
                refuse(f"socket of type {arguments[2]}", PRIVATE)
        elif event in ("os.system", "os.spawn", "pty.spawn"):
            refuse(event, SENTENCES[Cause.INTERNAL])

    if proxies:  # the proxy would dial for us: judge the link's own host, too
        host = urlsplit(request.url).hostname or ""
        with contextlib.suppress(OSError):
            for found in socket.getaddrinfo(host, None):
                check_address(found[4])
    sys.addaudithook(audit)
