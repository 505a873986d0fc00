"""The platforms: which links are theirs, and what the sites' own words mean.

``python tests/test_platforms.py`` prints how many of both engines' own URLs find an
engine, and a platform; the tests below ask a sample of them.
"""

import re
import time
import tomllib
import warnings
from collections.abc import Iterable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from bossbot_plugins import _child
from bossbot_plugins.platform_router import check_link

import bossbot
from bossbot import STATUS_CAUSES, Cause, Platform, Refused, first_cause, wait_asked_s

HERE = Path(__file__).parent
PLUGINS = HERE.parent / "plugins"
NAMES = ("instagram", "reddit", "tiktok", "twitter", "youtube")
ENGINES = [PLUGINS / "gallery_dl.py", PLUGINS / "yt_dlp.py"]


def table(name: str) -> dict[str, Any]:
    return tomllib.loads((HERE / "urls" / f"{name}.toml").read_text("utf-8"))


ROWS = [
    (name, engine, pasted, normalised)
    for name in NAMES
    for engine, rows in table(name).items()
    for pasted, normalised in rows.items()
]
ANYTHING = table("anything")
REFUSED = table("refused")


def register(name: str, **settings: Any) -> Platform:
    """The platform of a plugin with these settings."""
    module = bossbot.import_plugin(PLUGINS / f"{name}.py")
    [platform] = module.register_platforms(module.Config(**settings))
    assert isinstance(platform, Platform)
    return platform


PLATFORMS = [register(name) for name in NAMES]


def route(link: str) -> tuple[str, str, str]:
    """A pasted link as the core routes it: normalised link, platform, engine."""
    url = check_link(link)
    for platform in PLATFORMS:
        if re.match(platform.pattern, url, re.IGNORECASE):
            url = platform.normalise(url)
            for pattern, engine in platform.routes:
                if re.match(pattern, url):
                    return url, platform.name, engine
            return url, platform.name, platform.engine
    return url, "", ""


def engines_of(urls: Iterable[str]) -> list[str | None]:
    """The engine that gets each link no platform knows, as the core asks for it."""
    request = {"plugins": [str(path) for path in ENGINES], "urls": list(urls)}
    return _child._task_supports(request, lambda **_: None)


def refusal(link: str) -> str:
    with pytest.raises(Refused) as caught:
        route(link)
    return str(caught.value)


# Links


@pytest.mark.parametrize(("name", "engine", "pasted", "normalised"), ROWS)
def test_link_goes_to_its_platform_and_engine(
    name: str, engine: str, pasted: str, normalised: str
) -> None:
    assert route(pasted) == (normalised, name, engine)
    assert route(normalised) == (normalised, name, engine), "a second time"


def test_engines_know_the_links_that_platforms_give_them() -> None:
    engines = {
        engine.name: engine
        for path in ENGINES
        for engine in _child.load_engines(path).values()
    }
    unknown = [
        url
        for _, engine, _, url in ROWS
        # A manifest is fetched as it is.
        if not engines[engine].supports(url) and not url.endswith(".mpd")
    ]
    assert unknown == []


@pytest.mark.parametrize(("link", "words"), REFUSED["feeds"].items())
def test_feed_of_the_hosts_own_account_is_refused(link: str, words: str) -> None:
    assert words in refusal(link)


@pytest.mark.parametrize(("link", "words"), REFUSED["links"].items())
def test_what_is_no_plain_link_is_refused(link: str, words: str) -> None:
    assert words in refusal(link)


@pytest.mark.parametrize("link", ANYTHING["lookalikes"])
def test_lookalike_is_no_platforms_link(link: str) -> None:
    assert route(link)[1] == ""


@pytest.mark.parametrize("platform", PLATFORMS, ids=NAMES)
def test_example_is_normal_or_becomes_so(platform: Platform) -> None:
    url, name, engine = route(platform.example)
    assert (name, engine) == (platform.name, platform.engine)
    assert route(url)[0] == url


@pytest.mark.parametrize("platform", PLATFORMS, ids=NAMES)
def test_no_link_is_slow_to_match(platform: Platform) -> None:
    """A pattern that backtracks would take seconds, not milliseconds."""
    site = platform.example.split("/")[2]
    pieces = ["a", "a.", "/", "/a", "-", "%2F", "&v=", "list=", "@a", "r/friends", "+"]
    started = time.perf_counter()
    for piece in pieces:
        filler = piece * (2000 // len(piece))
        for url in (
            f"https://{filler}",
            f"https://{site}/{filler}!",
            f"https://{site}/?{filler}",
        ):
            if re.match(platform.pattern, url, re.IGNORECASE):
                try:
                    platform.normalise(url)
                except Refused:
                    pass
        for pattern, _ in platform.failures:
            re.search(pattern, filler * 4)
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("engine", ["gallery-dl", "yt-dlp"])
def test_other_links_go_to_the_engine_with_an_extractor_of_its_own(engine: str) -> None:
    urls = [check_link(link) for link in ANYTHING[engine]]
    assert [route(url)[1] for url in urls] == [""] * len(urls)
    assert dict(zip(urls, engines_of(urls), strict=True)) == dict.fromkeys(urls, engine)


def test_link_that_no_extractor_knows_goes_to_yt_dlps_generic_one() -> None:
    urls = [check_link(link) for link in ANYTHING["generic"]]
    assert engines_of(urls) == ["yt-dlp"] * len(urls)


# Settings


def test_named_cookie_goes_to_the_site_alone() -> None:
    for name, cookie, domain in [
        ("twitter", "auth_token", ".x.com"),
        ("reddit", "reddit_session", ".reddit.com"),
        ("instagram", "sessionid", ".instagram.com"),
        ("tiktok", "sessionid", ".tiktok.com"),
    ]:
        platform = register(name, **{cookie: "planted-secret"})
        value = platform.cookies[cookie]
        assert value is not None and value.get_secret_value() == "planted-secret"
        assert platform.cookies_domain == domain
        assert "planted-secret" not in repr(platform)


@pytest.mark.parametrize("name", NAMES)
def test_hosts_own_settings_reach_the_platform(name: str, tmp_path: Path) -> None:
    first = next(iter(register(name).options))
    platform = register(
        name,
        cookies_file=tmp_path / "cookies.txt",
        proxy="socks5://127.0.0.1:9050",
        sleep_request_s=1.5,
        options={first: "the host's", "more": 1},
    )
    assert platform.cookies_file == tmp_path / "cookies.txt"
    assert (platform.proxy, platform.sleep_request_s) == (
        "socks5://127.0.0.1:9050",
        1.5,
    )
    assert (platform.options[first], platform.options["more"]) == ("the host's", 1)


def test_thread_is_asked_for_only_with_a_login() -> None:
    conversations = "extractor.twitter.tweet.conversations"
    assert conversations not in register("twitter", thread=True).options
    assert register("twitter", thread=True, auth_token="x").options[conversations]


# Failures

# Platform, cause, and the words of gallery-dl, of yt-dlp and of the site in theirs.
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
def test_the_sites_words_have_their_cause(name: str, cause: str, text: str) -> None:
    failures = PLATFORMS[NAMES.index(name)].failures
    assert first_cause(text, failures) == Cause(cause)


@pytest.mark.parametrize("platform", PLATFORMS, ids=NAMES)
def test_no_failure_row_is_without_an_example(platform: Platform) -> None:
    texts = "\n".join(text for name, _, text in SAID_ROWS if name == platform.name)
    assert [row for row in platform.failures if not first_cause(texts, [row])] == []


@pytest.mark.parametrize(
    ("statuses", "cause"),
    [
        ((401, 402, 403, 407), Cause.LOGIN),
        ((400, 404, 410, 414), Cause.GONE),
        ((408, 504, 524), Cause.TIMED_OUT),
        ((420, 429), Cause.RATE_LIMITED),
        ((451,), Cause.REGION),
        ((304, 405, 406, 418, 422, 499), Cause.ENGINE_OUTDATED),
        ((500, 502, 503, 520, 599, 999), Cause.NETWORK),
    ],
)
def test_status_has_its_cause(statuses: tuple[int, ...], cause: Cause) -> None:
    for status in statuses:
        assert first_cause(str(status), STATUS_CAUSES) == cause


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"Retry-After": "17"}, 17),
        ({"Retry-After": "86400"}, 86400),
        ({"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, 0),
        ({"Retry-After": "9" * 5000}, 999_999_999),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": f"31 Dec {'9' * 22} 1:1:1"}, None),
        ({"Retry-After": "Fri, 39 Dec 19999 1:1:1"}, None),
        ({"Retry-After": "Fri Dec 31 23:59:59 1999"}, 0),
        ({"x-rate-limit-reset": "17.5"}, 0),
        ({"x-rate-limit-reset": "inf"}, None),
        ({"x-rate-limit-reset": "9" * 400}, None),
        ({}, None),
    ],
)
def test_wait_is_as_the_headers_ask(
    headers: dict[str, str], wait_s: float | None
) -> None:
    assert wait_asked_s(headers) == wait_s


def test_wait_may_be_until_a_moment() -> None:
    then = time.time() + 100
    for headers in (
        {"Retry-After": formatdate(then, usegmt=True)},
        {"Retry-After": time.asctime(time.gmtime(then))},
        {"x-rate-limit-reset": str(int(then))},
    ):
        assert wait_asked_s(headers) == pytest.approx(100, abs=30)


# Coverage: what the engines themselves name as their URLs


def own_urls() -> Iterator[tuple[str, str]]:
    """(extractor, URL) of every test URL of yt-dlp and example of gallery-dl."""
    from gallery_dl import extractor
    from yt_dlp.extractor import gen_extractors

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # yt-dlp's tests have old escapes
        for ie in gen_extractors():
            for case in ie.get_testcases(include_onlymatching=True):
                yield ie.IE_NAME, case["url"]
    for cls in extractor.extractors():
        yield f"{cls.category}:{cls.subcategory}", cls.example


def links() -> dict[str, str]:
    """Own URLs that a member can paste at all, with their extractor; once each."""
    return {
        url: name
        for name, url in own_urls()
        if re.match(r"https?://", url, re.IGNORECASE)
    }


def missed_by_platforms(urls: dict[str, str]) -> tuple[list[str], int]:
    """Which URLs of the five sites have no platform, and how many there are.

    Refused ones count for neither: they are feeds of the account that is logged in.
    """
    missed, known = [], 0
    for url, name in urls.items():
        if re.match(
            rf"(?:vm\.)?(?:{'|'.join(NAMES)})\b(?!:shortener)", name, re.IGNORECASE
        ):
            try:
                platform = route(url)[1]
            except Refused:
                continue
            known += 1
            if not platform:
                missed.append(url)
    return missed, known


def missed_by_engines(urls: dict[str, str]) -> list[str]:
    """Which URLs no extractor but the generic one would get, platforms aside."""
    missed, others = [], []
    for url in urls:
        try:
            if not route(url)[1]:
                others.append(check_link(url))
        except Refused:
            missed.append(url)
    engines = [e for path in ENGINES for e in _child.load_engines(path).values()]
    return missed + [u for u in others if not any(e.supports(u) for e in engines)]


def test_platforms_get_the_engines_own_urls_of_their_sites() -> None:
    missed, known = missed_by_platforms(links())
    assert known > 200
    assert len(missed) / known < 0.05, missed


def test_engines_get_their_own_urls() -> None:
    sample = dict(list(links().items())[::20])
    missed = missed_by_engines(sample)
    assert len(missed) / len(sample) < 0.03, missed


if __name__ == "__main__":
    urls = links()
    missed, known = missed_by_platforms(urls)
    print(f"platforms: {1 - len(missed) / known:.2%} of {known}; not {missed}")
    missed = missed_by_engines(urls)
    print(f"engines: {1 - len(missed) / len(urls):.2%} of {len(urls)}; not {missed}")
