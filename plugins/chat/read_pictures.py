"""Reads the text in pictures, so that posts can be found by it.

Off unless ``requirements-ocr.txt`` is installed. Each picture is read in a child with a
limit on its memory, without files and network, since it is a stranger's.
"""

import asyncio
import importlib.util
from collections import Counter, OrderedDict
from pathlib import Path
from weakref import WeakKeyDictionary

from bossbot_plugins._limited_child import ChildError, LimitedChild
from bossbot_plugins._machine import memory_bytes
from loguru import logger
from pydantic import ByteSize, Field

from bossbot import (
    HERE,
    App,
    Finding,
    Job,
    MediaFile,
    Passage,
    PluginConfig,
    hookimpl,
    in_thread,
    off_the_clock,
)

MAX_BYTES = 32 * 2**20  # of a picture
TRIES = 3  # of a picture that ends the child
REMEMBERED = 1000  # jobs and pictures
IDLE_S = 60.0
READER = Path(__file__).with_name("_ocr.py")
NEEDS = ("rapidocr", "onnxruntime")


class Config(PluginConfig):
    """[plugins.read_pictures] in config.toml."""

    side: int = Field(
        736,
        ge=320,
        le=2000,
        description="larger pictures are scaled down to this longer side, in pixels",
    )
    memory_limit: ByteSize = Field(
        ByteSize(600 * 2**20), ge=100 * 2**20, description="memory limit of the reader"
    )
    timeout_s: float = Field(30, gt=0, le=300, description="time limit for one picture")
    max_pictures: int = Field(
        10, ge=0, description="pictures that are read per post; 0: none"
    )


def lacking(config: Config) -> str:
    """Why pictures cannot be read on this machine, "" if they can."""
    if not all(map(importlib.util.find_spec, NEEDS)):
        return "not installed"
    if 0 < memory_bytes() < 1.5 * config.memory_limit:
        return "too little memory"
    return ""


class Reader:
    """The child, and the results of earlier tries."""

    def __init__(self, app: App, config: Config) -> None:
        settings = app.settings
        private = [HERE, Path.home(), settings.data_dir, settings.plugins_dir]
        self.config = config
        self.child = LimitedChild(
            READER,
            {"side": config.side},
            memory_bytes=int(config.memory_limit),
            idle_s=IDLE_S,
            timeout_s=config.timeout_s,
            walled=True,
            private=private,
            deaths=4 * TRIES,  # a few bad pictures must not stop the others
        )
        self._of_jobs: OrderedDict[str, set[str]] = OrderedDict()  # texts already read
        self._deaths = Counter[str]()  # by SHA-256

    async def read(self, job: Job, file: MediaFile) -> str:
        """The text in a picture of a job; "" for none."""
        read = self._of_jobs.setdefault(job.id, set())
        if len(self._of_jobs) > REMEMBERED:
            self._of_jobs.popitem(last=False)
        if len(read | {file.sha256}) > self.config.max_pictures:
            return ""
        read.add(file.sha256)
        if file.size > MAX_BYTES:
            return ""
        data = await in_thread(file.path.read_bytes)
        log = logger.bind(job=job.id)
        while self._deaths[file.sha256] < TRIES:
            try:
                with off_the_clock():
                    answer, _ = await self.child.ask({}, data)
                return str(answer.get("text", ""))
            except ChildError as error:
                log.debug("{} cannot be read: {}", file.name, error)
                if not error.died:
                    return ""
            self._deaths[file.sha256] += 1
            if self._deaths[file.sha256] == TRIES:
                log.warning("{} is skipped: it made the reader fail", file.name)
        if len(self._deaths) > REMEMBERED:
            self._deaths.clear()
        return ""


_readers = WeakKeyDictionary[App, Reader]()


@hookimpl
async def run(app: App, config: Config) -> None:
    if lacking(config):
        return
    reader = _readers[app] = Reader(app, config)
    try:
        await asyncio.Event().wait()
    finally:
        del _readers[app]
        await reader.child.stop()


@hookimpl
async def extract_text(job: Job, file: MediaFile, app: App) -> list[Passage]:
    if not file.mime.startswith("image/") or not (reader := _readers.get(app)):
        return []
    text = await reader.read(job, file)
    return [Passage(text, source="picture")] if text else []


@hookimpl
def check_machine(config: Config) -> list[Finding]:
    if lacking(config) != "too little memory":
        return []
    return [
        Finding(
            "there is too little memory to read what is written in pictures",
            "posts are not found by it",
            "Lower memory_limit in [plugins.read_pictures], or uninstall rapidocr.",
        )
    ]
