"""Nothing fills up: what has no end is stopped at its cap, with the right words.

The bot's own memory is measured around every test; the servers are in this process,
too, and count.
"""

import asyncio
import functools
import gzip
import shutil
import struct
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import media
import pytest
import pytest_asyncio
from bossbot_plugins._bench import JobBench
from conftest import PARTS, make_job, our_plugins, share_runner, spread
from platform_support import Web
from sites import Answer, Sites

import bossbot
from bossbot import SENTENCES, App, Cause, Fetched, JobFailed, Settings

pytest_plugins = ("platform_fixtures",)
pytestmark = pytest.mark.asyncio(loop_scope="session")

PLUGINS = Path(__file__).parent / "plugins"
MIB = 2**20
OVERSHOOT = 16 * MIB  # of one file, on disk
BOT_GROWTH = 50 * MIB
ENGINES = ("gallery-dl", "yt-dlp")
BOTH = pytest.mark.parametrize("engine", ENGINES)
PIECE = b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(64 * 1024 - 11)  # a picture, at first
NOT_LESS = 512 * MIB  # a child that holds so much was not stopped


BRINGS = (*PARTS, "gallery_dl", "yt_dlp")


class Bot:
    """A bot with real engines, whose settings each test chooses."""

    def __init__(self, folder: Path, parts: Iterable[str] = BRINGS, *own: str) -> None:
        self.folder = folder
        self.plugins = folder / "own"  # the owner's
        self.plugins.mkdir(parents=True)
        for name in own:
            shutil.copy(PLUGINS / f"{name}.py", self.plugins)
        self.ours = our_plugins(*parts)
        self.runner: Any = None  # a ChildRunner, once it is started
        self.app: App
        self.peak_bytes = 0  # of the attempt's folder, as seen in the last fetch
        self.set()

    async def start(self) -> None:
        """Start the fork server, which every app of this bot shares."""
        self.runner = self.app.runner
        await self.runner.start()

    def set(self, **values: Any) -> None:
        """Go on with these settings."""
        base = {
            "data_dir": self.folder / "data",
            "plugins_dir": self.plugins,
            "child_runner__allow_private_addresses": True,
            "local_worker__download_timeout_s": 30,
        }
        self.app = App(Settings(**spread({**base, **values})), self.ours)
        self.app.plugins.load()
        bossbot.prepare_data(self.app.settings.data_dir)
        if self.runner:
            share_runner(self.app, self.runner.app)

    async def fetch(self, url: str, engine: str) -> Fetched | JobFailed:
        """What one attempt brought, or why it failed."""
        job = make_job(url=url, engine=engine)
        folder = self.app.settings.data_dir / "temp" / job.id
        self.peak_bytes = 0

        async def measure() -> None:
            while True:
                self.peak_bytes = max(self.peak_bytes, size_of(folder))
                await asyncio.sleep(0.02)

        measuring = asyncio.create_task(measure())
        try:
            async with asyncio.timeout(60):
                return await self.app.worker.fetch(job, lambda progress: None)
        except JobFailed as error:
            return error
        finally:
            measuring.cancel()
            self.peak_bytes = max(self.peak_bytes, size_of(folder))
            await self.app.storage.forget_attempt(job)


def size_of(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        if path.is_file() and "home" not in path.parts:
            total += path.stat().st_size if path.exists() else 0
    return total


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory, shared_web: Web) -> Bot:
    bot = Bot(tmp_path_factory.mktemp("bot"))
    bot.runner = shared_web.runner
    return bot


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def greedy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bot]:
    """A bot with one engine only, of plugins/greedy.py."""
    folder = tmp_path_factory.mktemp("greedy")
    bot = Bot(folder, PARTS, "greedy")
    await bot.start()
    yield bot
    await bot.runner.stop()


@pytest.fixture(scope="module")
def site() -> Iterator[Sites]:
    with Sites() as site:
        yield site


@pytest.fixture(autouse=True)
def _bot_stays_small() -> Iterator[None]:
    """Checks how much this process has grown, at its largest."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not status.exists():
        yield
        return

    def peak_bytes() -> int:
        lines = status.read_text().splitlines()
        return next(int(x.split()[1]) for x in lines if x.startswith("VmHWM")) * 1024

    clear.write_text("5")  # proc(5): resets the peak
    before = peak_bytes()
    yield
    assert peak_bytes() - before < BOT_GROWTH


def assert_failed(got: Fetched | JobFailed, cause: Cause) -> None:
    assert isinstance(got, JobFailed), got
    assert got.cause is cause, f"{got.cause}: {got.detail}"
    assert str(got) == SENTENCES[cause]


# Lengths


@BOTH
async def test_stream_without_length_ends_at_the_cap_of_a_file(
    bot: Bot, site: Sites, engine: str
) -> None:
    bot.set(max_download_size=3 * MIB)
    url = site.serve("/endless.jpg", PIECE, endless=True)
    assert_failed(await bot.fetch(url, engine), Cause.TOO_LARGE)
    assert bot.peak_bytes <= 3 * MIB + OVERSHOOT


@BOTH
async def test_stream_without_length_ends_at_the_cap_of_the_job(
    bot: Bot, site: Sites, engine: str
) -> None:
    bot.set(max_download_size=0, max_job_size=3 * MIB)
    url = site.serve("/endless.jpg", PIECE, endless=True)
    assert_failed(await bot.fetch(url, engine), Cause.TOO_LARGE)
    assert bot.peak_bytes <= 3 * MIB + OVERSHOOT


@BOTH
async def test_too_large_a_length_is_not_even_begun(
    bot: Bot, site: Sites, engine: str
) -> None:
    bot.set(max_download_size=3 * MIB)
    url = site.serve("/large.jpg", PIECE, endless=True, length_bytes=4 * MIB)
    assert_failed(await bot.fetch(url, engine), Cause.TOO_LARGE)
    assert bot.peak_bytes <= MIB


@BOTH
async def test_less_than_announced_is_a_network_failure(
    bot: Bot, site: Sites, engine: str
) -> None:
    bot.set()
    url = site.serve("/short.jpg", PIECE, length_bytes=len(PIECE) * 2)
    assert_failed(await bot.fetch(url, engine), Cause.NETWORK)


@BOTH
async def test_more_than_announced_is_cut(bot: Bot, site: Sites, engine: str) -> None:
    bot.set(max_download_size=3 * MIB)
    url = site.serve("/long.jpg", PIECE, endless=True, length_bytes=100_000)
    got = await bot.fetch(url, engine)
    assert isinstance(got, Fetched)
    assert [file.size for file in got.files] == [100_000]


@BOTH
async def test_length_that_is_no_number_does_no_harm(
    bot: Bot, site: Sites, engine: str
) -> None:
    bot.set(max_download_size=3 * MIB)
    for length in ("-1", "99999999999999999999999", "1e9", "0x10"):
        lie = {"Content-Length": length}
        url = site.serve("/odd.jpg", PIECE, endless=True, headers=lie)
        assert isinstance(await bot.fetch(url, engine), JobFailed)
        assert bot.peak_bytes <= 3 * MIB + OVERSHOOT


# What grows


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """1 MiB of gzip that is 1 GiB of zeros."""
    return gzip.compress(bytes(16 * MIB)) * 64


@BOTH
@pytest.mark.parametrize("kind", ["image/jpeg", "text/html"])
async def test_gzip_that_expands_is_stopped(
    bot: Bot, site: Sites, bomb: bytes, kind: str, engine: str
) -> None:
    bot.set(max_download_size=20 * MIB)
    assert len(bomb) < 1.2 * MIB
    packed = {"Content-Encoding": "gzip", "Content-Type": kind}
    url = site.serve("/bomb.jpg", bomb, headers=packed)
    got = await bot.fetch(url, engine)
    no_page = kind == "text/html" and engine == "gallery-dl"
    assert_failed(got, Cause.NO_MEDIA if no_page else Cause.TOO_LARGE)
    assert bot.peak_bytes <= 20 * MIB + OVERSHOOT


@functools.cache
def huge_png() -> bytes:
    """A picture of 30,000 x 30,000 points of one bit: 100 KB that are 112 MB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    row = bytes(1 + 30_000 // 8)
    packer = zlib.compressobj(9)
    packer.compress(row * 300)
    begun = packer.flush(zlib.Z_FULL_FLUSH)  # what follows stands for itself
    again = packer.compress(row * 300) + packer.flush(zlib.Z_FULL_FLUSH)
    check = struct.pack(">HH", len(row) * 30_000 % 65521, 1)  # Adler-32 of zeros
    rows = begun + again * 99 + b"\3\0" + check
    head = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@BOTH
async def test_huge_picture_is_carried_and_never_unpacked(
    bot: Bot, site: Sites, engine: str
) -> None:
    bot.set()
    url = site.serve("/huge.png", huge_png())
    got = await bot.fetch(url, engine)
    assert isinstance(got, Fetched)
    assert bot.peak_bytes < MIB


async def test_huge_picture_does_not_get_past_ffmpeg(bot: Bot) -> None:
    """Whatever a processor lets ffmpeg do with it: it ends, and within limits."""
    bot.set()
    job = make_job()
    folder = await bot.app.storage.attempt_folder(job)
    bench = JobBench(bot.app, job, folder / "files", lambda progress: None)
    path = bench.path("huge.png")
    path.write_bytes(huge_png())
    async with asyncio.timeout(60):
        with pytest.raises(JobFailed) as failed:
            await bench.ffmpeg("-i", path, "-f", "null", "-")
    await bot.app.storage.forget_attempt(job)
    assert failed.value.detail.startswith("ffmpeg")
    assert "30000" in failed.value.detail


# What takes its time


@BOTH
async def test_trickle_is_stopped(bot: Bot, site: Sites, engine: str) -> None:
    bot.set()
    runner: Any = bot.app.runner
    runner.stall_s, runner.stall_bytes = 1.0, MIB
    url = site.serve(
        "/trickle.jpg", PIECE, endless=True, piece_bytes=32 * 1024, pause_s=0.2
    )
    assert_failed(await bot.fetch(url, engine), Cause.TIMED_OUT)


async def test_page_that_drips_is_given_up(bot: Bot, site: Sites) -> None:
    bot.set()
    runner: Any = bot.app.runner
    runner.find_s = 1.0
    page = {"Content-Type": "text/html"}
    url = site.serve(
        "/drip", b"<p>", endless=True, piece_bytes=16, pause_s=0.1, headers=page
    )
    got = await bot.fetch(url, "yt-dlp")
    assert_failed(got, Cause.TIMED_OUT)
    assert isinstance(got, JobFailed) and "found no file" in got.detail


@BOTH
async def test_silent_server_is_given_up(bot: Bot, site: Sites, engine: str) -> None:
    bot.set(local_worker__download_timeout_s=1)
    url = site.serve("/silent.jpg", silent=True, content=b"")
    assert_failed(await bot.fetch(url, engine), Cause.TIMED_OUT)


# Many


def feed(urls: list[str]) -> Answer:
    items = "".join(f"<item><title>x</title><link>{u}</link></item>" for u in urls)
    text = f'<?xml version="1.0"?><rss version="2.0"><channel>{items}</channel></rss>'
    return Answer(text.encode(), headers={"Content-Type": "application/rss+xml"})


async def test_playlist_of_5_000_ends_at_max_items(bot: Bot, site: Sites) -> None:
    bot.set(max_items=3)
    picture = media.video(bot.folder)
    urls = [site.serve(f"/item/{n}.mp4", picture) for n in range(5)]
    url = site.serve("/many", feed(urls + urls[:1] * 5_000))
    got = await bot.fetch(url, "yt-dlp")
    assert isinstance(got, Fetched)
    assert len(got.files) == 3
    assert got.facts["more"]
    assert not site.hits["/item/4.mp4"]


async def test_gallery_of_25_000_ends_at_max_items(web: Web, bot: Bot) -> None:
    """An album of a real extractor, asked of its own site through a proxy."""
    one = b'{"id": "abcdefg", "ext": "jpg", "created_at": "2020-01-01T00:00:00Z", '
    one += b'"metadata": {"is_animated": false}}'
    album = b'{"id": "abcde", "title": "x", "created_at": "2020-01-01T00:00:00Z", '
    album += b'"media": [' + (one + b",") * 24_999 + one + b"]}"
    json = {"Content-Type": "application/json"}
    where = "https://api.imgur.com/post/v1/albums/abcde"
    web.sites.serve(where, album, headers=json)
    web.sites.serve("https://i.imgur.com/*", media.image(bot.folder))
    bot.set(max_items=3)
    got = await bot.fetch("https://imgur.com/a/abcde", "gallery-dl")
    assert isinstance(got, Fetched), got.detail
    assert len(got.files) == web.sites.hits["i.imgur.com/abcdefg.jpg"] == 3
    assert got.facts["more"]


async def test_files_of_one_link_share_a_cap(bot: Bot, site: Sites) -> None:
    bot.set(max_job_size=3 * MIB + 1000)
    urls = []
    for number in range(6):
        padded = media.padded_video(bot.folder, MIB)
        urls.append(site.serve(f"/share/{number}.mp4", padded))
    got = await bot.fetch(site.serve("/shares", feed(urls)), "yt-dlp")
    assert isinstance(got, Fetched)
    assert [file.size for file in got.files] == [MIB] * 3
    assert [failure.cause for failure in got.failures] == [Cause.TOO_LARGE]
    assert bot.peak_bytes <= 3 * MIB + OVERSHOOT


# What an engine may take, whatever it does


async def test_memory_is_capped_in_the_child(greedy: Bot) -> None:
    greedy.set(child_runner__memory_limit=192 * MIB)
    got = await greedy.fetch("http://x/private", "greedy")
    assert_failed(got, Cause.TOO_LARGE)


async def test_memory_of_all_processes_is_watched(
    greedy: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    greedy.set(child_runner__memory_limit=128 * MIB)
    names = type(greedy.runner).fetch.__globals__
    monkeypatch.setitem(names, "GROUP_MEMORY_BYTES", 16 * MIB)
    got = await greedy.fetch("http://x/divided", "greedy")
    assert_failed(got, Cause.TOO_LARGE)
    assert 144 * MIB < int(got.detail.split()[0]) < NOT_LESS


async def test_file_of_an_engine_that_counts_nothing_is_capped(greedy: Bot) -> None:
    greedy.set(max_download_size=3 * MIB)
    assert_failed(await greedy.fetch("http://x/file", "greedy"), Cause.TOO_LARGE)
    assert greedy.peak_bytes == 3 * MIB


async def test_files_of_an_engine_that_counts_nothing_are_watched(
    greedy: Bot,
) -> None:
    """Once a second; what it writes until then is over the cap."""
    greedy.set(max_job_size=3 * MIB)
    assert_failed(await greedy.fetch("http://x/files", "greedy"), Cause.TOO_LARGE)
    assert greedy.peak_bytes < 200 * MIB
