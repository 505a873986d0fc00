"""Hostile links: whatever a stranger pastes, nothing inside the owner's network is asked.

Each payload of hostile.toml goes through intake and through the real engines in real
children, with the sandbox up. That a payload is a live one is seen by what the sandbox
then says it refused to dial; some go once more with the sandbox down, to see that the
service inside would have been asked.

All servers here are on loopback, which the sandbox forbids. The engines are therefore
wrapped for the payloads that need a server outside: see NETWORK.
"""

import asyncio
import contextlib
import os
import re
import shutil
import socket
import subprocess
import tomllib
from collections.abc import AsyncIterator, Iterator
from itertools import cycle, product
from pathlib import Path
from typing import Any
from urllib.parse import quote

import media
import pytest
import pytest_asyncio
from bossbot_plugins._child import is_public
from bossbot_plugins.file_storage import FileStorage, suffix_of
from conftest import (
    PARTS,
    ROOT,
    SUPPORT_PLUGINS,
    MakeSettings,
    be_quick,
    make_job,
    our_plugins,
    share_runner,
    spread,
)
from platform_support import Web, nobody_watches
from routing import route, route_all
from sites import Sites
from sites_canned.reddit import Reddit

import bossbot
from bossbot import (
    TERMINAL_STATUSES,
    App,
    Cause,
    Fetched,
    Job,
    JobFailed,
    Refused,
    Route,
    Settings,
    Status,
)

pytest_plugins = ("platform_fixtures",)
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:.*marked with '@pytest.mark.asyncio'"),
]

# Of AMT (RFC 7450): global, and nobody answers there.
OUTSIDE, DEAD = "192.52.193.1", "192.52.193.2"
ENGINES = ("gallery-dl", "yt-dlp")
SECRET = "planted-secret-of-the-internal-service"
PRIVATE = "private address"

# Goes in front of a real engine's file. The sandbox is up when it runs, and still judges
# each address that is dialled: OUTSIDE is judged as such, then led to a server that the
# sandbox allows because it is named as the owner's proxy; the rest is dialled as it is.
NETWORK = """
import os
import socket
import sys
from pathlib import Path

exec(compile(Path({source!r}).read_text(), {source!r}, "exec"))
_download, _warm = download, warm
_names = {names!r}


def warm():
    _warm()
    if {pages!r}:  # once, what yt-dlp would do in each child that reads a page
        from yt_dlp import YoutubeDL

        with YoutubeDL({{"quiet": True}}, auto_init=False) as site:
            site._ies = _table()[-1]
            generic = site.get_info_extractor("Generic")
            assert not list(generic._extract_embeds("https://a.example/", "<p>"))


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


def table() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("hostile.toml").read_text("utf-8"))


TABLE = table()
PAGES: dict[str, Any] = TABLE["pages"]
# Those that are tried with the sandbox down, too, one of each way to lead inside.
TRIED = ("plain", "a name", "IPv6", "mapped", "redirect-302", "redirect-with-orders")
TRIED += ("refresh-header", "og-video", "hls-segment", "dash-segment", "websocket")
# Links that mean more to an engine than the address to dial.
WORDS = ("fragment of orders", "template", "up and away", "a shell's words")
# gallery-dl follows redirects, and goes by the type of the rest: one of each is enough.
TYPES = {PAGES[p].get("headers", {}).get("Content-Type"): p for p in reversed(PAGES)}
BOTH = pytest.mark.parametrize("engine", ENGINES)
# The plugins of a bot without Discord.
NEEDED = (*PARTS, "gallery_dl", "yt_dlp", "twitter", "youtube", "reddit")


class Net:
    """A server outside, a service inside, and the bot between them."""

    def __init__(self, outside: Sites, inside: Sites, folder: Path) -> None:
        self.outside, self.inside, self.folder = outside, inside, folder
        self.port = int(inside.address.rpartition(":")[2])
        self.sixth_port = self.sixth_hits = 0  # of the service inside, on ::1
        self._apps: list[App] = []

    def fill(self, text: str) -> str:
        return text.format(
            port=self.port,
            sixth=self.sixth_port or self.port,
            internal=f"http://127.0.0.1:{self.port}",
            public=f"http://{OUTSIDE}",
            address=OUTSIDE,
            dead=DEAD,
            host=socket.gethostname(),
            long="a" * 600,
        )

    @property
    def hits(self) -> int:
        return len(self.inside.requests) + self.sixth_hits

    def forget_hits(self) -> int:
        """How often the service inside was asked; from now on, none."""
        hits, self.sixth_hits = self.hits, 0
        self.inside.requests.clear()
        return hits

    def app(self, name: str, *, sandboxed: bool = True) -> App:
        """A bot with the real platforms and engines, the latter wrapped."""
        own = self.folder / "wrapped"  # the owner's
        if not own.exists():
            own.mkdir()
            shutil.copy(SUPPORT_PLUGINS / "nowhere.py", own)
            for stem in ("gallery_dl", "yt_dlp"):
                source = ROOT / "plugins" / "engines" / f"{stem}.py"
                (own / f"{stem}.py").write_text(self._wrapper(source))
        values = {
            "data_dir": self.folder / name,
            "plugins_dir": own,
            "child_runner__allow_private_addresses": not sandboxed,
            "local_worker__download_timeout_s": 20,
        }
        ours = our_plugins(*NEEDED)
        app = App(Settings(**spread(values)), ours)
        app.plugins.load()
        assert not [one.off for one in app.plugins.all.values() if one.off]
        bossbot.prepare_data(app.settings.data_dir)
        self._apps.append(app)
        return be_quick(app)

    def _wrapper(self, path: Path) -> str:
        host, _, port = self.outside.address.partition(":")
        names = {
            name: [[self.fill(address) for address in answer] for answer in answers]
            for name, answers in TABLE["names"].items()
        }
        return NETWORK.format(
            source=str(path),
            names=names,
            pages=path.stem == "yt_dlp",
            outside=OUTSIDE,
            dead=DEAD,
            server=(host, int(port)),
        )

    @contextlib.contextmanager
    def as_proxy(self) -> Iterator[None]:
        """The environment of a fork server whose children may dial the outside."""
        with pytest.MonkeyPatch.context() as patch:
            for kind in ("http", "https", "all", "no"):
                patch.delenv(f"{kind}_proxy", raising=False)
                patch.delenv(f"{kind}_proxy".upper(), raising=False)
            patch.setenv("HTTP_PROXY", f"http://{self.outside.address}")
            yield

    async def stop(self) -> None:
        for app in self._apps:
            await app.stop()

    async def fetch(self, app: App, url: str, engine: str) -> Fetched | JobFailed:
        """What one attempt brought, or why it failed; its folder is gone again."""
        job = make_job(url=url, engine=engine)
        sandbox: Any = app.plugins.all["child_runner"].config
        try:
            async with asyncio.timeout(60):
                return await app.worker.fetch(job, nobody_watches)
        except JobFailed as error:
            return error
        finally:
            if not sandbox.allow_private_addresses:
                search(app.settings.data_dir)
            await app.storage.forget_attempt(job)


def search(folder: Path) -> None:
    """Nothing of the service inside or of /etc/passwd is in a folder, from which the
    other engine's attempt may be removing its own at this moment."""
    for parent, folders, files in os.walk(folder):
        assert not [name for name in folders + files if "pwned" in name]
        for path in (Path(parent, name) for name in files):
            with contextlib.suppress(OSError):  # it is no file, or is gone
                content = path.read_bytes() if path.is_file() else b""
                assert SECRET.encode() not in content, path
                assert b"root:" not in content, path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def net(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Net]:
    video = {"Content-Type": "video/mp4"}
    with Sites() as outside, Sites() as inside:
        inside.serve("/*", (SECRET * 100).encode(), headers=video)
        net = Net(outside, inside, tmp_path_factory.mktemp("net"))

        async def sixth(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            net.sixth_hits += 1
            writer.close()

        with contextlib.suppress(OSError):  # no IPv6 here
            server = await asyncio.start_server(sixth, "::1", 0)
            net.sixth_port = server.sockets[0].getsockname()[1]
        for name, page in PAGES.items():
            headers = {k: net.fill(v) for k, v in page.get("headers", {}).items()}
            body = net.fill(page.get("body", "")).encode()
            status = page.get("status", 200)
            for path in (f"/{name}", f"/{name}.mp4"):
                outside.serve(path, body, headers=headers, status=status)
        outside.serve("/segment.ts", bytes(1024))
        again = {"Location": "again.mp4", "Connection": "close"}
        outside.serve("/rebinds.mp4", b"", status=302, headers=again)
        yield net
        await net.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def led(net: Net) -> App:
    """The sandboxed bot whose engines find a server at OUTSIDE."""
    app = net.app("led")
    with net.as_proxy():
        await app.runner.start()
    return app


@pytest.fixture(scope="module")
def bare(net: Net, led: App) -> App:
    """The sandboxed bot that knows of no proxy, and so of nothing outside."""
    app = net.app("bare")
    share_runner(app, led)
    runner: Any = app.runner
    runner._environment = {}
    return app


@pytest.fixture(scope="module")
def opened(net: Net, led: App) -> App:
    """The bot with the sandbox down."""
    app = net.app("opened", sandboxed=False)
    share_runner(app, led)
    return app


@pytest.fixture(autouse=True)
def _nobody_was_here(net: Net) -> None:
    net.forget_hits()
    net.outside.requests.clear()
    net.outside.hits.clear()


# Intake


async def test_hostile_words_are_refused(net: Net, bare: App) -> None:
    for payload, said in TABLE["refused"].items():
        try:
            taken = await route(bare, net.fill(payload))
        except Refused as error:
            assert said in str(error), payload
        else:
            raise AssertionError(f"{payload} is taken for {taken}")


def test_there_are_enough_payloads() -> None:
    tables = ("refused", "dialled", "elsewhere", "names", "pages")
    assert sum(len(TABLE[name]) for name in tables) > 150


# Links to the inside


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def links(net: Net, bare: App) -> dict[str, str]:
    """The payloads that intake lets pass, as it hands them on."""
    payloads = {**TABLE["dialled"], **TABLE["elsewhere"]}
    routes = await route_all(bare, [*map(net.fill, payloads.values())])
    urls = [r.url for r in routes if isinstance(r, Route) and not r.platform]
    return dict(zip(payloads, urls, strict=True))


async def by_both(net: Net, app: App, url: str) -> list[Fetched | JobFailed]:
    """What each engine brings of a link, in the order of ENGINES."""
    fetches = (net.fetch(app, url, engine) for engine in ENGINES)
    return list(await asyncio.gather(*fetches))


def assert_refused_by_the_sandbox(net: Net, *got: Fetched | JobFailed) -> None:
    assert not net.hits
    for one in got:
        assert isinstance(one, JobFailed), one
        assert one.cause is Cause.INVALID_URL
        assert PRIVATE in str(one) and one.detail.startswith(f"{PRIVATE} ")


async def assert_live(net: Net, opened: App, url: str, *engines: str) -> None:
    for engine in engines:
        await net.fetch(opened, url, engine)
        assert net.forget_hits(), f"harmless to {engine} even without the sandbox"


@pytest.mark.parametrize("payload", [*TRIED[:4], *WORDS])
async def test_link_to_the_inside_is_not_opened(
    net: Net, bare: App, opened: App, links: dict[str, str], payload: str
) -> None:
    if "IPv6" in payload and not net.sixth_port:
        pytest.skip("no IPv6 on this machine")
    assert_refused_by_the_sandbox(net, *await by_both(net, bare, links[payload]))
    if payload in TRIED:
        await assert_live(net, opened, links[payload], *ENGINES)


OTHERS = [
    *product(sorted(TABLE["dialled"].keys() - {*TRIED, *WORDS}), ENGINES),
    *zip(TABLE["elsewhere"], cycle(ENGINES), strict=False),
]


@pytest.mark.parametrize(("payload", "engine"), OTHERS)
async def test_link_to_a_private_address_is_not_opened(
    net: Net, bare: App, links: dict[str, str], payload: str, engine: str
) -> None:
    """By either engine: what is dialled is judged, however it was written."""
    if "IPv6" in payload and not net.sixth_port:
        pytest.skip("no IPv6 on this machine")
    if payload == "our own name":
        try:
            own = socket.gethostbyname(socket.gethostname())
        except OSError:
            pytest.skip("this machine does not know its own name")
        if is_public(own):
            pytest.skip("this machine is on the internet")
    assert_refused_by_the_sandbox(net, await net.fetch(bare, links[payload], engine))


@pytest.mark.parametrize("name", TABLE["names"])
async def test_name_that_leads_inside_is_not_opened(
    net: Net, led: App, opened: App, name: str
) -> None:
    url = f"http://{name}:{net.port}/rebinds.mp4"
    assert_refused_by_the_sandbox(net, *await by_both(net, led, url))
    await assert_live(net, opened, url, *ENGINES)


# Servers that lead to the inside


@pytest.mark.parametrize("page", PAGES)
async def test_page_cannot_lead_an_engine_inside(
    net: Net, led: App, opened: App, page: str
) -> None:
    url = f"http://{OUTSIDE}/{page}.mp4"
    live = PAGES[page].get("live", [])
    leads = "Location" in PAGES[page].get("headers", {})
    engines = ENGINES if leads or page in TYPES.values() else ("yt-dlp",)
    fetches = (net.fetch(led, url, engine) for engine in engines)
    brought = dict(zip(engines, await asyncio.gather(*fetches), strict=True))
    times = net.outside.hits[f"/{page}.mp4"]
    assert times >= len(engines), "the server outside was not reached"
    assert not net.hits
    assert all(isinstance(got, JobFailed) for got in brought.values()), brought
    sandboxed = live + PAGES[page].get("sandboxed", [])
    assert_refused_by_the_sandbox(net, *(brought[engine] for engine in sandboxed))
    if leads:
        assert times == len(engines), "it tried again"
    if page in TRIED:
        await assert_live(net, opened, url, *live)


@BOTH
async def test_link_is_judged_by_its_own_host_behind_a_proxy(
    net: Net, led: App, engine: str
) -> None:
    for link in (f"http://127.1:{net.port}/secret.mp4", f"{net.outside.url('/x.mp4')}"):
        assert_refused_by_the_sandbox(net, await net.fetch(led, link, engine))
        assert not net.outside.requests, "the proxy was asked"


async def test_refused_job_ends_at_once_and_leaves_nothing(net: Net, led: App) -> None:
    app = net.app("queued")
    share_runner(app, led)
    await app.start(gateway=False)
    links = [
        f"http://{OUTSIDE}/redirect-302.mp4",
        f"http://{OUTSIDE}/og-video",
        f"http://127.1:{net.port}/secret.mp4",
    ]
    ids = []
    for number, link in enumerate(links):
        taken = await app.intake(
            Job(url=link, guild_id=1, channel_id=2, user_id=3, request_key=f"{number}")
        )
        assert taken and taken.job
        ids.append(taken.job.id)
    async with asyncio.timeout(60):
        async for _ in app.queue.changes():
            jobs = [job for job in await app.queue.list() if job.id in ids]
            if all(job.status in TERMINAL_STATUSES for job in jobs):
                break
    for job in jobs:
        assert (job.status, job.attempts) == (Status.FAILED, 1)
        assert job.cause is Cause.INVALID_URL
        assert PRIVATE in job.error
        assert SECRET not in job.detail
    assert net.outside.hits["/redirect-302.mp4"] == 1
    assert not net.hits
    data = app.settings.data_dir
    assert not [*(data / "temp").iterdir(), *(data / "downloads").iterdir()]


# What a video may do to ffmpeg


def playlist_of(secret: Path) -> bytes:
    """What ffmpeg takes for a list of files to open, whatever it is called."""
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n".encode()


def concat_of(secret: Path) -> bytes:
    return f"ffconcat version 1.0\nfile 'file:{secret}'\n".encode()


@pytest.fixture(scope="module")
def secret_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the owner's that ffmpeg could play."""
    folder = tmp_path_factory.mktemp("own")
    target = folder / "own.ts"
    whole = media.video(folder)
    quiet = ["ffmpeg", "-nostdin", "-loglevel", "error"]
    subprocess.run([*quiet, "-i", whole, "-c", "copy", target], check=True, timeout=60)
    return target


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfake.ts\n#EXT-X-ENDLIST\n"
DASH = """<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S">
<Period>
<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1000"
 codecs="avc1.42c00a" width="96" height="64"><BaseURL>fake.ts</BaseURL></Representation>
</AdaptationSet>
<AdaptationSet mimeType="audio/mp4"><Representation id="2" bandwidth="1000"
 codecs="mp4a.40.2"><BaseURL>fake.ts</BaseURL></Representation></AdaptationSet>
</Period></MPD>"""


# How picture and sound that are playlists are joined is seen in the test after it.
@pytest.mark.parametrize(
    ("manifest", "fake"),
    [(HLS, playlist_of), (HLS, concat_of), (DASH, concat_of)],
    ids=["hls-playlist", "hls-concat", "dash-concat"],
)
async def test_fake_video_does_not_make_ffmpeg_open_another_file(
    net: Net, opened: App, secret_video: Path, manifest: str, fake: Any
) -> None:
    net.outside.serve("/fake.ts", fake(secret_video))
    kind = "application/dash+xml" if "MPD" in manifest else "application/x-mpegurl"
    url = net.outside.serve(
        "/fakes/show",
        manifest.replace("fake.ts", "/fake.ts"),
        headers={"Content-Type": kind},
    )
    got = await net.fetch(opened, url, "yt-dlp")
    assert net.outside.hits["/fake.ts"], "ffmpeg had nothing to open"
    assert isinstance(got, JobFailed), got
    assert got.cause is Cause.NO_MEDIA


@pytest.mark.asyncio(loop_scope="session")
async def test_fake_parts_of_a_gallery_do_not_make_ffmpeg_open_another_file(
    tmp_path: Path, web: Web, secret_video: Path
) -> None:
    """As gallery-dl hands Reddit's videos to yt-dlp, which joins picture and sound."""
    for number, fake in enumerate((playlist_of, concat_of)):
        web.sites.hits.clear()
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(fake(secret_video))
        link = Reddit(web.sites).video(f"aa{number}", path, path)
        got = await web.fetch(link, engine="gallery-dl")
        assert [hit for hit in web.sites.hits if "DASH_" in hit], "nothing to open"
        assert got.error, got


def test_unguarded_ffmpeg_would_open_the_other_file(
    tmp_path: Path, secret_video: Path
) -> None:
    """That the fakes above are live ones: by the list's own name, ffmpeg plays it."""
    path = tmp_path / "list.m3u8"
    path.write_bytes(playlist_of(secret_video))
    play = ["ffmpeg", "-nostdin", "-loglevel", "error", "-i", path, "-f", "null", "-"]
    assert subprocess.run(play, timeout=60).returncode == 0


# What may be posted

MP4 = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"
JPG = b"\xff\xd8\xff\xe0\0\x10JFIF\0"
GIF = b"GIF89a\x01\0\x01\0\0\0\0"
EXE = b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff\0\0"
HTML = b"<!doctype html><script>alert(1)</script>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'

# Name, content, and the ending it is posted with; None: it is not posted.
UPLOADS = [
    ("a.exe", EXE, None),
    ("a.jpg", EXE, None),
    ("a.mp4", EXE, None),
    ("a.txt", EXE, None),
    ("a.html", HTML, None),
    ("a.txt", HTML, None),
    ("a.txt", b"\r\n\t " + HTML, None),
    ("a.jpg", HTML, None),
    ("a.mp4", HTML, None),
    ("a.svg", SVG, None),
    ("a.png", SVG, None),
    ("a.txt", SVG, None),
    ("a.svg", b"<?xml version='1.0'?>" + SVG, None),
    ("a.xhtml", b"<?xml version='1.0'?><html/>", None),
    ("a.desktop", b"[Desktop Entry]\nExec=sh\n", None),
    ("a.url", b"[InternetShortcut]\nURL=file:///c:/\n", None),
    ("a.webloc", b"<?xml version='1.0'?><plist/>", None),
    ("a.lnk", b"L\0\0\0\x01\x14\x02\0", None),
    ("a.js", b"alert(1)", None),
    ("a.js", b"G" + b" " * 187 + b"G=1", None),
    ("a.ts", b"G" + b" " * 187 + b"G=1", None),
    ("a.vbs", b"MsgBox 1", None),
    ("a.bat", b"@echo off", None),
    ("a.sh", b"#!/bin/sh\nid\n", None),
    ("a.py", b"import os", None),
    ("a", b"text without an ending", None),
    ("a.pdf", b"%PDF-1.7", None),
    ("a.zip", b"PK\x03\x04", None),
    ("a.jar", b"PK\x03\x04", None),
    ("a.swf", b"CWS\x09", None),
    ("a.m3u8", b"#EXTM3U\nfile:///etc/passwd\n", None),
    ("a.mp4", b"#EXTM3U\nfile:///etc/passwd\n", None),
    ("a.txt", b"#EXTM3U\nfile:///etc/passwd\n", None),
    ("a.mp4", b"ffconcat version 1.0\nfile /etc/passwd\n", None),
    ("a.mp4.part", MP4, "mp4"),
    ("a.mp4.ytdl", b"{}", None),
    ("a.jpg", b"", None),
    # Polyglots: what they are by their first bytes, under a name that says so.
    ("a.html", JPG + HTML, "jpg"),
    ("a.exe", JPG + EXE, "jpg"),
    ("a.js", GIF + b"=1;alert(1)", "gif"),
    ("a.svg", MP4 + SVG, "mp4"),
    ("a.jpg.exe", JPG, "jpg"),
    ("a.jpg\u202egpj.exe", JPG, "jpg"),
    # And the honest.
    ("a.jpg", JPG, "jpg"),
    ("a.jpeg", JPG, "jpeg"),
    ("a.mp4", MP4, "mp4"),
    ("a.mov", MP4, "mov"),
    ("a.txt", b"words", "txt"),
    ("a.srt", b"1\n00:00:00,000 --> 00:00:01,000\nwords\n", "srt"),
    ("a.ts", (b"G\x40\x11\x10" + bytes(184)) * 5, "ts"),
]


async def test_only_media_is_posted_under_an_ending_that_suits_it(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    storage = FileStorage(App(make_settings()))
    for name, content, posted in UPLOADS:
        path = tmp_path / name
        path.write_bytes(content)
        try:
            ending = suffix_of(await storage.inspect(path, tmp_path))
        except JobFailed as error:
            assert error.cause is Cause.NO_MEDIA, (name, content)
            ending = None
        assert ending == posted, (name, content)


@BOTH
@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("application/x-msdownload", EXE),
        ("video/mp4", EXE),
        ("image/svg+xml", SVG),
        ("video/mp4", SVG),
        ("video/mp4", HTML),
        ("application/x-desktop", b"[Desktop Entry]\nExec=sh\n"),
        ("video/mp4; ../../x", b"#!/bin/sh\nid\n"),
    ],
)
async def test_engines_bring_nothing_but_media(
    net: Net, opened: App, kind: str, content: bytes, engine: str
) -> None:
    headers = {
        "Content-Type": kind,
        "Content-Disposition": 'attachment; filename="../../../x.exe"',
    }
    url = net.outside.serve("/file.mp4", content, headers=headers)
    got = await net.fetch(opened, url, engine)
    assert isinstance(got, JobFailed), got


@BOTH
@pytest.mark.parametrize(
    "name",
    [
        "../../../x.mp4",
        "..\u2215x.mp4",
        "CON.mp4",
        "a" * 600 + ".mp4",
        "%0a%0d.mp4",
        "-exec.mp4",
        "%e2%80%ae4pm.exe.mp4",
    ],
)
async def test_hostile_names_become_our_own(
    net: Net, opened: App, tmp_path: Path, name: str, engine: str
) -> None:
    video = media.video(net.folder / "media")
    disposition = {"Content-Disposition": f'attachment; filename="{quote(name)}"'}
    for path in ("/names/*", "/x.mp4"):  # the latter is where "../" leads
        net.outside.serve(path, video, headers=disposition)
    url, _, _ = await route(opened, net.outside.url(f"/names/{name}"))
    before = {path for path in net.folder.rglob("*") if "temp" not in path.parts}
    job = make_job(url=url, engine=engine)
    got = await opened.worker.fetch(job, nobody_watches)
    [file] = got.files
    temp = opened.settings.data_dir / "temp"
    assert file.path.parent == temp / job.id / "0" / "files"
    kept = await opened.storage.place(job, got.files, tmp_path / "kept")
    await opened.storage.forget_attempt(job)
    assert [path.parent for path in tmp_path.rglob("*.*")] == [tmp_path / "kept"]
    assert re.fullmatch(r"[\w-]+_[A-Za-z0-9-]{1,60}_\w+_01\.mp4", kept[0].name)
    after = {path for path in net.folder.rglob("*") if "temp" not in path.parts}
    assert not [path for path in after - before if "cache" not in path.parts]
