"""Runs an engine as the bot does: warm once, then a fresh fork for each download.

The engines keep global state and print, so each download has a process of its own. A
test gets what the engine reported. There is no sandbox: loopback can be reached.

    with Lab("gallery_dl") as lab:
        got = lab.fetch(sites.url("/a.jpg"), tmp_path, max_items=3)
        assert got.cause is None and [f.name for f in got.files] == [...]
"""

import contextlib
import dataclasses
import gc
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bossbot_plugins._programs import find_programs

import bossbot
from bossbot import Cause, Engine, JobFailed, Progress, Request

ROOT = Path(bossbot.__file__).parent
PREFIX = "job_1_temp"
TIMEOUT_S = 40


@dataclass
class Got:
    """What an engine reported, and how it ended."""

    facts: dict[str, Any]
    files: list[Path]
    failed_items: list[Cause]
    progress: list[Progress]
    cause: Cause | None = None
    detail: str = ""
    message: str = ""
    retry_after_s: float | None = None
    log: str = ""
    left: list[str] = field(default_factory=list)  # all names in the folder

    @property
    def names(self) -> list[str]:
        return [file.name for file in self.files]

    @property
    def contents(self) -> list[bytes]:
        return [file.read_bytes() for file in self.files]


class Lab:
    """A warm server for one engine plugin; a context manager."""

    def __init__(self, stem: str) -> None:
        self.stem = stem

    def __enter__(self) -> Self:
        environment = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG")}
        path = [str(ROOT), str(Path(__file__).parent)]
        self._server = subprocess.Popen(
            [sys.executable, __file__, self.stem],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environment, "PYTHONPATH": os.pathsep.join(path)},
            text=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server.stdin and self._server.stdout
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()

    def fetch(
        self,
        url: str,
        where: Path,
        *,
        environment: dict[str, str] | None = None,
        memory_bytes: int = 0,
        setup: str = "",
        **request: Any,
    ) -> Got:
        """Download ``url`` into a folder below ``where``.

        Args:
            environment: variables for the child, such as ``Sites.environment``.
            memory_bytes: how much more memory the child may take; 0 for no limit.
            setup: Python that the child runs first.
            request: fields of ``Request``; ``programs`` are this machine's by default.
        """
        number = len(list(where.glob("fetch-*")))
        home = where / f"fetch-{number}"
        for name in ("files", "cache", "home"):
            (home / name).mkdir(parents=True)
        request.setdefault("programs", find_programs())
        spec = {
            "request": {"url": url, "prefix": PREFIX, **request},
            "home": str(home),
            "environment": environment or {},
            "memory_bytes": memory_bytes,
            "setup": setup,
        }
        assert self._server.stdin and self._server.stdout
        self._server.stdin.write(json.dumps(spec, default=str) + "\n")
        self._server.stdin.flush()
        answer = json.loads(self._server.stdout.readline())
        cause = answer.pop("cause")
        return Got(
            files=[Path(file) for file in answer.pop("files")],
            failed_items=[Cause(one) for one in answer.pop("failed_items")],
            progress=[Progress(**one) for one in answer.pop("progress")],
            cause=Cause(cause) if cause else None,
            log=(home / "log").read_text("utf-8", "replace"),
            left=sorted(os.listdir(home / "files")),
            **answer,
        )

    def run(self, code: str, where: Path) -> str:
        """What Python code prints in a fork of the server, which downloads nothing."""
        end = "import os, sys; sys.stdout.flush(); os._exit(0)"
        return self.fetch("", where, setup=f"{code}\n{end}").log

    def supported(self, urls: Iterable[str], where: Path) -> list[str]:
        """The links that the engine supports."""
        code = f"""if True:
            import json
            from bossbot_plugins.{self.stem} import supports
            print(json.dumps([url for url in {[*urls]} if supports(url)]))"""
        found: list[str] = json.loads(self.run(code, where))
        return found


Labs = Callable[[str], Lab]  # by the engine plugin's stem


class _Report:
    """Collects what an engine reports, and stops a job of too many bytes."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.all: dict[str, Any] = {"facts": {}, "files": [], "failed_items": []}
        self.all["progress"] = []
        self.bytes = 0

    def info(self, **facts: Any) -> None:
        self.all["facts"] |= facts

    def progress(self, progress: Progress) -> None:
        limit = self.request.max_job_bytes
        if limit and self.bytes + progress.done_bytes > limit:
            raise JobFailed(Cause.TOO_LARGE, "over max_job_size")
        self.all["progress"].append(dataclasses.asdict(progress))

    def file(self, path: Path) -> None:
        self.bytes += path.stat().st_size
        self.all["files"].append(str(path))

    def item_failed(self, failure: JobFailed) -> None:
        self.all["failed_items"].append(failure.cause)


@contextlib.contextmanager
def resetting_server() -> Iterator[str]:
    """The address of a server that resets each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reset_all() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connection.recv(1000)
                    at_once = struct.pack("ii", 1, 0)  # linger for no time at all
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
                    connection.close()

        threading.Thread(target=reset_all, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def _serve(stem: str) -> None:
    bossbot.open_plugins(bossbot.plugin_folders(ROOT / "plugins"))
    [engine] = bossbot.import_plugin(stem).register_engines()
    engine.warm()
    if engine.generic:
        _read_a_page()
    gc.collect()
    gc.freeze()  # the forks share these pages
    for line in sys.stdin:
        reader, writer = os.pipe()
        if not os.fork():
            with os.fdopen(writer, "w") as answer:
                try:
                    json.dump(_fetch(engine, json.loads(line)), answer)
                    answer.flush()
                finally:
                    os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as answered:
            text = answered.read() or '{"cause": "timed_out", "detail": "no answer"}'
        os.wait()
        empty: dict[str, Any] = {
            "facts": {},
            "files": [],
            "failed_items": [],
            "progress": [],
        }
        print(json.dumps({**empty, **json.loads(text)}), flush=True)


def _read_a_page() -> None:
    """Look for videos in a page, for which yt-dlp imports all its extractors: half a
    second of the processor, which each fetch of a page would take."""
    from yt_dlp import YoutubeDL
    from yt_dlp.extractor import gen_extractor_classes

    with YoutubeDL({"quiet": True}, auto_init=False) as site:
        site._ies = {one.ie_key(): one for one in gen_extractor_classes()}
        generic: Any = site.get_info_extractor("Generic")
        assert not list(generic._extract_embeds("https://a.example/", "<p>"))


def _fetch(engine: Engine, spec: dict[str, Any]) -> dict[str, Any]:
    signal.alarm(TIMEOUT_S)
    home = Path(spec["home"])
    log = os.open(home / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ |= {"HOME": str(home / "home"), **spec["environment"]}
    os.chdir(home / "home")
    request = Request(
        **spec["request"], folder=home / "files", cache_dir=home / "cache"
    )
    if request.cookies_file:
        request.cookies_file = Path(request.cookies_file)
    request.failures = [(words, Cause(cause)) for words, cause in request.failures]
    report = _Report(request)
    if spec["memory_bytes"]:
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        most = pages * resource.getpagesize() + spec["memory_bytes"]
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    exec(spec["setup"], {})  # noqa: S102
    ended: dict[str, Any] = {"cause": None}
    try:
        engine.download(request, report)
    except JobFailed as error:
        ended = {
            "cause": error.cause,
            "detail": error.detail,
            "message": str(error),
            "retry_after_s": error.retry_after_s,
        }
    except BaseException as error:
        traceback.print_exc()
        ended = {"cause": Cause.INTERNAL, "detail": f"{type(error).__name__}: {error}"}
    sys.stderr.flush()
    sys.stdout.flush()
    return {**report.all, **ended}


if __name__ == "__main__":
    _serve(sys.argv[1])
