"""Failures: what is tried again and what is not, and what a member then reads."""

import asyncio
import random
import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import media
import pytest
import trustme
from platform_support import PLATFORMS, Apps, Web
from sites import Answer, in_turn

from bossbot import SENTENCES, App, Cause, JobFailed, Platform

pytest_plugins = ("platform_fixtures",)
pytestmark = pytest.mark.asyncio(loop_scope="session")
PLUGINS = Path(__file__).parent / "plugins"
# A link to a file goes to gallery-dl or to yt-dlp as the platform says.
both_engines = pytest.mark.parametrize("engine", ["gallery-dl", "yt-dlp"])


def files(engine: str, timeout_s: float = 60) -> Platform:
    return Platform(
        name="files",
        pattern=r"https?://(files|no-such)\.|https?://127\.|https?://localhost",
        example="https://files.example/a.mp4",
        engine=engine,
        options={
            "extractor.timeout": timeout_s,
            "downloader.timeout": timeout_s,
            "socket_timeout": timeout_s,
            "downloader.retries": 0,  # between its own, gallery-dl waits for 1 s
        },
    )


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry waits for no longer than it must."""
    monkeypatch.setattr(random, "uniform", lambda low, high: 0.0)


# Tried again, or not


@both_engines
@pytest.mark.usefixtures("at_once")
async def test_rate_limit_that_ends_soon_is_waited_for_once(
    web: Web, apps: Apps, media_folder: Path, engine: str, logged: list[str]
) -> None:
    video = media.video(media_folder)
    limited = Answer("Slow down.", 429, {"Retry-After": "1"})
    link = web.sites.serve("https://files.example/a.mp4", in_turn(limited, video))
    app = apps[engine]
    job = await web.finish(link, app)
    assert (job.status, job.attempts, job.detail) == ("completed", 2, "")
    assert web.kept(job, app) == [video.read_bytes()]
    # At first the limit, then what a download takes.
    assert web.sites.hits["files.example/a.mp4"] <= 3
    (again,) = [line for line in logged if "downloading -> queued" in line]
    assert link in again


@both_engines
@pytest.mark.usefixtures("at_once")
async def test_rate_limit_that_stays_is_asked_three_times(
    web: Web, apps: Apps, engine: str
) -> None:
    limited = Answer("Slow down.", 429, {"Retry-After": "1"})
    link = web.sites.serve("https://files.example/a.mp4", limited)
    app = apps[engine]
    job = await web.finish(link, app)
    assert (job.status, job.cause, job.attempts) == ("failed", Cause.RATE_LIMITED, 3)
    assert web.sites.hits["files.example/a.mp4"] == 3


@both_engines
async def test_rate_limit_of_ten_minutes_is_said_not_waited_for(
    web: Web, apps: Apps, engine: str
) -> None:
    limited = Answer("Slow down.", 429, {"Retry-After": "600"})
    link = web.sites.serve("https://files.example/a.mp4", limited)
    app = apps[engine]
    job = await web.finish(link, app)
    assert (job.cause, job.attempts) == (Cause.RATE_LIMITED, 1)
    assert "10 min" in job.error
    assert web.sites.hits["files.example/a.mp4"] == 1


@both_engines
@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.usefixtures("at_once")
async def test_server_that_fails_once_is_asked_again(
    web: Web, apps: Apps, media_folder: Path, engine: str, status: int
) -> None:
    video = media.video(media_folder)
    answers = in_turn(Answer("Sorry.", status), video)
    link = web.sites.serve("https://files.example/a.mp4", answers)
    app = apps[engine]
    job = await web.finish(link, app)
    assert (job.status, job.detail) == ("completed", "")
    assert web.kept(job, app) == [video.read_bytes()]


@both_engines
@pytest.mark.usefixtures("at_once")
async def test_server_that_fails_for_good_is_not_asked_for_ever(
    web: Web, apps: Apps, engine: str
) -> None:
    link = web.sites.serve("https://files.example/a.mp4", Answer("Sorry.", 503))
    app = apps[engine]
    job = await web.finish(link, app)
    assert (job.status, job.cause) == ("failed", Cause.NETWORK)
    assert job.error == SENTENCES[Cause.NETWORK]
    assert job.attempts == 3
    assert 3 <= web.sites.hits["files.example/a.mp4"] <= 6


@both_engines
@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (401, Cause.LOGIN),
        (403, Cause.LOGIN),
        (404, Cause.GONE),
        (400, Cause.GONE),
        (429, Cause.RATE_LIMITED),
        (451, Cause.REGION),
    ],
)
async def test_what_does_not_pass_is_asked_for_once(
    web: Web, apps: Apps, engine: str, status: int, cause: Cause
) -> None:
    link = web.sites.serve("https://files.example/a.mp4", Answer("No.", status))
    app = apps[engine]
    job = await web.finish(link, app)
    assert (job.status, job.cause, job.attempts) == ("failed", cause, 1)
    assert web.sites.hits["files.example/a.mp4"] == 1


def failing_with(app: App, *causes: Cause) -> Iterator[Cause]:
    """Has that site fail with one cause after the other."""
    for cause in causes:
        app.plugins.registered("platforms")["files"].options["cause"] = cause.value
        yield cause


@pytest.fixture
def failing(web: Web) -> Iterator[None]:
    """A site whose engine fails: see plugins/failing.py."""
    path = Path(shutil.copy(PLUGINS / "failing.py", web.plugins))
    yield
    path.unlink()


@pytest.mark.usefixtures("failing")
async def test_other_engine_is_tried_once(web: Web, media_folder: Path) -> None:
    photo = media.image(media_folder)
    link = web.sites.serve("https://files.example/a.jpg", photo)
    gone = web.sites.serve("https://files.example/b.jpg", Answer(status=404))
    async with web.running(failing__cause=Cause.INTERNAL) as app:
        for cause in failing_with(
            app, Cause.UNSUPPORTED, Cause.INTERNAL, Cause.NO_MEDIA
        ):
            job = await web.finish(link, app)
            assert (job.status, job.attempts) == ("completed", 2), cause
            assert web.kept(job, app) == [photo.read_bytes()]
            # Nobody else knows this one.
            job = await web.finish("https://files.example/page", app)
            assert (job.cause, job.attempts) == (cause, 1)
        job = await web.finish(gone, app)
        assert (job.cause, job.attempts) == (Cause.GONE, 2)
    assert web.sites.hits["files.example/b.jpg"] == 1


@pytest.mark.usefixtures("failing")
async def test_other_engine_is_not_tried_when_the_site_has_answered(
    web: Web, media_folder: Path
) -> None:
    photo = media.image(media_folder)
    link = web.sites.serve("https://files.example/a.jpg", photo)
    causes = Cause.GONE, Cause.LOGIN, Cause.PRIVATE, Cause.TOO_LARGE, Cause.REGION
    async with web.running(failing__cause=Cause.INTERNAL) as app:
        for cause in failing_with(app, *causes):
            job = await web.finish(link, app)
            assert (job.cause, job.attempts, job.error) == (cause, 1, SENTENCES[cause])
    assert not web.sites.requests


# Nobody there, of those who are dialled without the proxy


async def attempt(web: Web, link: str, engine: str, timeout_s: float = 60) -> JobFailed:
    platform = files(engine, timeout_s)
    got = await web.fetch(
        link, platform=platform, child_runner__allow_private_addresses=True
    )
    assert got.error, got
    return got.error


def is_network(error: JobFailed, cause: Cause = Cause.NETWORK) -> bool:
    """Whether it is that failure, in plain words for the member, all in the log."""
    if error.cause is not cause or len(error.detail) < 10:
        raise AssertionError(f"{error.cause}: {error.detail}")
    return str(error) == SENTENCES[cause]


@both_engines
async def test_name_that_is_not_found(web: Web, engine: str) -> None:
    error = await attempt(web, "http://no-such.invalid/a.mp4", engine)
    assert (error.cause, "no site of that name" in str(error)) == (Cause.NETWORK, True)


@both_engines
async def test_connection_that_is_refused(web: Web, engine: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    error = await attempt(web, f"http://127.0.0.1:{port}/a.mp4", engine)
    assert is_network(error)


@both_engines
async def test_certificate_that_nobody_signed(web: Web, engine: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)

    async def nothing(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.close()

    server = await asyncio.start_server(nothing, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        error = await attempt(web, f"https://localhost:{port}/a.mp4", engine)
    assert error.cause is Cause.NETWORK
    assert "certificate" in error.detail and "certificate is not valid" in str(error)


@both_engines
async def test_server_that_never_answers(web: Web, engine: str) -> None:
    link = web.sites.serve("/silent.mp4", Answer(silent=True))
    error = await attempt(web, link, engine, timeout_s=0.5)
    assert is_network(error, Cause.TIMED_OUT)


@both_engines
async def test_file_that_ends_too_soon(
    web: Web, media_folder: Path, engine: str
) -> None:
    video = media.video(media_folder).read_bytes()
    half = Answer(video[: len(video) // 2], length_bytes=len(video), ranges=False)
    link = web.sites.serve("/half.mp4", half)
    assert is_network(await attempt(web, link, engine))


@both_engines
@pytest.mark.parametrize("content", [b"<html>Hello.</html>", b"\0" * 3000])
async def test_file_that_is_no_media(web: Web, engine: str, content: bytes) -> None:
    headers = {"Content-Type": "video/mp4"}
    link = web.sites.serve("/not-a.mp4", content, headers=headers)
    error = await attempt(web, link, engine)
    assert error.cause in (Cause.NO_MEDIA, Cause.UNSUPPORTED)


# What a member reads

# Each sentence ends with something to do, or says that there is nothing.
NEXT_STEPS = {
    Cause.INVALID_URL: "paste it again",
    Cause.UNSUPPORTED: "cannot download from that site",
    Cause.LOGIN: "Ask the bot's owner",
    Cause.AGE: "Ask the bot's owner",
    Cause.PRIVATE: "Only its followers",
    Cause.GONE: "Check the link",
    Cause.REGION: "not available in the country",
    Cause.RATE_LIMITED: "Try again",
    Cause.NETWORK: "Try again",
    Cause.TOO_LARGE: "owner allows",
    Cause.TIMED_OUT: "Try again",
    Cause.NO_MEDIA: "behind that link",
    Cause.QUOTA: "Try again tomorrow",
    Cause.PERMISSION: "Ask an admin",
    Cause.DISK_FULL: "Ask the bot's owner",
    Cause.ENGINE_OUTDATED: "update the bot's engines",
    Cause.CANCELLED: "",
    Cause.INTERNAL: "log",
}


@pytest.mark.parametrize("cause", list(Cause))
async def test_sentence_is_plain_and_says_what_to_do_next(cause: Cause) -> None:
    sentence = SENTENCES[cause]
    assert NEXT_STEPS[cause] in sentence
    assert sentence[0].isupper() and sentence.endswith(".")
    assert len(sentence) < 200
    assert not set("_<>{}`*\\") & set(sentence), "it is shown in Discord as it is"
    for jargon in ("HTTP", "exception", "gallery-dl", "yt-dlp", "stack", "JSON"):
        assert jargon not in sentence


async def test_outdated_engine_is_named_with_its_version_and_age(web: Web) -> None:
    """A page of TikTok that has not what the extractor looks for."""
    link = "https://www.tiktok.com/@alice/video/7100000000000000009"
    web.sites.serve(link, "<title>TikTok</title><p>All new.</p>")
    got = await web.fetch(link)
    assert got.cause is Cause.ENGINE_OUTDATED
    version, _ = (await web.runner.versions())["yt-dlp"]
    assert f"yt-dlp {version}" in str(got.error)
    assert "days old" in str(got.error)
    assert "update" in str(got.error)


async def test_every_platforms_failures_have_a_known_cause(
    web: Web, apps: Apps
) -> None:
    app = apps[""]
    platforms = app.plugins.registered("platforms")
    assert platforms.keys() == set(PLATFORMS)
    for platform in platforms.values():
        assert all(cause in SENTENCES for _, cause in platform.failures)
