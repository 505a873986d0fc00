"""The engine gallery-dl, against a loopback server and canned answers of sites."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import media
import pytest
import requests
from bossbot_plugins import gallery_dl as engine
from engine_lab import Got, Lab, Labs, resetting_server
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from sites import Answer, Sites, gzip_bomb, in_turn
from sites_canned.reddit import Reddit
from sites_canned.twitter import Twitter

from bossbot import Cause, Request

pytest_plugins = ("engine_fixtures",)

Fetch = Callable[..., Got]


@pytest.fixture
def lab(labs: Labs) -> Lab:
    return labs("gallery_dl")


@pytest.fixture(scope="module")
def shelf(media_folder: Path) -> Path:
    return media_folder


@pytest.fixture
def fetch(lab: Lab, tmp_path: Path) -> Fetch:
    return lambda url, **how: lab.fetch(url, tmp_path, **how)


@pytest.fixture
def browse(fetch: Fetch, sites: Sites) -> Fetch:
    """``fetch`` through the proxy that serves the canned sites."""
    return lambda url, **how: fetch(url, environment=sites.environment, **how)


# ── What arrives ───────────────────────────────────────────────────────────────────


def test_a_file_arrives_under_our_name(fetch: Fetch, sites: Sites, shelf: Path) -> None:
    picture = media.padded_image(shelf, 50_000)
    got = fetch(sites.serve("/holiday%20%40everyone.jpg", picture))
    assert got.cause is None
    assert got.names == got.left == ["job_1_temp_0001.jpg"]
    assert got.contents == [picture.read_bytes()]
    assert got.facts == {"title": "holiday @everyone", "items": 1, "more": False}
    assert got.progress[-1].done_bytes == got.progress[-1].total_bytes == 50_000


def test_requests_without_end_are_ended(
    browse: Fetch, sites: Sites, shelf: Path
) -> None:
    files = [media.image(shelf, 1)] * 20
    got = browse(Twitter(sites).tweet("1001", *files), max_requests=6)
    assert 1 <= len(got.files) < 6
    assert got.failed_items == [Cause.TOO_LARGE]
    assert sum(sites.hits.values()) <= 7  # it is counted when it is answered


@pytest.mark.parametrize(
    ("how", "pieces"),
    [
        ({}, 20),  # each is what must come within 30 s of 600 s
        ({"timeout_s": 60}, 8),
        ({"timeout_s": 6000}, 64),
        ({"engine_options": {"downloader.chunk-size": "512k"}}, 4),
    ],
)
def test_large_file_comes_in_pieces_as_large_as_its_time_allows(
    fetch: Fetch, sites: Sites, shelf: Path, how: dict[str, Any], pieces: int
) -> None:
    picture = media.padded_image(shelf, 2 * 2**20)
    got = fetch(sites.serve("/large.jpg", picture), **how)
    assert got.contents == [picture.read_bytes()]
    assert pieces <= sum(p.done_bytes > 0 for p in got.progress) <= pieces + 1


@pytest.mark.parametrize(
    "name",
    [
        *["..%2f..%2fetc%2fpasswd.jpg", "%00a.jpg", "$HOME.jpg", "\\fE%20print.jpg"],
        *["a" * 600 + ".jpg", "%25(title)s.jpg", "{extension}.jpg", "-o.jpg"],
    ],
)
def test_no_name_leaves_the_folder(
    fetch: Fetch, sites: Sites, shelf: Path, name: str
) -> None:
    sites.serve("/*", media.image(shelf))
    got = fetch(sites.url(f"/{name}"))
    assert got.names == got.left == ["job_1_temp_0001.jpg"]


def test_photos_and_videos_of_a_post_arrive_in_order(
    browse: Fetch, sites: Sites, shelf: Path
) -> None:
    files = [media.image(shelf, 1), media.video(shelf), media.image(shelf, 2)]
    post = Twitter(sites).tweet("1001", *files, text="Hello <b> & @everyone")
    got = browse(post)
    assert got.contents == [file.read_bytes() for file in files]
    assert [Path(name).suffix for name in got.names] == [".jpg", ".mp4", ".jpg"]
    assert got.facts["text"] == "Hello <b> & @everyone"
    assert got.facts["uploader"] == "alice"
    assert got.facts["date"].startswith("2015-01-01T")
    assert (got.facts["items"], got.facts["more"]) == (3, False)


def test_a_post_without_files_is_reported_as_text(browse: Fetch, sites: Sites) -> None:
    options = {"extractor.twitter.text-tweets": True}
    got = browse(
        Twitter(sites).tweet("1002", text="just words"), engine_options=options
    )
    assert (got.cause, got.files) == (None, [])
    assert got.facts["text"] == "just words"


def test_the_remains_of_a_removed_post_are_no_text(browse: Fetch, sites: Sites) -> None:
    failures = [(r"^\[removed\]$", Cause.GONE)]
    got = browse(Reddit(sites).removed("aa1"), failures=failures)
    assert (got.cause, got.facts.get("text", "")) == (Cause.GONE, "")


@pytest.mark.parametrize("adult", [False, True])
def test_a_post_is_reported_as_adult_or_not(
    browse: Fetch, sites: Sites, shelf: Path, adult: bool
) -> None:
    post = Reddit(sites).image("ab1", media.image(shelf), adult=adult)
    assert browse(post).facts["adult"] is adult


def test_one_adult_post_makes_a_listing_adult(
    browse: Fetch, sites: Sites, shelf: Path
) -> None:
    reddit = Reddit(sites)
    for number, adult in enumerate([False, True, False]):
        reddit.image(f"ab{number}", media.image(shelf, number + 1), adult=adult)
    got = browse(reddit.subreddit())
    assert (len(got.files), got.facts["adult"]) == (3, True)


@pytest.mark.parametrize(
    ("adult", "keywords"),
    [
        (True, {"possibly_sensitive": True}),
        (True, {"sensitive": None, "nsfw": "NSFW"}),
        (True, {"x_restrict": 1, "rating": "R-18"}),
        (True, {"rating": "Explicit"}),
        (True, {"rating": "q", "category": "danbooru"}),
        (True, {"rating": "a", "category": "newgrounds"}),
        # Sites of which all is adult, and none that only sound so.
        (True, {"category": "nhentai"}),
        (True, {"category": "redgifs"}),
        (True, {"category": "hentaifoundry", "rating": ""}),
        (False, {"category": "e621", "rating": "s"}),
        (None, {"category": "flickr"}),
        (None, {"category": "twitter"}),
        (False, {"rating": "e", "category": "newgrounds"}),
        (False, {"rating": "s"}),
        (False, {"nsfw": "SFW"}),
        (False, {"x_restrict": 0}),
        (None, {"rating": "4.5"}),
        (None, {"rating": 5}),
        (None, {"sensitive": None}),
        (None, {}),
    ],
)
def test_keywords_that_mark_a_post_as_adult(
    adult: bool | None, keywords: dict[str, Any]
) -> None:
    assert engine.is_adult(keywords) is adult


@pytest.mark.parametrize(
    ("options", "small"),
    [
        ({}, False),
        ({"quality": "720"}, False),
        ({"quality": "480"}, True),
        ({"quality": "audio"}, False),  # of which only the sound is taken later
    ],
)
def test_video_of_a_tweet_is_within_the_quality(
    browse: Fetch, sites: Sites, shelf: Path, options: dict[str, str], small: bool
) -> None:
    best, twitter = media.video(shelf), Twitter(sites)
    twitter.small = media.video(shelf, 2)
    got = browse(twitter.tweet("1004", media.image(shelf), best), options=options)
    assert got.cause is None
    assert got.contents[1] == (twitter.small if small else best).read_bytes()


def test_a_gallery_longer_than_the_cap_is_fetched_up_to_it(
    browse: Fetch, sites: Sites, shelf: Path
) -> None:
    pictures = [media.image(shelf, number) for number in range(1, 7)]
    got = browse(Reddit(sites).gallery("aa2", *pictures), max_items=2)
    assert got.contents == [picture.read_bytes() for picture in pictures[:2]]
    assert got.facts["more"] is True
    assert sum(key.startswith("i.redd.it") for key in sites.hits) == 2


def test_the_number_of_items_is_reported_if_the_site_gives_it(
    browse: Fetch, sites: Sites, shelf: Path
) -> None:
    pictures = [media.image(shelf, number) for number in range(1, 5)]
    got = browse(Twitter(sites).tweet("1003", *pictures), max_items=2)
    assert (len(got.files), got.facts["items"], got.facts["more"]) == (2, 4, True)


def test_a_listing_is_not_paged_through_beyond_the_cap(
    browse: Fetch, sites: Sites, shelf: Path
) -> None:
    reddit, pages = Reddit(sites), 0
    reddit.image("aa1", media.image(shelf))
    page = json.dumps(_listing(sites, reddit))

    def listing(request: Any) -> str:
        nonlocal pages
        pages += 1
        return page

    sites.serve("https://www.reddit.com/r/pics/.json", listing)
    got = browse(reddit.subreddit(), max_items=3)
    assert (len(got.files), got.facts["more"], got.facts["items"]) == (3, True, None)
    assert pages <= 4  # one post each


def _listing(sites: Sites, reddit: Reddit) -> Any:
    """The listing of r/pics, which always has a next page."""
    answer = requests.get(
        "https://www.reddit.com/r/pics/.json",
        proxies={"https": sites.environment["HTTPS_PROXY"]},
        verify=str(sites.authority_file),
    ).json()
    answer["data"]["after"] = "t3_next"
    return answer


def test_one_dead_picture_does_not_lose_the_others(
    browse: Fetch, sites: Sites, shelf: Path
) -> None:
    pictures = [media.image(shelf, number) for number in range(1, 4)]
    got = browse(Reddit(sites).gallery("aa3", *pictures, missing=1))
    assert got.contents == [picture.read_bytes() for picture in pictures[1:]]
    assert got.failed_items == [Cause.GONE]
    assert got.facts["items"] == 3
    assert got.left == got.names


def test_a_link_in_a_post_is_followed_to_a_supported_site(
    browse: Fetch, sites: Sites, shelf: Path
) -> None:
    target = sites.serve("https://pictures.example/a.jpg", media.image(shelf))
    got = browse(Reddit(sites).link("aa4", target))
    assert got.contents == [media.image(shelf).read_bytes()]


@pytest.mark.parametrize(
    "target", ["https://nobody.example/page", "oauth:x", "r:file:///etc/passwd"]
)
def test_a_link_in_a_post_to_another_site_is_unsupported(
    browse: Fetch, sites: Sites, target: str
) -> None:
    got = browse(Reddit(sites).link("aa5", target))
    assert (got.cause, got.left) == (Cause.UNSUPPORTED, [])


def test_a_video_in_two_streams_is_joined(
    browse: Fetch, sites: Sites, shelf: Path
) -> None:
    picture = media.video(shelf, sound=False)
    post = Reddit(sites).video("aa6", picture, media.video(shelf, picture=False))
    got = browse(post)
    assert got.names == got.left == ["job_1_temp_0001.mp4"]
    assert _streams(got.files[0]) == ["audio", "video"]
    assert any(progress.done_bytes for progress in got.progress)


def test_without_ffmpeg_a_video_in_two_streams_is_one_file(
    browse: Fetch, sites: Sites, shelf: Path
) -> None:
    picture = media.video(shelf, sound=False)
    post = Reddit(sites).video("aa7", picture, media.video(shelf, picture=False))
    got = browse(post, programs={})
    assert got.names == got.left == ["job_1_temp_0001.mp4"]
    assert _streams(got.files[0]) == ["video"]


def _streams(path: Path) -> list[str]:
    return sorted(media.facts(path).codecs)


def test_rotated_cookies_are_written_to_the_attempts_own_file(
    browse: Fetch, sites: Sites, tmp_path: Path
) -> None:
    header = {"Set-Cookie": "sid=rotated; Domain=.imgur.com; Path=/; Max-Age=9999"}
    sites.serve("https://i.imgur.com/*", Answer(b"GIF89a", headers=header))
    sites.serve("https://api.imgur.com/*", Answer({"data": {}}, headers=header))
    cookies = tmp_path / "cookies.txt"
    row = ".reddit.com\tTRUE\t/\tTRUE\t0\treddit_session\tsecret\n"
    cookies.write_text(f"# Netscape HTTP Cookie File\n{row}")
    reddit = Reddit(sites)
    reddit.blocks_guests = True
    got = browse(reddit.text("aa8"), cookies_file=cookies)
    assert got.facts["text"] == "Only words."
    assert "reddit_session\tsecret" in cookies.read_text()


# ── What fails ─────────────────────────────────────────────────────────────────────


ONCE = {"downloader.retries": 0}  # else it waits for 1 s, and asks again
MISBEHAVIOUR = {
    "not found": (Answer(status=404), Cause.GONE),
    "gone": (Answer(status=410), Cause.GONE),
    "unauthorised": (Answer(status=401), Cause.LOGIN),
    "forbidden": (Answer(status=403), Cause.LOGIN),
    "legal reasons": (Answer(status=451), Cause.REGION),
    "broken": (Answer(status=500), Cause.NETWORK),
    "busy": (Answer(status=503), Cause.NETWORK),
    "a page": (Answer("<title>Log in</title>"), Cause.NO_MEDIA),
    "empty": (Answer(b"", length_bytes=0), Cause.NETWORK),
    "ends early": (Answer(b"a" * 99, length_bytes=200), Cause.NETWORK),
    "announces too much": (Answer(b"a" * 99, length_bytes=9_000_000), Cause.TOO_LARGE),
    "never ends": (Answer(b"a" * 99, endless=True, length_bytes=None), Cause.TOO_LARGE),
    "expands": (gzip_bomb(20_000_000), Cause.TOO_LARGE),
    "silent": (Answer(silent=True), Cause.TIMED_OUT),
}


@pytest.mark.parametrize("how", MISBEHAVIOUR)
def test_a_server_that_misbehaves(fetch: Fetch, sites: Sites, how: str) -> None:
    answer, cause = MISBEHAVIOUR[how]
    wait_s = 0.5 if how == "silent" else 60
    timeouts = {"extractor.timeout": wait_s, "downloader.timeout": wait_s}
    got = fetch(
        sites.serve("/a.jpg", answer),
        max_file_bytes=1_000_000,
        engine_options={**timeouts, **ONCE},
    )
    assert (got.cause, got.files, got.left) == (cause, [], [])


def test_a_server_that_resets_or_is_not_there(fetch: Fetch) -> None:
    with resetting_server() as address:
        got = fetch(f"{address}/a.jpg", engine_options=ONCE)
        assert got.cause is Cause.NETWORK
    for link in (f"{address}/a.jpg", "http://nobody.invalid/a.jpg"):
        assert fetch(link, engine_options=ONCE).cause is Cause.NETWORK


def test_a_server_that_fails_once_is_asked_again(
    fetch: Fetch, sites: Sites, shelf: Path
) -> None:
    answers = in_turn(Answer(status=503), media.image(shelf))
    assert fetch(sites.serve("/a.jpg", answers)).cause is None


def test_a_rate_limit_carries_its_wait(fetch: Fetch, sites: Sites) -> None:
    answer = Answer(status=429, headers={"Retry-After": "17"})
    got = fetch(sites.serve("/a.jpg", answer))
    assert (got.cause, got.retry_after_s) == (Cause.RATE_LIMITED, 17)
    assert sites.hits["/a.jpg"] == 1


@pytest.mark.parametrize("setting", ["abort", "wait"])
def test_no_rate_limit_is_slept_through(
    browse: Fetch, sites: Sites, setting: str
) -> None:
    options = {"extractor.twitter.ratelimit": setting}
    got = browse(Twitter(sites).limited("1004", reset_in_s=500), engine_options=options)
    assert got.cause is Cause.RATE_LIMITED
    assert got.retry_after_s == pytest.approx(500, abs=30)


def test_a_job_of_too_many_bytes_stops_there(
    browse: Fetch, sites: Sites, shelf: Path
) -> None:
    pictures = [media.padded_image(shelf, 60_000, number) for number in range(1, 5)]
    post = Reddit(sites).gallery("aa9", *pictures)
    got = browse(post, max_job_bytes=130_000)
    assert (len(got.files), got.failed_items) == (2, [Cause.TOO_LARGE])
    assert got.facts["more"] is True
    assert browse(post, max_job_bytes=50_000).cause is Cause.TOO_LARGE


def test_the_platforms_own_phrases_come_first(browse: Fetch, sites: Sites) -> None:
    post = Twitter(sites).refused("1005", "NsfwLoggedOut")
    assert browse(post).cause is Cause.LOGIN
    assert browse(post, failures=[("nsfw", Cause.AGE)]).cause is Cause.AGE


def test_causes_of_real_exceptions() -> None:
    from gallery_dl import exception

    response = requests.Response()
    response.url, response.reason = "https://a.example/", ""

    def answered(status: int) -> requests.Response:
        response.status_code = status
        return response

    with pytest.raises(requests.JSONDecodeError) as no_json:
        response._content = b"<html>"
        response.json()
    table = {
        Cause.GONE: [
            exception.NotFoundError("gallery"),
            exception.HttpError("", answered(404)),
            exception.AbortExtraction("Tweet unavailable ('Suspended')"),
        ],
        Cause.LOGIN: [
            exception.AuthRequired("cookies"),
            exception.AuthenticationError(),
            exception.AuthorizationError("Could not authenticate you"),
            exception.AbortExtraction("HTTP redirect to login page (https://a/login)"),
            exception.HttpError("", answered(403)),
            exception.ChallengeError("Cloudflare challenge", answered(403)),
        ],
        Cause.PRIVATE: [exception.AuthorizationError()],
        Cause.RATE_LIMITED: [
            exception.HttpError("", answered(429)),
            exception.AbortExtraction("Rate limit exceeded"),
        ],
        Cause.REGION: [exception.HttpError("", answered(451))],
        Cause.UNSUPPORTED: [exception.NoExtractorError()],
        Cause.INVALID_URL: [requests.TooManyRedirects("Exceeded 30 redirects.")],
        Cause.TIMED_OUT: [
            requests.ReadTimeout(),
            exception.HttpError("HTTPSConnectionPool: Read timed out."),
        ],
        Cause.NETWORK: [
            requests.ConnectionError(),
            exception.HttpError("", answered(502)),
            exception.HttpError("NameResolutionError: Failed to resolve 'a.example'"),
            exception.HttpError("SSLError: certificate verify failed"),
        ],
        Cause.ENGINE_OUTDATED: [no_json.value, KeyError("data"), TypeError("None")],
        Cause.TOO_LARGE: [MemoryError(), OSError(27, "File too large")],
        Cause.DISK_FULL: [OSError(28, "No space left on device")],
    }
    request = Request("https://a.example/", Path(), "")
    for cause, errors in table.items():
        for error in errors:
            assert engine.failure(request, error, []).cause is cause, repr(error)
    offline = ["Failed to resolve 'a.example' ([Errno -2] Name or service not known)"]
    assert engine.failure(request, KeyError("data"), offline).cause is Cause.NETWORK


# ── What cannot be reached ─────────────────────────────────────────────────────────


def test_the_engines_own_examples_are_supported(lab: Lab, tmp_path: Path) -> None:
    from gallery_dl.extractor import extractors

    examples = [one for one in extractors() if one.category not in engine.NO_SITES]
    links = [one.example for one in examples]
    unknown = {*links}.difference(lab.supported(links, tmp_path))
    assert len(unknown) < 0.03 * len(examples), unknown


@pytest.mark.parametrize(
    "site", ["https://a.example/a.jpg", "https://x.com/a/status/1"]
)
def test_a_download_reads_no_certificate_authorities(
    fetch: Fetch, sites: Sites, site: str
) -> None:
    sites.serve("https://*", b"a")
    nobody = {"SSL_CERT_FILE": "", "REQUESTS_CA_BUNDLE": ""}
    setup = """if True:
        import ssl
        for name in ("load_verify_locations", "load_default_certs"):
            setattr(ssl.SSLContext, name, lambda *a: print("reads", a))"""
    got = fetch(site, environment={**sites.environment, **nobody}, setup=setup)
    assert got.cause is Cause.NETWORK
    assert "certificate verify failed" in got.log and "reads" not in got.log


def test_rehearsal_asks_nobody_and_leaves_nothing_open(
    labs: Labs, sites: Sites, tmp_path: Path
) -> None:
    """In a process of the other engine, which is a new one to gallery-dl."""
    setup = f"""if True:
        import os, sys
        assert "gallery_dl" not in sys.modules
        os.environ |= {sites.environment!r}
        from bossbot_plugins.gallery_dl import warm
        before = sorted(os.listdir("/proc/self/fd"))
        warm()
        print(sorted(os.listdir("/proc/self/fd")) == before)"""
    assert labs("yt_dlp").run(setup, tmp_path) == "True\n"
    assert sites.requests == []


@pytest.mark.parametrize(
    ("verify", "cause"),
    [(True, None), (False, None), (DEFAULT_CA_BUNDLE_PATH, Cause.NETWORK)],
)
def test_whom_the_owner_trusts(
    browse: Fetch, sites: Sites, shelf: Path, verify: Any, cause: Cause | None
) -> None:
    url = sites.serve("https://a.example/a.jpg", media.image(shelf))
    assert browse(url).cause is None
    assert browse(url, engine_options={"extractor.verify": verify}).cause is cause


PREFIXED = ["r:file:///etc/passwd", "recursive:http://127.0.0.1/", "oauth:reddit"]
PREFIXED += ["noop", "ytdl:http://127.0.0.1/", "mastodon:http://127.0.0.1/@a/1"]
PREFIXED += ["generic:http:", "g:http://127.0.0.1/", "file:///etc/passwd.jpg", ""]
PREFIXED += ["http://a.example/"]


def test_no_site_is_behind_a_prefix(lab: Lab, tmp_path: Path) -> None:
    link = "https://imgur.com/A61SaA1"
    assert lab.supported([*PREFIXED, link], tmp_path) == [link]


@pytest.mark.parametrize("url", PREFIXED)
def test_what_has_a_prefix_is_not_fetched(fetch: Fetch, url: str) -> None:
    assert fetch(url).cause is Cause.UNSUPPORTED


def test_no_option_or_file_of_the_owner_undoes_the_safety(
    fetch: Fetch, sites: Sites, shelf: Path, tmp_path: Path
) -> None:
    touch = {"name": "exec", "command": f"touch {tmp_path}/ran", "event": "file"}
    code = f"\fE __import__('os').mkdir('{tmp_path}/ran')"
    options: dict[str, Any] = {
        "extractor.directlink.filename": code,
        "extractor.directlink.directory": [code],
        "extractor.base-directory": str(tmp_path),
        "extractor.postprocessors": [touch],
        "extractor.archive": f"{tmp_path}/ran",
        "downloader.part-directory": f"{tmp_path}/ran",
        "postprocessors": [touch],
    }
    config = json.dumps({"extractor": {"postprocessors": [touch]}})
    setup = f"import pathlib; pathlib.Path('.gallery-dl.conf').write_text({config!r})"
    url = sites.serve("/a.jpg", media.image(shelf))
    got = fetch(url, engine_options=options, setup=setup)
    assert got.names == got.left == ["job_1_temp_0001.jpg"]
    assert not (tmp_path / "ran").exists()


def test_the_engine_never_asks_at_the_terminal(fetch: Fetch, sites: Sites) -> None:
    setup = """if True:
        import gallery_dl.output
        from gallery_dl.extractor.directlink import DirectlinkExtractor
        gallery_dl.output.TTY_STDIN = True
        DirectlinkExtractor.items = lambda self: [self.input("Code: ")]"""
    got = fetch(sites.serve("/a.jpg", b"a"), setup=setup)
    assert (got.cause, got.detail) == (
        Cause.LOGIN,
        "AbortExtraction: User input required (Code)",
    )


@pytest.mark.parametrize(
    ("known", "alt"),
    [
        ({"category": "twitter", "description": "A cat"}, "A cat"),
        ({"category": "bluesky", "description": "A cat"}, "A cat"),
        ({"category": "pixiv", "description": "The text of the post"}, ""),
        ({"category": "mastodon.social", "media": {"description": "A cat"}}, "A cat"),
        ({"category": "misskey.io", "file": {"comment": "A cat"}}, "A cat"),
        (
            {
                "filename": "b",
                "gallery_data": {
                    "items": [
                        {"media_id": "a", "caption": "A dog"},
                        {"media_id": "b", "caption": "A cat"},
                    ]
                },
            },
            "A cat",
        ),
        ({"filename": "b", "gallery_data": {"items": [1, {"media_id": "b"}]}}, ""),
        ({"category": "twitter", "description": None}, ""),
        ({"category": "twitter", "description": ["A cat"]}, ""),
        ({"media": [], "file": "a.jpg", "gallery_data": ["a"], "filename": "a"}, ""),
        ({}, ""),
    ],
)
def test_what_can_be_seen_on_a_file_is_what_the_site_says(
    known: dict[str, Any], alt: str
) -> None:
    assert engine.alt_of(known) == alt
