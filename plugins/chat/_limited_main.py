"""The child's side of ``_limited_child.py``: limits itself, then answers requests.

It is run as a program, in a Python without any part of the bot.
"""

import contextlib
import importlib
import importlib.util
import json
import os
import resource
import select
import signal
import struct
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

LENGTHS = struct.Struct(">II")  # as in _limited_child.py
PACKAGE = "bossbot_plugins"


def main() -> None:
    """Answer what comes on standard input until it closes."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # libraries' output is not an answer
    setup, _ = receive(incoming)
    os.nice(10)
    limit = setup["memory_bytes"]
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    module = load(Path(setup["module"]))
    if setup["walls"]:
        raise_walls(setup["walls"], setup["private"])
    answer = module.start(setup["options"])
    die_with(incoming)  # a thread, which Landlock would not reach later
    send(outgoing, {}, b"")
    while True:
        request, body = receive(incoming)
        try:
            said, data = answer(request, body)
        except Exception as error:  # the boundary of a request
            said, data = {"error": f"{type(error).__name__}: {error}"[:500]}, b""
        send(outgoing, said, data)


def die_with(incoming: BinaryIO) -> None:
    """End this process, and what it started, when the other side goes away."""

    def watch() -> None:
        poll = select.poll()
        poll.register(incoming, 0)  # reports the other side's end in any case
        poll.poll()
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def load(path: Path) -> Any:
    """A plugin's library, imported without the plugin and without the core."""
    names = [PACKAGE]
    if (path.parent / "__init__.py").exists():  # of a plugin that is a folder
        names.append(f"{PACKAGE}.{path.parent.name}")
    for name in names:
        package = sys.modules.setdefault(name, ModuleType(name))
        package.__path__ = [str(path.parent)]
    return importlib.import_module(f"{names[-1]}.{path.stem}")


def raise_walls(shelf: str, private: list[str]) -> None:
    """Keep no file but Python's, no network, and no way to other processes."""
    package = sys.modules.setdefault(PACKAGE, ModuleType(PACKAGE))
    package.__path__ = [shelf]
    walls = importlib.import_module(f"{PACKAGE}._walls")
    walls.hide()
    walls.limit_calls((os.getppid(),))
    walls.limit_files(walls.readable(walls.told(), (), private), [])


def receive(incoming: BinaryIO) -> tuple[dict[str, Any], bytes]:
    """The next frame; ends the process when there is none."""
    header = incoming.read(LENGTHS.size)
    if len(header) < LENGTHS.size:
        os._exit(0)
    size, more = LENGTHS.unpack(header)
    return json.loads(incoming.read(size)), incoming.read(more)


def send(outgoing: BinaryIO, answer: dict[str, Any], body: bytes) -> None:
    """Write a frame."""
    text = json.dumps(answer).encode()
    outgoing.write(LENGTHS.pack(len(text), len(body)) + text + body)
    outgoing.flush()


if __name__ == "__main__":
    main()
