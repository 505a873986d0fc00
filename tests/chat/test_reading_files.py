"""What is written, said and shown in posted files is found: the reader of pictures in its
child, and a server that describes files."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from conftest import SmallApp, make_job
from discord_support import module

from bossbot import App, Job, MediaFile, Passage, Post

# It "reads" what is in the file, and does what it says. The real one, rapidocr, takes
# 410 MB.
STAND_IN = """
import os

def start(options):
    def answer(request, body):
        if body == b"die":
            os.kill(os.getpid(), 9)
        if body == b"eat":
            bytes(2_000_000_000)
        return {"text": f"{options['side']} " + body.decode()}, b""
    return answer
"""


def file_of(folder: Path, content: bytes, mime: str = "image/png") -> MediaFile:
    path = folder / f"{content[:20].hex()}.bin"
    path.write_bytes(content)
    return MediaFile(path, len(content), path.stem, mime)


async def read(app: App, job: Job, file: MediaFile) -> list[Passage]:
    found = await app.plugins.call("extract_text", job=job, file=file)
    assert not any(plugin.failures for plugin in app.plugins.all.values())
    return [passage for passages in found for passage in passages]


@pytest.fixture
async def reading_app(
    small_app: SmallApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> App:
    """It has the plugin, with the stand-in for rapidocr in its child."""
    (tmp_path / "_stand_in_ocr.py").write_text(STAND_IN)
    own = {"max_pictures": 3, "memory_limit": "200MiB"}
    app = small_app("read_pictures", plugins={"read_pictures": own})
    plugin = module("read_pictures")
    monkeypatch.setattr(plugin, "READER", tmp_path / "_stand_in_ocr.py")
    monkeypatch.setattr(plugin, "NEEDS", ("json",))
    monkeypatch.setattr(plugin, "memory_bytes", lambda: 2**32)
    await app.start()
    await asyncio.sleep(0)
    return app


async def test_what_is_written_in_pictures_is_read(
    reading_app: App, tmp_path: Path
) -> None:
    job = make_job()
    (passage,) = await read(reading_app, job, file_of(tmp_path, b"WET PAINT"))
    assert passage == Passage("736 WET PAINT", "picture")
    assert await read(reading_app, job, file_of(tmp_path, b"talk", "video/mp4")) == []
    # At most so many of a post, but one of them may be read again.
    for number in (2, 3):
        assert await read(reading_app, job, file_of(tmp_path, b"%d" % number))
    assert await read(reading_app, job, file_of(tmp_path, b"4")) == []
    assert await read(reading_app, job, file_of(tmp_path, b"2"))
    assert await read(reading_app, make_job(), file_of(tmp_path, b"4"))


async def test_picture_that_ends_its_reader_three_times_is_given_up(
    reading_app: App, tmp_path: Path, logged: list[str]
) -> None:
    bad = file_of(tmp_path, b"die")
    assert await read(reading_app, make_job(), bad) == []
    assert sum("died" in line for line in logged) == 3
    assert sum("is skipped" in line for line in logged) == 1
    assert await read(reading_app, make_job(), bad) == []
    assert sum("died" in line for line in logged) == 3
    assert await read(reading_app, make_job(), file_of(tmp_path, b"fine"))


async def test_reader_has_little_memory(reading_app: App, tmp_path: Path) -> None:
    assert await read(reading_app, make_job(), file_of(tmp_path, b"eat")) == []
    assert await read(reading_app, make_job(), file_of(tmp_path, b"fine"))


def test_pictures_are_not_read_where_the_memory_is_little_or_nothing_is_installed(
    small_app: SmallApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_app("read_pictures")
    plugin = module("read_pictures")
    monkeypatch.setattr(plugin, "NEEDS", ("no_such_package",))
    assert plugin.lacking(plugin.Config()) == "not installed"
    assert plugin.check_machine(plugin.Config()) == []
    monkeypatch.setattr(plugin, "NEEDS", ("json",))
    monkeypatch.setattr(plugin, "memory_bytes", lambda: 512 * 2**20)
    (finding,) = plugin.check_machine(plugin.Config())
    assert "too little memory" in finding.what
    monkeypatch.setattr(plugin, "memory_bytes", lambda: 0)  # a system that does not say
    assert plugin.lacking(plugin.Config()) == ""


# A server that describes files


class Server:
    """It speaks OpenAI's protocol, and behaves as the model's name says."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []

    async def transcribe(self, request: web.Request) -> web.StreamResponse:
        form: Any = await request.post()
        self.got.append(
            {
                "key": request.headers.get("Authorization"),
                "file": form["file"].file.read(),
                "name": form["file"].filename,
                "format": form["response_format"],
            }
        )
        match form["model"]:
            case "good":
                parts = [(0.0, " Welcome to the farm."), (31.5, "These are the goats.")]
                segments = [{"start": start, "text": text} for start, text in parts]
                return web.json_response({"text": "all", "segments": segments})
            case "plain":
                return web.json_response({"text": "Only the words."})
            case "odd times":
                segments = [{"start": start, "text": "x"} for start in (-1, None, "3")]
                return web.json_response({"segments": segments})
            case "redirect":
                raise web.HTTPTemporaryRedirect("/v1/elsewhere")
            case "garbage":
                return web.Response(text="<html>")
            case "deep":
                return web.Response(text="[" * 100_000)
            case "list":
                return web.json_response([1])
            case "numbers":
                return web.json_response({"segments": [{"text": 7}]})
            case "long":
                return web.Response(text=" " * 5_000_000 + '{"text": "x"}')
            case "hang":
                await asyncio.sleep(5)
        return web.Response(status=500)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        self.got.append(asked)
        if asked["model"] == "bad":
            return web.Response(status=401)
        text = "<think>hm</think>A goat on a roof."
        return web.json_response({"choices": [{"message": {"content": text}}]})


async def elsewhere(_request: web.Request) -> web.Response:
    return web.json_response({"text": "somebody else heard it"})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server, app = Server(), web.Application(client_max_size=2**26)
    app.router.add_post("/v1/audio/transcriptions", server.transcribe)
    app.router.add_post("/v1/chat/completions", server.chat)
    app.router.add_post("/v1/elsewhere", elsewhere)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"  # type: ignore[attr-defined]
    yield server
    await runner.cleanup()


def described(small_app: SmallApp, server: Any, **own: Any) -> App:
    own = {"base_url": server.url, "api_key": "sk-1", **own}
    return small_app("describe_files", plugins={"describe_files": own})


async def test_what_is_said_is_found_with_its_times(
    small_app: SmallApp, server: Server, tmp_path: Path
) -> None:
    app = described(small_app, server, speech_model="good")
    video = file_of(tmp_path, b"a video", "video/mp4")
    assert await read(app, make_job(), video) == [
        Passage("Welcome to the farm.", "speech", 0.0),
        Passage("These are the goats.", "speech", 31.5),
    ]
    assert server.got == [
        {
            "key": "Bearer sk-1",
            "file": b"a video",
            "name": video.name,
            "format": "verbose_json",
        }
    ]
    # Pictures have no model here, and this server does not want any file described.
    assert await read(app, make_job(), file_of(tmp_path, b"a picture")) == []
    job = make_job(guild_settings={"describe_files": {"describe_files": False}})
    assert await read(app, job, video) == [] and len(server.got) == 1


@pytest.mark.parametrize(
    ("model", "want"),
    [
        ("plain", [Passage("Only the words.", "speech")]),
        ("odd times", [Passage("x", "speech")] * 3),
        *[
            (model, [])
            for model in ["redirect", "garbage", "deep", "list", "numbers", "long"]
        ],
        *[("hang", []), ("error", [])],
    ],
)
async def test_server_that_hears_badly_stops_nothing(
    small_app: SmallApp,
    server: Server,
    tmp_path: Path,
    model: str,
    want: list[Passage],
) -> None:
    seconds = 0.2 if model == "hang" else 20
    app = described(small_app, server, speech_model=model, timeout_s=seconds)
    file = file_of(tmp_path, b"sound", "audio/mpeg")
    assert await read(app, make_job(), file) == want


async def test_sound_that_is_too_large_is_not_sent(
    small_app: SmallApp,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = described(small_app, server, speech_model="good")
    plugin = module("describe_files")
    monkeypatch.setattr(plugin, "MAX_SOUND_BYTES", 4)
    assert await read(app, make_job(), file_of(tmp_path, b"sound", "audio/x")) == []
    assert server.got == []


async def test_first_pictures_of_a_post_are_described(
    small_app: SmallApp, server: Server, tmp_path: Path
) -> None:
    app = described(small_app, server, picture_model="eyes", max_pictures=1)
    files = [file_of(tmp_path, one) for one in (b"one", b"two")]
    post = Post(1, "", {file.name: file.sha256 for file in files})
    job = make_job(posts=[post])
    found = [await read(app, job, file) for file in files]
    assert found == [[Passage("A goat on a roof.", "description")], []]
    (asked,) = server.got
    url = asked["messages"][0]["content"][1]["image_url"]["url"]
    assert url == "data:image/png;base64," + base64.b64encode(b"one").decode()
    bad = described(small_app, server, picture_model="bad")
    assert await read(bad, job, files[0]) == []


async def test_no_file_leaves_the_bot_unless_a_server_is_set(
    small_app: SmallApp, server: Server, tmp_path: Path
) -> None:
    app = small_app("describe_files")
    assert await read(app, make_job(), file_of(tmp_path, b"one")) == []
    assert await read(app, make_job(), file_of(tmp_path, b"one", "video/mp4")) == []
    assert server.got == []
