"""Starts scripts as `python script ...` does, but from a process that has imported the
large libraries already, which takes most of a start, and has compiled the patterns of
the bot. Their own code is read as always.

    process = start(["bot.py", "run"], env, cwd, stdout=file)
    process.wait()

It forks, so it needs Linux; elsewhere, and for what Python reads from the environment
at its start, the script gets an interpreter of its own.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import types
from collections.abc import Iterable, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import IO, Any

# What a start imports, and what starts no threads.
LIBRARIES = ("aiohttp", "aiosqlite", "argparse", "asyncio", "discord.ext.commands")
LIBRARIES += ("loguru", "pluggy", "pydantic", "pydantic_settings", "sqlite3")
LIBRARIES += ("rich.progress", "rich.table")
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
ROOT = Path(__file__).resolve().parents[2]


class WarmProcess:
    """One that was started: what is needed of ``subprocess.Popen``."""

    def __init__(self, pid: int, end: int) -> None:
        self.pid = pid
        self.returncode: int | None = None  # below 0 for a signal
        self._end = end  # a pipe to read it from

    def poll(self, within_s: float | None = 0) -> int | None:
        if self.returncode is None and select.select([self._end], [], [], within_s)[0]:
            self.returncode = int(os.read(self._end, 20) or -signal.SIGKILL)
            os.close(self._end)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        code = self.poll(timeout)
        assert code is not None, f"it runs for longer than {timeout} s"
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def start(
    argv: Iterable[str | Path],
    env: Mapping[str, str],
    cwd: str | Path,
    **streams: int | IO[Any],
) -> "WarmProcess | subprocess.Popen[bytes]":
    """Starts a script. ``stdin``, ``stdout`` and ``stderr`` are files or their numbers;
    without one, there is nothing to read, and nobody reads."""
    words, env = [str(word) for word in argv], dict(env)
    own = any(n.startswith(("PYTHON", "LC_", "LANG")) for n in env if n != NO_BYTECODE)
    with open(os.devnull, "r+b") as nothing:
        files = [streams.get(name, nothing) for name in ("stdin", "stdout", "stderr")]
        if own or not hasattr(os, "pidfd_open"):
            given = dict(zip(("stdin", "stdout", "stderr"), files, strict=True))
            return subprocess.Popen([sys.executable, *words], env=env, cwd=cwd, **given)
        numbers = [one if isinstance(one, int) else one.fileno() for one in files]
        request = json.dumps([words, env, str(cwd)]).encode()
        end, told = os.pipe()
        with _turn:
            wire = _warm()
            socket.send_fds(wire, [request], [*numbers, told])
            pid = int(wire.recv(20))
        os.close(told)
        return WarmProcess(pid, end)


_turn = threading.Lock()
_wires: list[socket.socket] = []


def _warm() -> socket.socket:
    """The wire to the process that forks."""
    if not _wires:
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs:
            command, none = [sys.executable, __file__], subprocess.DEVNULL
            process = subprocess.Popen(command, stdin=theirs, stdout=none)
        _wires.append(ours)
        atexit.register(process.wait)
        atexit.register(ours.close)  # the first of the two
    return _wires[0]


# ── In the process that forks ──────────────────────────────────────────────────────


def serve(wire: socket.socket) -> tuple[list[Any], list[int]]:
    """Forks for each request; returns it in the fork, with its files."""
    running: dict[int, tuple[int, int]] = {}  # by what tells of the end
    with selectors.DefaultSelector() as events:
        events.register(wire, selectors.EVENT_READ)
        while True:
            for key, _ in events.select():
                if key.fd in running:
                    events.unregister(key.fd)
                    pid, told = running.pop(key.fd)
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    os.write(told, b"%d" % code)
                    os.close(told)
                    os.close(key.fd)
                    continue
                request, files, _, _ = socket.recv_fds(wire, 2**18, 4)
                if not request:
                    sys.exit()
                if b"REDIS_QUEUE" in request:  # few bots have one, and those come often
                    with contextlib.suppress(ImportError):
                        importlib.import_module("redis.asyncio")
                if not (pid := os.fork()):
                    return json.loads(request), files
                *others, told = files
                for number in others:
                    os.close(number)
                tells = os.pidfd_open(pid)
                running[tells] = pid, told
                events.register(tells, selectors.EVENT_READ)
                wire.send(b"%d" % pid)


def become(words: list[str], env: dict[str, str], cwd: str, files: list[int]) -> str:
    """Turns a fork into what a script finds at its start; returns the script."""
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
    os.closerange(3, 1024)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.dont_write_bytecode = NO_BYTECODE in env
    sys.argv[:] = words
    script = os.path.abspath(words[0])
    sys.path[0] = str(Path(script).resolve().parent)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        how = {"errors": "backslashreplace"} if number == 2 else {}
        stream: Any = os.fdopen(number, "w" if number else "r", closefd=False, **how)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    return script


def warm_up() -> None:
    """Do once what each start of a bot would do again."""
    for library in LIBRARIES:
        importlib.import_module(library)
    # Loguru asks for all of them whenever a log is opened.
    sysconfig.get_path = functools.cache(sysconfig.get_path)
    for scheme in sysconfig.get_scheme_names():
        for name in sysconfig.get_path_names():
            sysconfig.get_path(name, scheme)
    sys.path.insert(0, str(ROOT))
    core = importlib.import_module("bossbot")
    core.open_plugins(core.plugin_folders(ROOT / "tests" / "none"))
    for path in ROOT.glob("plugins/*/*.py"):
        importlib.import_module(f"{core.PLUGIN_PACKAGE}.{path.stem}")
    # A bot imports its own; `re` and `typing` remember what they have made.
    for name in [name for name in sys.modules if name.startswith("bossbot")]:
        del sys.modules[name]
    del sys.path[0]
    runpy.run_path = run_path  # type: ignore[assignment]
    gc.collect()
    gc.freeze()


def run_path(script: str, run_name: str) -> None:
    """Run a script as ``runpy`` does, but from its bytecode, if that is there."""
    code: Any = SourceFileLoader(run_name, script).get_code(run_name)
    module = sys.modules[run_name] = types.ModuleType(run_name)
    module.__file__ = script
    exec(code, vars(module))  # noqa: S102


def run(script: str) -> None:
    """Run it to its end, without the end of the large libraries, which would copy all
    of their memory first."""
    warm, code = {*sys.modules} - {"__main__"}, None
    try:
        run_path(script, "__main__")
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):  # which Python writes
            raise
    threading._shutdown()  # type: ignore[attr-defined]  # as Python does, in its order
    atexit._run_exitfuncs()
    for name in sys.modules.keys() - warm:
        del sys.modules[name]
    gc.collect()  # what is not closed says so
    for stream in (sys.stdout, sys.stderr):
        if stream and not stream.closed:
            stream.flush()
    os._exit(int(code or 0))


if __name__ == "__main__":
    warm_up()
    with socket.socket(fileno=os.dup(0)) as wire:
        request, files = serve(wire)
    run(become(*request, files))
