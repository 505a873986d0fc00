"""The app on canned sites: real engines in real children, see `sites.py`.

    got = await web.fetch(Twitter(web.sites).tweet("1001", photo))
    assert got.contents == [photo.read_bytes()]

One warm fork server is shared by all tests, which therefore run on one loop; each fetch
has folders of its own.
"""

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import PARTS, be_quick, our_plugins, share_runner, spread
from loguru import logger
from sites import Sites

from bossbot import (
    TERMINAL_STATUSES,
    App,
    Cause,
    Job,
    JobFailed,
    Platform,
    Progress,
    Settings,
    prepare_data,
)

PLATFORMS = ("twitter", "reddit", "instagram", "youtube", "tiktok")
NEEDED = (*PARTS, *PLATFORMS, "gallery_dl", "yt_dlp", "sound_only", "subtitles")
NOWHERE = Path(__file__).parent / "plugins" / "nowhere.py"


@dataclass
class Got:
    """What came of a link."""

    contents: list[bytes] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    lost: list[JobFailed] = field(default_factory=list)  # single items
    error: JobFailed | None = None

    @property
    def cause(self) -> Cause | None:
        return self.error.cause if self.error else None

    @property
    def text(self) -> str:
        return str(self.facts.get("text", ""))


Apps = dict[str, App]


class Web:
    """The sites, and apps that see nothing else."""

    def __init__(self, sites: Sites, folder: Path) -> None:
        self.sites = sites
        self.folder = folder
        self.plugins = folder / "plugins"  # the owner's
        self.plugins.mkdir()
        (self.plugins / NOWHERE.name).symlink_to(NOWHERE)
        self.ours = our_plugins(*NEEDED)
        self.runner: Any = None  # a ChildRunner, once it is started
        self._unused: dict[str, App] = {}  # those of fetches

    async def start(self) -> None:
        """Start the fork server in the environment of this moment."""
        runner: Any = self.app().runner
        await runner.start()
        self.runner = runner

    def app(self, platform: Platform | None = None, **values: Any) -> App:
        """An app with data of its own; keywords are settings, and `twitter={...}`
        those of that plugin. `platform` is one more, or in the place of another."""
        named = {name: values.pop(name) for name in PLATFORMS if name in values}
        defaults = {
            "data_dir": self.folder / secrets.token_hex(4),
            "plugins_dir": self.plugins,
            "plugins": named,
        }
        app = App(Settings(**spread({**defaults, **values})), self.ours)
        app.plugins.load()
        off = {name: one.off for name, one in app.plugins.all.items() if one.off}
        assert not off
        if platform:
            for plugin in app.plugins.all.values():
                plugin.platforms = [
                    p for p in plugin.platforms if p.name != platform.name
                ]
            app.plugins.all["nowhere"].platforms = [platform]
            app.plugins.changed()
        prepare_data(app.settings.data_dir)
        if self.runner:
            share_runner(app, self.runner.app)
        return be_quick(app)

    async def fetch(
        self,
        link: str,
        *,
        engine: str = "",
        platform: Platform | None = None,
        job: dict[str, Any] | None = None,
        **values: Any,
    ) -> Got:
        """One attempt at a link, with more fields of the job; keywords as for `app`."""
        app = self._unused_app(platform, **values)
        url, name, routed = app.router.route(link)
        asked = Job(
            url=url,
            platform=name,
            engine=engine or routed,
            **(job or {}),
        )
        try:
            async with asyncio.timeout(60):
                fetched = await app.worker.fetch(asked, nobody_watches)
        except JobFailed as error:
            return Got(error=error)
        else:
            contents = [file.path.read_bytes() for file in fetched.files]
            names = [file.name for file in fetched.files]
            return Got(contents, names, fetched.facts, fetched.failures)
        finally:
            shutil.rmtree(app.settings.data_dir)
            prepare_data(app.settings.data_dir)

    def _unused_app(self, platform: Platform | None, **values: Any) -> App:
        """An app as ``app`` makes it, of an earlier fetch if that asked for the same."""
        own = sorted(self.plugins.iterdir())
        wanted = repr((platform, sorted(values.items()), own))
        if wanted not in self._unused:
            self._unused[wanted] = self.app(platform, **values)
        return self._unused[wanted]

    @asynccontextmanager
    async def running(
        self, platform: Platform | None = None, **values: Any
    ) -> AsyncIterator[App]:
        """An app at work on its queue; arguments as for `app`."""
        app = self.app(platform, **values)
        await app.start(gateway=False)
        try:
            yield app
        finally:
            await app.stop()

    async def finish(self, link: str, app: App, **options: Any) -> Job:
        """The job of a link once it has ended, retries and all; keywords are what is
        asked for."""
        async with asyncio.timeout(60):
            accepted = await app.intake(
                Job(
                    url=link,
                    guild_id=1,
                    channel_id=2,
                    user_id=3,
                    request_key=secrets.token_hex(),
                    options=options,
                )
            )
            assert accepted and accepted.job
            async for _ in app.queue.changes():
                job = await app.queue.get(accepted.job.id)
                if job and job.status in TERMINAL_STATUSES:
                    return job
        raise AssertionError("changes() never ends")

    def kept(self, job: Job, app: App) -> list[bytes]:
        """The files of a job that ended well, in order."""
        folder = app.settings.data_dir / job.folder / "content"
        return [path.read_bytes() for path in sorted(folder.iterdir())]

    def hosts_with(self, text: str) -> set[str]:
        """The hosts that were shown a cookie, or anything else with this text."""
        return {
            request.host
            for request in self.sites.requests
            if text in f"{request.url} {request.headers} {request.body!r}"
        }


def nobody_watches(progress: Progress) -> None:
    """What a fetch tells on its way goes nowhere."""


@contextmanager
def environment(**variables: str | None) -> Iterator[None]:
    """Variables of this process, None for none, while a fork server is started."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            if value is None:
                patch.delenv(name, raising=False)
            else:
                patch.setenv(name, value)
        yield


@contextmanager
def listening(words: str) -> Iterator[asyncio.Event]:
    """An event that is set when the log says these words."""
    loop, heard = asyncio.get_running_loop(), asyncio.Event()

    def hear(line: Any) -> None:
        if words in line:
            loop.call_soon_threadsafe(heard.set)

    sink = logger.add(hear, level="DEBUG", format="{message}")
    try:
        yield heard
    finally:
        logger.remove(sink)
