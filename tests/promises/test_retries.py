"""Tries: up to three for what passes, and the other engine after a wrong guess."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import media
import pytest
from engine_lab import resetting_server
from platform_support import Apps, Web
from routing import route_all
from sites import Answer, in_turn

from bossbot import SENTENCES, App, Cause, Job, JobFailed, Platform, Route

pytest_plugins = ("platform_fixtures",)
pytestmark = pytest.mark.asyncio(loop_scope="session")
both_engines = pytest.mark.parametrize("engine", ["gallery-dl", "yt-dlp"])
LINK = "https://files.example/a.mp4"


def files(engine: str) -> Platform:
    return Platform(
        "files",
        r"https?://(files|127)\.",
        "https://files.example/a.mp4",
        engine,
        options={"downloader.retries": 0},  # between its own, gallery-dl waits for 1 s
    )


@contextmanager
def quick(app: App) -> Iterator[list[float]]:
    """No waits; those that there would have been."""
    waits: list[float] = []
    worker: Any = app.worker
    retry_in = worker._retry_in

    async def remembered(job: Job, error: JobFailed) -> float | None:
        wait_s = await retry_in(job, error)
        waits.extend([wait_s] if wait_s is not None else [])
        return wait_s if wait_s is None else 0.0

    worker._retry_in = remembered
    try:
        yield waits
    finally:
        worker._retry_in = retry_in


async def completed(web: Web, app: App, link: str, how: str) -> Job | JobFailed:
    """What comes of a link through the queue, or as the command ``get`` does it."""
    if how == "queue":
        return await web.finish(link, app)
    url, platform, engine = app.router.route(link)
    job = Job(id="0123456789", url=url, platform=platform, engine=engine)
    try:
        await app.worker.complete(job, lambda progress: None)
    except JobFailed as error:
        return error
    finally:
        await app.storage.forget_attempt(job)
    return job


# What passes


@both_engines
@pytest.mark.parametrize(
    ("how", "statuses"), [("queue", (502, 504, 520)), ("get", (503,))]
)
async def test_server_that_fails_twice_is_asked_a_third_time(
    web: Web,
    apps: Apps,
    media_folder: Path,
    engine: str,
    how: str,
    statuses: tuple[int, ...],
) -> None:
    app = apps[engine]
    with quick(app) as waits:
        for status in statuses:
            busy = Answer("Sorry.", status)
            web.sites.serve(LINK, in_turn(busy, busy, media.video(media_folder)))
            job = await completed(web, app, LINK, how)
            assert isinstance(job, Job) and job.attempts == 3
            first, second = waits
            assert 1 <= first <= 2 and 4 <= second <= 8
            waits.clear()


@both_engines
@pytest.mark.parametrize("status", [429, 503])
async def test_wait_that_the_site_asks_for_is_kept(
    web: Web, apps: Apps, media_folder: Path, engine: str, status: int
) -> None:
    busy = Answer("Slow down.", status, {"Retry-After": "20"})
    web.sites.serve(LINK, in_turn(busy, busy, media.video(media_folder)))
    app = apps[engine]
    with quick(app) as waits:
        job = await web.finish(LINK, app)
    assert (job.status, job.attempts) == ("completed", 3)
    assert 21 <= waits[0] <= 22 and 24 <= waits[1] <= 28


@both_engines
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("asked", "tries"), [("31", 2), ("61", 1)])
async def test_waits_are_a_minute_in_all(
    web: Web, apps: Apps, engine: str, status: int, asked: str, tries: int
) -> None:
    web.sites.serve(LINK, Answer("Slow down.", status, {"Retry-After": asked}))
    app = apps[engine]
    with quick(app):
        job = await web.finish(LINK, app)
    assert (job.status, job.attempts) == ("failed", tries)
    assert web.sites.hits["files.example/a.mp4"] == tries
    assert job.cause is (Cause.RATE_LIMITED if status == 429 else Cause.NETWORK)


@both_engines
@pytest.mark.parametrize("asked", ["1", "30"])
async def test_short_wait_is_not_told_to_a_member(
    web: Web, apps: Apps, engine: str, asked: str
) -> None:
    web.sites.serve(LINK, Answer("Slow down.", 429, {"Retry-After": asked}))
    app = apps[engine]
    with quick(app):
        job = await web.finish(LINK, app)
    assert job.error == SENTENCES[Cause.RATE_LIMITED]
    assert not any(char.isdigit() for char in job.error)


@both_engines
async def test_short_body_is_fetched_again(
    web: Web, apps: Apps, media_folder: Path, engine: str
) -> None:
    video = media.video(media_folder).read_bytes()
    half = Answer(video[: len(video) // 2], length_bytes=len(video), ranges=False)
    short = {"gallery-dl": [half] * 2, "yt-dlp": [half] * 6}[engine]
    web.sites.serve(LINK, in_turn(*short, video))
    app = apps[engine]
    with quick(app):
        job = await web.finish(LINK, app)
        assert job.status == "completed" and job.attempts >= 2
        assert web.kept(job, app) == [video]


async def test_empty_body_is_fetched_again(
    web: Web, apps: Apps, media_folder: Path
) -> None:
    empty = Answer(b"", headers={"Content-Type": "video/mp4"})
    web.sites.serve(LINK, in_turn(empty, media.video(media_folder)))
    app = apps["gallery-dl"]
    with quick(app):
        job = await web.finish(LINK, app)
    assert (job.status, job.attempts) == ("completed", 2)


@both_engines
async def test_connection_that_is_reset_may_pass(web: Web, engine: str) -> None:
    with resetting_server() as address:
        got = await web.fetch(
            f"{address}/a.mp4",
            platform=files(engine),
            child_runner__allow_private_addresses=True,
        )
    assert got.error and got.cause is Cause.NETWORK, got
    assert got.error.retry_after_s == 0


async def test_waits_grow_and_differ(web: Web) -> None:
    app = web.app()
    worker: Any = app.worker
    error = JobFailed(Cause.NETWORK, retry_after_s=0.0)
    seen: list[set[float]] = [set(), set()]
    for number in range(20):
        job = Job(id=f"{number:010}", url="https://a.example/")
        for attempt in (1, 2):
            job.attempts = attempt
            seen[attempt - 1].add(await worker._retry_in(job, error))
        job.attempts = 3
        assert await worker._retry_in(job, error) is None
        worker._told(job, error)
    assert len(seen[0]) == len(seen[1]) == 20
    assert max(seen[0]) < min(seen[1]) and not worker._tries


# The other engine


async def test_page_named_like_a_file_is_tried_as_a_page(
    web: Web, apps: Apps, media_folder: Path
) -> None:
    video = media.video(media_folder)
    web.sites.serve(
        "https://files.example/real", video, headers={"Content-Type": "video/mp4"}
    )
    page = '<html><title>A clip</title><video src="/real"></video></html>'
    web.sites.serve(LINK, page)
    app = apps[""]
    job = await web.finish(LINK, app)
    assert (job.status, job.engine) == ("completed", "yt-dlp")
    assert web.kept(job, app) == [video.read_bytes()]


async def test_page_without_media_says_so(web: Web, apps: Apps) -> None:
    web.sites.serve(LINK, "<html>Log in.</html>")
    app = apps[""]
    job = await web.finish(LINK, app)
    assert (job.status, job.cause, job.attempts) == ("failed", Cause.NO_MEDIA, 2)
    assert job.error == SENTENCES[Cause.NO_MEDIA]


async def test_single_video_goes_before_a_profile(apps: Apps) -> None:
    engines = {
        "https://vk.com/video-77521_162222515": "yt-dlp",
        "https://vk.com/clip30014565_456240946": "yt-dlp",
        "https://vk.com/durov": "gallery-dl",
        "https://vk.com/album-1_2": "gallery-dl",
        "https://vk.com/wall-23538238_35": "gallery-dl",
        "https://api.spreaker.com/download/episode/12534508/swm_ep15.mp3": "yt-dlp",
        "https://imgur.com/user/someone": "gallery-dl",
        "https://imgur.com/A61SaA1": "gallery-dl",
        "https://gofile.io/d/abcDEF": "gallery-dl",
        "https://files.example/a.mp4": "gallery-dl",
        "https://files.example/page": "yt-dlp",
        "https://vimeo.com/76979871": "yt-dlp",
    }
    found = await route_all(apps[""], [*engines])
    routed = [one.engine for one in found if isinstance(one, Route)]
    assert dict(zip(engines, routed, strict=True)) == engines


@pytest.mark.parametrize(
    ("without", "others"),
    [
        (
            "gallery-dl",
            {
                # A profile, or a file by its mere ending: the others are asked.
                "https://vk.com/durov": ("yt-dlp", "yt-dlp"),
                "https://files.example/a.mp4": ("yt-dlp", "yt-dlp"),
                "https://www.facebook.com/video.php?v=637842556329505": (
                    "yt-dlp",
                    "yt-dlp",
                ),
                # One post for both.
                "https://imgur.com/A61SaA1": ("yt-dlp", ""),
                # Nobody else.
                "https://www.artstation.com/artwork/abcdef": ("", ""),
            },
        ),
        (
            "yt-dlp",
            {
                # A video for one, a profile for the other.
                "https://vk.com/video-77521_162222515": ("gallery-dl", "gallery-dl"),
                "https://files.example/page": ("", ""),
                "https://vimeo.com/76979871": ("", ""),
            },
        ),
    ],
)
async def test_who_is_asked_after_a_failure(
    apps: Apps, without: str, others: dict[str, tuple[str, str]]
) -> None:
    """Of any cause, and after an answer of the site."""
    supports, links = apps[""].runner.supports, [*others]
    any_cause = await supports(links, without=without)
    after_answer = await supports(links, without=without, after_guess=True)
    found = zip(any_cause, after_answer, strict=True)
    assert dict(zip(links, found, strict=True)) == others


async def test_only_who_knows_the_site_is_named_if_that_is_asked(web: Web) -> None:
    links = {
        "https://vimeo.com/76979871": "yt-dlp",
        "https://imgur.com/A61SaA1": "gallery-dl",
        "https://www.deviantart.com/somebody": "gallery-dl",
        "https://files.example/a.mp4": "",  # by its mere ending
        "https://files.example/a.jpg?x=1": "",
        "https://files.example/page": "",
        "https://discord.com/": "",
    }
    assert await web.app().runner.supports([*links], own=True) == [*links.values()]


@pytest.mark.parametrize("status", [403, 404])
async def test_answer_to_a_guess_is_not_the_last_word(
    web: Web, apps: Apps, media_folder: Path, status: int
) -> None:
    """A site that answers only whom it knows."""
    video = media.video(media_folder)
    web.sites.serve(LINK, in_turn(Answer("No.", status), video))
    app = apps[""]
    job = await web.finish(LINK, app)
    assert (job.status, job.attempts, job.engine) == ("completed", 2, "yt-dlp")


async def test_first_reason_is_told_when_the_other_engine_has_none(
    web: Web, apps: Apps
) -> None:
    """The page itself has no video: the login was the reason."""
    refused = Answer("No.", 403)
    web.sites.serve(LINK, in_turn(refused, "<html>Log in.</html>"))
    app = apps[""]
    job = await web.finish(LINK, app)
    assert (job.attempts, job.cause) == (2, Cause.LOGIN)
