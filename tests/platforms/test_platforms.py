"""The platforms: their links, routed by the real router, their settings, and the
phrases of their sites.

``PYTHONPATH=.:tests/support python tests/platforms/test_platforms.py`` prints how many
of both engines' own URLs find an engine, and a platform; the tests below try a sample.
"""

import asyncio
import dataclasses
import re
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bossbot_plugins._failures import first_cause
from engine_urls import links
from routing import route, route_all

from bossbot import OURS, App, Cause, Platform, Refused, Route, Settings

URLS = Path(__file__).parent / "urls"
NAMES = ("instagram", "reddit", "tiktok", "twitter", "youtube")
NEEDED = (
    *("engines", "platforms", "parts/platform_router.py", "parts/_programs.py"),
    "processors/_plan.py",
)


def table(name: str) -> dict[str, Any]:
    return tomllib.loads((URLS / f"{name}.toml").read_text("utf-8"))


ROWS = [
    (name, engine, pasted, normalised)
    for name in NAMES
    for engine, rows in table(name).items()
    for pasted, normalised in rows.items()
]
ANYTHING = table("anything")
REFUSED = table("refused")


def make_app(folder: Path, **plugins: dict[str, Any]) -> App:
    """An app with the real platforms, engines and router; keywords are settings of the
    platforms. The engines answer in this process whether they support a link."""
    ours, own = folder / "ours", folder / "own"
    if not ours.exists():
        own.mkdir()
        for name in NEEDED:
            (ours / name).parent.mkdir(parents=True, exist_ok=True)
            (ours / name).symlink_to(OURS / name)
    app = App(Settings(data_dir=folder, plugins_dir=own, plugins=plugins), ours=ours)
    app.plugins.load()
    assert {p.stem: p.off for p in app.plugins.all.values() if p.off} == {}

    async def supports(urls: Sequence[str], without: str = "") -> list[str]:
        engines = app.plugins.registered("engines").values()
        generic = next((engine.name for engine in engines if engine.generic), "")
        return [
            next((engine.name for engine in engines if engine.supports(url)), generic)
            for url in urls
        ]

    vars(app)["runner"] = SimpleNamespace(supports=supports)
    return app


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("app")


@pytest.fixture(scope="module")
def app(folder: Path) -> App:
    return make_app(folder)


def platform_of(app: App, name: str) -> Platform:
    platform = app.plugins.registered("platforms")[name]
    assert isinstance(platform, Platform)
    return platform


async def refusal(app: App, link: str) -> str:
    with pytest.raises(Refused) as caught:
        await route(app, link)
    return str(caught.value)


# Links


@pytest.mark.parametrize(("name", "engine", "pasted", "normalised"), ROWS)
async def test_link_goes_to_its_platform_and_engine(
    app: App, name: str, engine: str, pasted: str, normalised: str
) -> None:
    assert await route(app, pasted) == Route(normalised, name, engine)
    assert await route(app, normalised) == Route(normalised, name, engine), "again"


def test_engines_support_the_links_of_their_platforms(app: App) -> None:
    engines = app.plugins.registered("engines")
    unsupported = [
        url
        for _, engine, _, url in ROWS
        # A manifest is fetched as it is.
        if not engines[engine].supports(url) and not url.endswith(".mpd")
    ]
    assert unsupported == []


@pytest.mark.parametrize(("link", "words"), REFUSED["feeds"].items())
async def test_feed_of_the_bots_account_is_refused(
    app: App, link: str, words: str
) -> None:
    assert words in await refusal(app, link)


@pytest.mark.parametrize(("link", "words"), REFUSED["links"].items())
async def test_anything_but_a_plain_link_is_refused(
    app: App, link: str, words: str
) -> None:
    assert words in await refusal(app, link)


async def test_refusal_names_the_platform(app: App) -> None:
    feed, no_link = await route_all(app, ["https://x.com/home", "x.com/home"])
    assert isinstance(feed, Refused) and feed.platform == "twitter"
    assert isinstance(no_link, Refused) and no_link.platform == ""


async def test_broken_platform_refuses_only_its_own_links(folder: Path) -> None:
    app = make_app(folder)
    [twitter] = app.plugins.all["twitter"].platforms
    broken = dataclasses.replace(twitter, normalise=lambda url: str(1 / 0))
    app.plugins.all["twitter"].platforms = [broken]
    app.plugins.changed()
    links = ["https://x.com/nasa/status/1", "https://redd.it/90bu6w"]
    refused, route = await route_all(app, links)
    assert isinstance(refused, Refused) and refused.platform == "twitter"
    assert isinstance(route, Route) and route.platform == "reddit"


@pytest.mark.parametrize("link", ANYTHING["lookalikes"])
async def test_lookalike_belongs_to_no_platform(app: App, link: str) -> None:
    assert (await route(app, link)).platform == ""


@pytest.mark.parametrize("name", NAMES)
async def test_example_is_normal_or_becomes_so(app: App, name: str) -> None:
    platform = platform_of(app, name)
    url, found, engine = await route(app, platform.example)
    assert (found, engine) == (name, platform.engine)
    assert (await route(app, url)).url == url


@pytest.mark.parametrize("name", NAMES)
def test_no_link_is_slow_to_match(app: App, name: str) -> None:
    """A pattern that backtracks would take seconds, not milliseconds."""
    platform = platform_of(app, name)
    site = platform.example.split("/")[2]
    pieces = ["a", "a.", "/", "/a", "-", "%2F", "&v=", "list=", "@a", "r/friends", "+"]
    started = time.process_time()
    for piece in pieces:
        filler = piece * (2000 // len(piece))
        for url in (
            f"https://{filler}",
            f"https://{site}/{filler}!",
            f"https://{site}/?{filler}",
        ):
            if re.match(platform.pattern, url, re.IGNORECASE):
                try:
                    platform.engine_for(platform.normalise(url))
                except Refused:
                    pass
        for pattern, _ in platform.failures:
            re.search(pattern, filler * 4)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("engine", ["gallery-dl", "yt-dlp"])
async def test_other_link_goes_to_the_engine_with_an_extractor(
    app: App, engine: str
) -> None:
    routes = {link: await route(app, link) for link in ANYTHING[engine]}
    wrong = {
        link: route
        for link, route in routes.items()
        if (route.platform, route.engine) != ("", engine)
    }
    assert wrong == {}


async def test_link_without_an_extractor_goes_to_the_generic_engine(app: App) -> None:
    routes = [await route(app, link) for link in ANYTHING["generic"]]
    assert {(route.platform, route.engine) for route in routes} == {("", "yt-dlp")}


async def test_without_its_engine_a_platform_gets_another(folder: Path) -> None:
    app = make_app(folder)
    app.plugins.switch_off("yt_dlp", "for this test")
    found = await route_all(app, ["https://vm.tiktok.com/ZTR45GpSF/"])
    assert found == [Route("https://vm.tiktok.com/ZTR45GpSF/", "tiktok", "gallery-dl")]


# Settings


@pytest.mark.parametrize(
    ("name", "cookie", "domain"),
    [
        ("twitter", "auth_token", ".x.com"),
        ("reddit", "reddit_session", ".reddit.com"),
        ("instagram", "sessionid", ".instagram.com"),
        ("tiktok", "sessionid", ".tiktok.com"),
    ],
)
def test_named_cookie_goes_only_to_its_site(
    folder: Path, name: str, cookie: str, domain: str
) -> None:
    app = make_app(folder, **{name: {cookie: "planted-secret"}})
    platform = platform_of(app, name)
    value = platform.cookies[cookie]
    assert value is not None and value.get_secret_value() == "planted-secret"
    assert platform.cookies_domain == domain
    assert "planted-secret" not in repr(platform)


@pytest.mark.parametrize("name", NAMES)
def test_owners_settings_reach_the_platform(
    folder: Path, app: App, name: str, tmp_path: Path
) -> None:
    first, *others = platform_of(app, name).options.items()
    values = {
        "cookies_file": tmp_path / "cookies.txt",
        "proxy": "socks5://127.0.0.1:9050",
        "sleep_request_s": 1.5,
        "options": {first[0]: "the owner's", "more": 1},
    }
    platform = platform_of(make_app(folder, **{name: values}), name)
    assert platform.cookies_file == tmp_path / "cookies.txt"
    assert platform.proxy == "socks5://127.0.0.1:9050"
    assert platform.sleep_request_s == 1.5
    assert platform.options == {first[0]: "the owner's", **dict(others), "more": 1}


@pytest.mark.parametrize(
    ("login", "whole"),
    [({}, None), ({"auth_token": "x"}, True), ({"cookies_file": "x.txt"}, True)],
)
def test_thread_is_fetched_only_with_a_login(
    folder: Path, login: dict[str, Any], whole: bool | None
) -> None:
    app = make_app(folder, twitter={"thread": True, **login})
    options = platform_of(app, "twitter").options
    assert options.get("extractor.twitter.tweet.conversations") is whole


@pytest.mark.parametrize("login", [{}, {"auth_token": "x"}])
def test_thread_can_be_asked_for_with_a_login(
    folder: Path, login: dict[str, Any]
) -> None:
    platform = platform_of(make_app(folder, twitter=login), "twitter")
    assert not any("conversations" in name for name in platform.options)
    assert bool(platform.thread_options) is bool(login)


# Failures

# Platform, cause, and a phrase of the site as gallery-dl or yt-dlp passes it on.
SAID = """
twitter   age           AuthRequired: NSFW Tweet
twitter   age           "Age-restricted adult content. This content might not be..."
twitter   age           Tweet unavailable ('NsfwViewerIsUnderage')
twitter   private       Protected Tweet
twitter   private       nasa's Tweets are protected
twitter   private       nasa blocked your account
twitter   gone          'Unavailable'
twitter   gone          Tweet unavailable ('Suspended')
twitter   gone          404 Not Found (_Missing: No status found with that ID)
twitter   gone          User has been suspended
twitter   gone          Broadcast no longer exists
twitter   gone          Twitter Space ended and replay is disabled
twitter   region        '@nasa's account has been withheld in Turkey' (1)
twitter   login         'Could not authenticate you'
twitter   login         Account temporarily locked
twitter   login         authenticated cookies needed to access this timeline
twitter   rate_limited  Rate limit exceeded

reddit    login         whoa there, pardner! Your request has been blocked due to a
reddit    login         "You've been blocked by network security."
reddit    login         Account authentication is required
reddit    login         Quarantined subreddit; an account that has opted in is required
reddit    rate_limited  API rate limit exceeded
reddit    private       Insufficient privileges to access this resource
reddit    private       Private subreddit; an account that has been approved is required
reddit    gone          Suspended User
reddit    gone          gallery hrrh23: deleted
reddit    gone          [removed]

instagram login         HTTP redirect to login page (https://www.instagram.com/accounts/
instagram login         HTTP redirect to challenge page (https://www.instagram.com/cha
instagram login         Failed to load API data ('checkpoint_required')
instagram login         Instagram sent an empty media response. Check if this post is
instagram private       nasa's posts are private
instagram private       '400 Bad Request' for 'https://www.instagram.com/api/v1/media/1/info/'
instagram gone          '404 Not Found' for 'https://www.instagram.com/api/v1/media/1/info/'
instagram rate_limited  '429 Too Many Requests' for 'https://www.instagram.com/api/v1/m
instagram age           Restricted Video: You must be 18 years old or over to see this

youtube   age           Sign in to confirm your age. This video may be inappropriate for
youtube   login         Sign in to confirm you’re not a bot. Use --cookies
youtube   login         Sign in to confirm you're not a bot. Use --cookies
youtube   login         This video requires payment to watch
youtube   private       Private video. Sign in if you've been granted access
youtube   private       Join this channel to get access to members-only content
youtube   private       This video is available to this channel's members on level: A
youtube   gone          Video unavailable. This video is unavailable
youtube   gone          This video has been removed by the uploader
youtube   gone          This video is no longer available because the YouTube account
youtube   region        Video unavailable. The uploader has not made this video available in your country
youtube   region        This video contains content from A, who has blocked it in your country
youtube   rate_limited  This content isn't available, try again later. The current session
youtube   no_media      This live event will begin in 3 days.
youtube   no_media      The channel is not currently live
youtube   invalid_url   Incomplete YouTube ID N_708QY7Ob. URL https://x looks truncated.
youtube   unsupported   This video is DRM protected
youtube   engine_outdated Failed to extract any player response
youtube   engine_outdated Only images are available for download.

tiktok    gone          Video not available, status code 10231
tiktok    gone          https://x: Region locked - Try downloading with a VPN/proxy
tiktok    gone          https://x: User account could not be found
tiktok    region        Your IP address is blocked from accessing this post
tiktok    region        https://x: Requested post not available
tiktok    private       You do not have permission to view this post. Log into an account
tiktok    private       https://x: Login required to access this post
tiktok    private       https://x: Received unknown error code 10216 ('')
tiktok    login         TikTok is requiring login for access to this content
tiktok    login         HTTP redirect to login page ('https://www.tiktok.com/login')
tiktok    age           This post may not be comfortable for some audiences. Log in for
tiktok    engine_outdated Unable to solve JS challenge
tiktok    engine_outdated Unable to extract universal data for rehydration
"""
SAID_ROWS = [line.split(maxsplit=2) for line in SAID.splitlines() if line]


@pytest.mark.parametrize(("name", "cause", "text"), SAID_ROWS)
def test_a_phrase_of_the_site_has_its_cause(
    app: App, name: str, cause: str, text: str
) -> None:
    assert first_cause(text, platform_of(app, name).failures) == Cause(cause)


@pytest.mark.parametrize("name", NAMES)
def test_every_failure_row_has_an_example(app: App, name: str) -> None:
    texts = "\n".join(text for row_name, _, text in SAID_ROWS if row_name == name)
    rows = platform_of(app, name).failures
    assert [row for row in rows if not first_cause(texts, [row])] == []


# Coverage: the URLs that the engines themselves name


async def missed_by_platforms(app: App, urls: dict[str, str]) -> tuple[list[str], int]:
    """The URLs of the five sites without a platform, and how many URLs there are.

    Refused ones do not count: they are feeds of the account that is logged in.
    """
    sites = rf"(?:vm\.)?(?:{'|'.join(NAMES)})\b(?!:shortener)"
    own = [url for url, name in urls.items() if re.match(sites, name, re.IGNORECASE)]
    routes = [r for r in await route_all(app, own) if isinstance(r, Route)]
    return [route.url for route in routes if not route.platform], len(routes)


async def missed_by_engines(app: App, urls: dict[str, str]) -> list[str]:
    """The URLs that are refused, or that only the generic extractor would take."""
    engines = app.plugins.registered("engines").values()
    return [
        url
        for url, route in zip(urls, await route_all(app, [*urls]), strict=True)
        if isinstance(route, Refused)
        or not (route.platform or any(e.supports(route.url) for e in engines))
    ]


async def test_platforms_get_the_engines_own_urls_of_their_sites(app: App) -> None:
    missed, known = await missed_by_platforms(app, links())
    assert known > 200
    assert len(missed) / known < 0.05, missed


async def test_engines_get_their_own_urls(app: App) -> None:
    sample = dict(list(links().items())[::20])
    missed = await missed_by_engines(app, sample)
    assert len(missed) / len(sample) < 0.03, missed


async def print_coverage() -> None:
    with tempfile.TemporaryDirectory() as folder:
        app, urls = make_app(Path(folder)), links()
        missed, known = await missed_by_platforms(app, urls)
        print(f"platforms: {1 - len(missed) / known:.2%} of {known}; not {missed}")
        missed = await missed_by_engines(app, urls)
        print(
            f"engines: {1 - len(missed) / len(urls):.2%} of {len(urls)}; not {missed}"
        )


if __name__ == "__main__":
    sys.exit(asyncio.run(print_coverage()))
