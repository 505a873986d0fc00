"""Hostile links: whatever a stranger pastes, nothing inside the host's network is asked.

Each payload of hostile.toml goes through intake and through both real engines in real
children, with the fence up; then, where an engine would fall for it, once more with the
fence down, to see that the payload is a live one.

All servers here are on loopback, which the fence forbids. The engines are therefore
wrapped for the payloads that need a server outside: see NETWORK.
"""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import tomllib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import media
import pytest
import pytest_asyncio
from conftest import ROOT
from sites import Answer, Sites
from sites_canned.reddit import Reddit

import bossbot
from bossbot import (
    Accepted,
    Cause,
    Download,
    Job,
    JobFailed,
    Pipeline,
    Plugins,
    Refused,
    Settings,
    Status,
    check_link,
    inspect_file,
    suffix_of,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Of 6to4 relays, which are no more (RFC 7526): global, and nobody answers there.
OUTSIDE, DEAD = "192.88.99.1", "192.88.99.2"
ENGINES = ("gallery-dl", "yt-dlp")
SECRET = "planted-secret-of-the-internal-service"
PRIVATE = "private address"

# Goes in front of a real engine's file. The fence is up when it runs, and still judges
# each address that is dialled: OUTSIDE is judged as such, then led to a server that the
# fence allows because it is named as the host's proxy; the rest is dialled as it is.
NETWORK = """
import os
import socket
import sys
from pathlib import Path

exec(compile(Path({source!r}).read_text(), {source!r}, "exec"))
_download = download
_names = {names!r}


def download(request, report):
    for name in [n for n in os.environ if n.lower().endswith("_proxy")]:
        del os.environ[name]
    connect, lookup = socket.socket.connect, socket.getaddrinfo

    def led_connect(self, address):
        if address[0] not in ({outside!r}, {dead!r}):
            return connect(self, address)
        sys.audit("socket.connect", self, address)
        if address[0] == {dead!r}:
            raise ConnectionRefusedError("nobody there")
        return connect(self, {server!r})

    def led_lookup(host, *rest, **more):
        found = _names.get(host, [[host]])
        answers = found.pop(0) if len(found) > 1 else found[0]
        return [one for a in answers for one in lookup(a, *rest, **more)]

    socket.socket.connect, socket.getaddrinfo = led_connect, led_lookup
    _download(request, report)
"""

# The least that a job needs to travel without Discord.
COURIER = """
from bossbot import hookimpl


class Courier:
    async def freeze(self, job, files, facts):
        pass

    async def post(self, job):
        pass


@hookimpl
def register_courier(bot):
    return Courier()
"""


def table() -> dict[str, Any]:
    return tomllib.loads((ROOT / "tests" / "hostile.toml").read_text("utf-8"))


TABLE = table()
PAGES: dict[str, Any] = TABLE["pages"]
LIVE = [(page, engine) for page in PAGES for engine in PAGES[page].get("live", ())]
REBINDING = ["rebinds.test", "inside.test", "both.test", "mapped.test"]


@dataclass
class Sixth:
    """The internal service once more, on ::1: it takes connections and counts them."""

    port: int
    hits: int = 0


class Net:
    """A server outside, a service inside, and the bot between them."""

    def __init__(self, outside: Sites, inside: Sites, folder: Path) -> None:
        self.outside, self.inside, self.folder = outside, inside, folder
        self.port = int(inside.address.rpartition(":")[2])
        self.pipelines: list[Pipeline] = []
        self.numbers = count(1)

    def fill(self, text: str) -> str:
        return text.format(
            port=self.port,
            internal=f"http://127.0.0.1:{self.port}",
            public=f"http://{OUTSIDE}",
            address=OUTSIDE,
            dead=DEAD,
            host=socket.gethostname(),
            long="a" * 600,
        )

    def pipeline(self, name: str, *, wrapped: bool, fenced: bool = True) -> Pipeline:
        """A bot with the real platforms and engines, the latter perhaps wrapped."""
        plugins = self.folder / f"plugins-{wrapped}"
        if not plugins.exists():
            plugins.mkdir()
            for path in (ROOT / "plugins").glob("[!_]*.py"):
                if path.stem in ("discord_courier", "fit"):
                    continue
                if wrapped and path.stem in ("gallery_dl", "yt_dlp"):
                    (plugins / path.name).write_text(self.wrapper(path))
                else:
                    shutil.copy(path, plugins)
            (plugins / "courier.py").write_text(COURIER)
        settings = Settings(
            data_dir=self.folder / name,
            plugins_dir=plugins,
            allow_private_addresses=not fenced,
            min_free_space=0,
            download_timeout_s=20,
        )
        loaded = Plugins(settings)
        loaded.load()
        for stem in ("gallery_dl", "yt_dlp", "courier"):
            assert not loaded.all[stem].off
        pipeline = Pipeline(settings, loaded)
        pipeline.storage.prepare()
        self.pipelines.append(pipeline)
        return pipeline

    def wrapper(self, path: Path) -> str:
        host, _, port = self.outside.address.partition(":")
        names = {
            name: [[self.fill(address) for address in answer] for answer in answers]
            for name, answers in TABLE["names"].items()
        }
        return NETWORK.format(
            source=str(path),
            names=names,
            outside=OUTSIDE,
            dead=DEAD,
            server=(host, int(port)),
        )

    def job(self, url: str, engine: str) -> Job:
        return Job(
            id=f"{next(self.numbers):010x}",
            url=url,
            platform="",
            engine=engine,
            guild_id=1,
            channel_id=2,
            user_id=3,
            request_key="",
            created_at=bossbot.now(),
        )

    async def fetch(
        self, pipeline: Pipeline, url: str, engine: str
    ) -> Download | JobFailed:
        """What one attempt brought, or why it failed; its folder is gone again."""
        job = self.job(url, engine)
        try:
            async with asyncio.timeout(30):
                download = await pipeline.fetch(job)
                self.search(pipeline)
                return download
        except JobFailed as error:
            self.search(pipeline)
            return error
        finally:
            pipeline.storage.forget_attempt(job)

    def search(self, pipeline: Pipeline) -> None:
        """Nothing of the internal service or of /etc/passwd is in the data folder,
        and no leftovers."""
        for path in pipeline.settings.data_dir.rglob("*"):
            if path.is_file() and path.suffix != ".log":
                content = path.read_bytes()
                assert SECRET.encode() not in content, path
                assert b"root:" not in content, path
                assert path.name != "pwned"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def net(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Net]:
    names = {name: os.environ.pop(name, None) for name in PROXIES}
    with Sites() as outside, Sites() as inside:
        inside.serve("/*", Answer(SECRET * 100, headers={"Content-Type": "video/mp4"}))
        net = Net(outside, inside, tmp_path_factory.mktemp("net"))
        for name, page in PAGES.items():
            headers = {k: net.fill(v) for k, v in page.get("headers", {}).items()}
            body = net.fill(page.get("body", "")).encode()
            status = page.get("status", 200)
            outside.serve(f"{OUTSIDE}/{name}.mp4", body, headers=headers, status=status)
        outside.serve("*.test/*", Answer("", status=302, headers={"Location": "/x.mp4"}))
        yield net
        for pipeline in net.pipelines:
            await pipeline.stop()
    os.environ.update({k: v for k, v in names.items() if v is not None})


PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
PROXIES += tuple(name.upper() for name in PROXIES)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bare(net: Net) -> Pipeline:
    """The fenced bot with the engines as they are."""
    pipeline = net.pipeline("bare", wrapped=False)
    pipeline.children.start()
    return pipeline


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def led(net: Net) -> Pipeline:
    """The fenced bot whose engines find a server at OUTSIDE."""
    pipeline = net.pipeline("led", wrapped=True)
    os.environ["HTTP_PROXY"] = f"http://{net.outside.address}"
    try:
        pipeline.children.start()
    finally:
        del os.environ["HTTP_PROXY"]
    return pipeline


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_(net: Net, led: Pipeline) -> Pipeline:
    """The same with the fence down."""
    pipeline = net.pipeline("open", wrapped=True, fenced=False)
    pipeline.children = led.children
    return pipeline


@pytest.fixture(autouse=True)
def _nothing_inside_is_asked(net: Net) -> Iterator[None]:
    net.inside.requests.clear()
    net.outside.requests.clear()
    yield


# Intake


@pytest.mark.parametrize("payload", TABLE["refused"])
async def test_hostile_words_are_refused(net: Net, bare: Pipeline, payload: str) -> None:
    with pytest.raises(Refused) as caught:
        await bare.route(check_link(net.fill(payload)))
    assert TABLE["refused"][payload] in str(caught.value)
