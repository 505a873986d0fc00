"""The engine yt-dlp, against a loopback server and canned answers of sites."""

import gzip
import io
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import media
import pytest
from bossbot_plugins import yt_dlp as engine
from engine_lab import Got, Lab, Labs, resetting_server
from sites import Answer, Sites, gzip_bomb
from sites_canned.tiktok import TikTok
from sites_canned.youtube import YouTube

import bossbot
from bossbot import Cause, Request

pytest_plugins = ("engine_fixtures",)

Fetch = Callable[..., Got]
PLAYLIST = {"Content-Type": "application/vnd.apple.mpegurl"}


@pytest.fixture
def lab(labs: Labs) -> Lab:
    return labs("yt_dlp")


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


def codecs(got: Got) -> dict[str, list[str]]:
    return media.facts(got.files[0]).codecs


def hls(*segments: str, ended: bool = True) -> Answer:
    """A list of segments of a second each."""
    rows = [f"#EXTINF:1,\n{segment}\n" for segment in segments]
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n"
    end = "#EXT-X-ENDLIST\n" if ended else ""
    return Answer(head + "".join(rows) + end, headers=PLAYLIST)


def segments(shelf: Path) -> list[Path]:
    """A video in three MPEG-TS pieces of a second."""
    folder = shelf / f"segments-{os.getpid()}"
    if not folder.exists():
        folder.mkdir()
        source = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=10:d=3"]
        codec = ["-c:v", "libx264", "-g", "10", "-pix_fmt", "yuv420p"]
        cut = ["-hls_time", "1", "-hls_list_size", "0", str(folder / "list.m3u8")]
        command = ["ffmpeg", "-v", "error", *source, *codec, *cut]
        subprocess.run(command, check=True)
    return sorted(folder.glob("*.ts"))


# ── What arrives ───────────────────────────────────────────────────────────────────


def test_a_file_arrives_under_our_name(fetch: Fetch, sites: Sites, shelf: Path) -> None:
    video = media.padded_video(shelf, 50_000)
    got = fetch(sites.serve("/holiday%20%40everyone.mp4", video))
    assert got.cause is None
    assert got.names == got.left == ["job_1_temp_0001.mp4"]
    assert got.contents == [video.read_bytes()]
    assert got.facts["title"] == "holiday @everyone"
    assert (got.facts["items"], got.facts["more"]) == (1, False)
    assert got.progress[-1].done_bytes == got.progress[-1].total_bytes == 50_000


@pytest.mark.parametrize(
    "name",
    [
        *["..%2f..%2fetc%2fpasswd.mp4", "%00a.mp4", "$HOME.mp4", "%25(title)s.mp4"],
        *["a" * 600 + ".mp4", "-o.mp4", "a.mp4%0a.mp4"],
    ],
)
def test_no_name_leaves_the_folder(
    fetch: Fetch, sites: Sites, shelf: Path, name: str
) -> None:
    sites.serve("/*", media.video(shelf))
    got = fetch(sites.url(f"/{name}"))
    assert got.names == got.left == ["job_1_temp_0001.mp4"]


def test_a_prefix_is_no_template(fetch: Fetch, sites: Sites, shelf: Path) -> None:
    url = sites.serve("/a.mp4", media.video(shelf))
    got = fetch(url, prefix="100%(title)s$HOME")
    assert got.names == ["100%(title)s$HOME_0001.mp4"]


def test_videos_of_a_page_arrive_in_order(
    fetch: Fetch, sites: Sites, shelf: Path
) -> None:
    files = [media.video(shelf, number) for number in range(1, 4)]
    tags = [
        f'<video src="{sites.serve(f"/{number}.mp4", file)}"></video>'
        for number, file in enumerate(files)
    ]
    page = sites.serve("/page", f"<title>A page</title>{''.join(tags)}")
    got = fetch(page)
    assert got.contents == [file.read_bytes() for file in files]
    assert (got.facts["items"], got.facts["more"]) == (3, False)


def test_streams_are_joined_to_what_plays_everywhere(
    browse: Fetch, sites: Sites, shelf: Path
) -> None:
    parts = media.video(shelf, sound=False), media.video(shelf, picture=False)
    got = browse(YouTube(sites).video("aaaaaaaaaaa", media.video(shelf), *parts))
    assert got.names == got.left == ["job_1_temp_0001.mp4"]
    assert codecs(got) == {"video": ["h264"], "audio": ["aac"]}
    assert (got.facts["title"], got.facts["text"]) == ("Video aaaaaaaaaaa", "words")


def test_without_ffmpeg_a_whole_file_is_chosen(
    browse: Fetch, sites: Sites, shelf: Path
) -> None:
    whole = media.video(shelf)
    parts = media.video(shelf, sound=False), media.video(shelf, picture=False)
    got = browse(YouTube(sites).video("aaaaaaaaaab", whole, *parts), programs={})
    assert got.contents == [whole.read_bytes()]
    assert got.left == got.names


@pytest.fixture
def sizes(shelf: Path) -> dict[int, Path]:
    """Pictures of a video by their sizes, which only the site knows."""
    return dict.fromkeys((1440, 1080, 720, 360), media.video(shelf, sound=False))


@pytest.mark.parametrize(
    ("quality", "size", "upright"),
    [
        ("best", 1440, False),
        ("480", 360, False),
        ("720", 720, True),
    ],
)
def test_picture_is_the_largest_within_the_quality(
    browse: Fetch,
    sites: Sites,
    shelf: Path,
    sizes: dict[int, Path],
    quality: str,
    size: int,
    upright: bool,
) -> None:
    sound = media.video(shelf, picture=False)
    link = YouTube(sites).pictures("aaaaaaaaaac", sizes, sound, upright)
    got = browse(link, options={"quality": quality})
    assert (got.cause, got.names) == (None, ["job_1_temp_0001.mp4"])
    asked = [r.query["itag"] for r in sites.requests if "videoplayback" in r.path]
    assert asked == [str(200 + [*sizes].index(size)), "140"]


def test_smallest_picture_comes_where_none_is_within_the_quality(
    browse: Fetch, sites: Sites, shelf: Path, sizes: dict[int, Path]
) -> None:
    sound = media.video(shelf, picture=False)
    few = {size: sizes[size] for size in (1440, 1080)}
    got = browse(
        YouTube(sites).pictures("aaaaaaaaaad", few, sound), options={"quality": "480"}
    )
    assert got.cause is None
    asked = [r.query["itag"] for r in sites.requests if "videoplayback" in r.path]
    assert asked == ["201", "140"]


def test_sound_alone_is_fetched_as_the_site_has_it(
    browse: Fetch, sites: Sites, shelf: Path, sizes: dict[int, Path]
) -> None:
    sound = media.video(shelf, picture=False)
    link = YouTube(sites).pictures("aaaaaaaaaae", sizes, sound)
    got = browse(link, options={"quality": "audio"})
    assert got.names == ["job_1_temp_0001.m4a"]
    assert codecs(got) == {"audio": ["aac"]}
    asked = [r.query["itag"] for r in sites.requests if "videoplayback" in r.path]
    assert asked == ["140"]


@pytest.mark.parametrize("programs", [True, False])
def test_cover_of_a_sound_comes_before_it(
    browse: Fetch, sites: Sites, shelf: Path, programs: bool
) -> None:
    sound, cover = media.video(shelf, picture=False), media.image(shelf)
    sites.serve("https://i.ytimg.com/*", cover)
    link = YouTube(sites).video("aaaaaaaaaai", media.video(shelf), sound=sound)
    how: dict[str, Any] = {} if programs else {"programs": {}}
    got = browse(link, options={"quality": "audio"}, **how)
    names = ["job_1_temp_0001.m4a"]
    assert got.names == (["job_1_temp_0001.cover.jpg"] if programs else []) + names
    assert sorted(got.left) == sorted(got.names)
    assert not programs or got.contents[0] == cover.read_bytes()


# ── Subtitles ──────────────────────────────────────────────────────────────────────


KEEP = {"keep_subtitles": True}


@pytest.mark.parametrize(
    ("options", "language"),
    [
        ({"subtitles": True}, "en"),
        ({"subtitles": True, "language": "de"}, "de"),
        ({"subtitles": True, "language": "pt-BR"}, "pt-PT"),
        ({"subtitles": True, "language": "ja"}, "en"),
        (KEEP, "en"),
        ({**KEEP, "language": "ja"}, ""),
        ({}, ""),
    ],
)
def test_subtitles_come_in_the_language_of_the_server(
    browse: Fetch, sites: Sites, shelf: Path, options: dict[str, Any], language: str
) -> None:
    youtube = YouTube(sites)
    link = youtube.video("aaaaaaaaaaf", media.video(shelf))
    texts = {"fr": "le texte", "pt-PT": "o texto", "de": "der Text", "en": "the text"}
    youtube.add_subtitles("aaaaaaaaaaf", **texts)
    got = browse(link, options=options)
    names = ["job_1_temp_0001.mp4"]
    names += [f"job_1_temp_0001.{language}.srt"] if language else []
    assert (got.cause, got.names, got.left) == (None, names, sorted(names))
    if language:
        assert texts[language] in got.contents[1].decode()


def test_subtitles_of_a_machine_come_in_what_is_spoken_where_there_are_no_others(
    browse: Fetch, sites: Sites, shelf: Path
) -> None:
    youtube = YouTube(sites)
    link = youtube.video("aaaaaaaaaag", media.video(shelf))
    youtube.add_subtitles("aaaaaaaaaag", machine="fr", fr="le texte")
    got = browse(link, options={"subtitles": True})
    assert got.names == ["job_1_temp_0001.mp4", "job_1_temp_0001.fr-orig.srt"]


def test_subtitles_that_cannot_be_fetched_do_not_lose_the_video(
    browse: Fetch, sites: Sites, shelf: Path
) -> None:
    youtube = YouTube(sites)
    link = youtube.video("aaaaaaaaaah", media.video(shelf))
    youtube.add_subtitles("aaaaaaaaaah", en="gone")
    del youtube._subtitles["en"]
    got = browse(link, options={"subtitles": True})
    assert (got.cause, got.names) == (None, ["job_1_temp_0001.mp4"])
    assert len(got.failed_items) == 1


TTML = """<?xml version="1.0"?><tt xmlns="http://www.w3.org/ns/ttml"><body><div>
<p begin="00:00:01.000" end="00:00:02.000">words</p></div></body></tt>"""


@pytest.mark.parametrize(
    ("kind", "text", "kept"),
    [
        ("vtt", "WEBVTT\n\n00:00.000 --> 00:01.000\nwords\n", "vtt"),
        ("ttml", TTML, "srt"),
        ("ttml", "<tt", None),
        ("srt", "", None),
        ("srt", "a" * (2**20 + 1), None),
    ],
)
def test_subtitles_are_kept_as_srt_or_vtt_if_they_are_small(
    tmp_path: Path, kind: str, text: str, kept: str | None
) -> None:
    path = tmp_path / f"a.en.{kind}"
    path.write_text(text)
    found = engine.small_subtitles(path)
    assert (found and found.name) == (f"a.en.{kept}" if kept else None)
    assert list(tmp_path.iterdir()) == ([found] if found else [])
    assert not found or "words" in found.read_text()


def test_no_name_of_a_language_leaves_the_folder(
    fetch: Fetch, sites: Sites, shelf: Path
) -> None:
    video = sites.serve("/a.mp4", media.video(shelf))
    words = sites.serve("/a.vtt", "WEBVTT\n\n00:00.000 --> 00:01.000\nwords\n")
    track = f'<track kind="subtitles" srclang="../../x/$HOME" src="{words}">'
    page = sites.serve("/page", f'<video><source src="{video}">{track}</video>')
    got = fetch(page, options={"subtitles": True})
    assert sorted(got.names) == got.left
    assert got.names == ["job_1_temp_0001.mp4", "job_1_temp_0001.xHOME.vtt"]


@pytest.mark.parametrize(
    ("known", "chosen"),
    [
        ({}, ""),
        ({"live_chat": [{"ext": "json"}]}, ""),
        ({"en": [{"ext": "lrc"}, {"ext": "json3"}]}, ""),
        ({"en": [{"ext": "ttml"}, {"ext": "json3"}]}, "en"),
        ({"fr": [{"ext": "vtt"}], "live_chat": [{"ext": "json"}]}, "fr"),
        ({"en-GB": [{"ext": "vtt"}], "de": [{"ext": "ass"}]}, "en-GB"),
    ],
)
def test_only_subtitles_that_can_be_posted_count(
    known: dict[str, Any], chosen: str
) -> None:
    assert engine.language_of(known, {"language": "de"}, "") == chosen


def test_a_site_with_an_extractor_of_its_own(
    browse: Fetch, sites: Sites, shelf: Path
) -> None:
    post = TikTok(sites).video("7100000000000000001", media.video(shelf))
    got = browse(post)
    assert got.contents == [media.video(shelf).read_bytes()]
    assert got.facts["uploader"] == "alice"
    assert got.facts["date"].startswith("2023-11-14T")


@pytest.mark.parametrize(
    ("age_limit", "adult"), [(18, True), (21, True), (13, False), (0, False)]
)
def test_an_age_limit_marks_a_video_as_adult(
    fetch: Fetch, sites: Sites, shelf: Path, age_limit: int, adult: bool
) -> None:
    setup = f"""if True:
        from yt_dlp.extractor.generic import GenericIE
        extract = GenericIE._real_extract
        GenericIE._real_extract = lambda self, url: {{
            **extract(self, url), "age_limit": {age_limit}
        }}"""
    got = fetch(sites.serve("/a.mp4", media.video(shelf)), setup=setup)
    assert got.facts["adult"] is adult


def test_without_an_age_limit_it_is_unknown(
    fetch: Fetch, sites: Sites, shelf: Path
) -> None:
    got = fetch(sites.serve("/a.mp4", media.video(shelf)))
    assert "adult" not in got.facts


def test_one_adult_video_makes_a_playlist_adult() -> None:
    facts: dict[str, Any] = {}
    report = SimpleNamespace(info=lambda **more: facts.update(more))
    request = Request("https://a.example/", Path(), "")
    video = engine.Video(request, cast(bossbot.Report, report))
    for age_limit in (0, 18, None, 0):
        video.describe({"n_entries": 4, "age_limit": age_limit})
    assert facts["adult"] is True


@pytest.fixture
def playlist(sites: Sites, shelf: Path) -> str:
    """Five videos, of which the second is private."""
    youtube = YouTube(sites)
    names = [f"playlist{number:03}" for number in range(5)]
    sound, picture = media.video(shelf, picture=False), media.video(shelf, sound=False)
    for number, name in enumerate(names, 1):
        youtube.video(name, media.video(shelf, number), picture, sound)
    youtube.refused(names[1], "private")
    return youtube.playlist("PL" + "a" * 32, *names)


def test_one_dead_video_does_not_lose_the_others(
    browse: Fetch, playlist: str, shelf: Path
) -> None:
    got = browse(playlist, programs={}, engine_options={"noplaylist": False})
    files = [media.video(shelf, number) for number in (1, 3, 4, 5)]
    assert got.contents == [file.read_bytes() for file in files]
    assert got.failed_items == [Cause.PRIVATE]
    assert got.facts["title"] == "A playlist"
    assert (got.facts["items"], got.facts["more"]) == (5, False)
    assert {progress.items for progress in got.progress} == {5}


def test_a_playlist_longer_than_the_cap_is_fetched_up_to_it(
    browse: Fetch, playlist: str, shelf: Path
) -> None:
    got = browse(playlist, programs={}, max_items=2)
    files = [media.video(shelf, number) for number in (1, 3)]
    assert got.contents == [file.read_bytes() for file in files]
    assert got.facts["more"] is True
    assert "Downloading 3 items" in got.log  # one more, to notice that there are more


def test_a_list_of_segments_becomes_a_video(
    fetch: Fetch, sites: Sites, shelf: Path
) -> None:
    pieces = segments(shelf)
    for piece in pieces:
        sites.serve(f"/{piece.name}", piece)
    got = fetch(sites.serve("/a.m3u8", hls(*[piece.name for piece in pieces])))
    assert got.names == got.left == ["job_1_temp_0001.mp4"]
    assert media.facts(got.files[0]).length_s == pytest.approx(3, abs=0.2)
    with media.opened(got.files[0]) as file:
        assert file.format.name == "mov,mp4,m4a,3gp,3g2,mj2"


def test_a_video_without_one_of_its_segments_is_one_failure(
    fetch: Fetch, sites: Sites, shelf: Path
) -> None:
    first, *rest = segments(shelf)
    for piece in rest:
        sites.serve(f"/{piece.name}", piece)
    broken = hls(*[piece.name for piece in (rest[0], first, rest[1])])
    tags = [
        f'<video src="{sites.serve("/a.m3u8", broken)}"></video>',
        f'<video src="{sites.serve("/b.mp4", media.video(shelf))}"></video>',
    ]
    got = fetch(sites.serve("/page", "".join(tags)))
    assert got.contents == [media.video(shelf).read_bytes()]
    assert len(got.failed_items) == 1
    assert got.left == got.names


def test_a_video_of_too_many_segments_is_not_begun(
    fetch: Fetch, sites: Sites, shelf: Path
) -> None:
    [piece] = segments(shelf)[:1]
    sites.serve("/0.ts", piece)
    tags = [
        f'<video src="{sites.serve("/a.m3u8", hls(*["0.ts"] * 5001))}"></video>',
        f'<video src="{sites.serve("/b.mp4", media.video(shelf))}"></video>',
    ]
    got = fetch(sites.serve("/page", "".join(tags)))
    assert got.contents == [media.video(shelf).read_bytes()]
    assert got.failed_items == [Cause.TOO_LARGE]
    assert not sites.hits["/0.ts"]


def test_requests_without_end_are_ended(
    fetch: Fetch, sites: Sites, shelf: Path
) -> None:
    sites.serve("/0.ts", segments(shelf)[0])
    got = fetch(sites.serve("/a.m3u8", hls(*["0.ts"] * 20)), max_requests=10)
    assert got.cause is Cause.TOO_LARGE and "10 requests" in got.detail
    assert sum(sites.hits.values()) <= 10
    first = sites.serve("/first.mp4", media.video(shelf))
    tags = f'<video src="{first}"></video><video src="{sites.url("/a.m3u8")}"></video>'
    got = fetch(sites.serve("/page", tags), max_requests=10)
    assert got.contents == [media.video(shelf).read_bytes()]
    assert got.failed_items == [Cause.TOO_LARGE]


def test_a_clip_is_cut_out_of_its_video(
    fetch: Fetch, sites: Sites, shelf: Path
) -> None:
    setup = """if True:
        from yt_dlp.extractor.generic import GenericIE
        extract = GenericIE._real_extract
        GenericIE._real_extract = lambda self, url: {
            **extract(self, url), "section_start": 1, "section_end": 3
        }"""
    url = sites.serve("/a.mp4", media.video(shelf, seconds=5))
    got = fetch(url, setup=setup)
    assert got.names == got.left == ["job_1_temp_0001.mp4"]
    assert media.facts(got.files[0]).length_s == pytest.approx(2, abs=1.1)


def test_rotated_cookies_are_written_to_the_attempts_own_file(
    fetch: Fetch, sites: Sites, shelf: Path, tmp_path: Path
) -> None:
    header = {"Set-Cookie": "sid=rotated; Path=/; Max-Age=9999"}
    url = sites.serve("/a.mp4", Answer(media.video(shelf), headers=header))
    cookies = tmp_path / "cookies.txt"
    row = "127.0.0.1\tFALSE\t/\tFALSE\t0\tsid\tfirst\n"
    cookies.write_text(f"# Netscape HTTP Cookie File\n{row}")
    assert fetch(url, cookies_file=cookies).cause is None
    assert sites.requests[0].cookies == {"sid": "first"}
    assert "rotated" in cookies.read_text()


# ── What fails ─────────────────────────────────────────────────────────────────────


MISBEHAVIOUR = {
    "not found": (Answer(status=404), Cause.GONE),
    "gone": (Answer(status=410), Cause.GONE),
    "unauthorised": (Answer(status=401), Cause.LOGIN),
    "forbidden": (Answer(status=403), Cause.LOGIN),
    "legal reasons": (Answer(status=451), Cause.REGION),
    "broken": (Answer(status=500), Cause.NETWORK),
    "busy": (Answer(status=503), Cause.NETWORK),
    "a page of words": (Answer("<title>Words</title>nothing else"), Cause.UNSUPPORTED),
    "empty": (Answer(b"", length_bytes=0), Cause.NO_MEDIA),
    "ends early": (Answer(b"a" * 99, length_bytes=200), Cause.NETWORK),
    "announces too much": (
        Answer(b"a" * 9000, length_bytes=9_000_000, endless=True),
        Cause.TOO_LARGE,
    ),
    "never ends": (
        Answer(b"a" * 9000, endless=True, length_bytes=None),
        Cause.TOO_LARGE,
    ),
    "expands": (gzip_bomb(20_000_000, "video/mp4"), Cause.TOO_LARGE),
    "silent": (Answer(silent=True), Cause.TIMED_OUT),
}


@pytest.mark.parametrize("how", MISBEHAVIOUR)
def test_a_server_that_misbehaves(fetch: Fetch, sites: Sites, how: str) -> None:
    answer, cause = MISBEHAVIOUR[how]
    got = fetch(
        sites.serve("/a.mp4", answer),
        max_file_bytes=1_000_000,
        engine_options={"socket_timeout": 0.5 if how == "silent" else 60},
    )
    assert (got.cause, got.files, got.left) == (cause, [], [])


def test_a_server_that_resets_or_is_not_there(fetch: Fetch) -> None:
    with resetting_server() as address:
        assert fetch(f"{address}/a.mp4").cause is Cause.NETWORK
    assert fetch(f"{address}/a.mp4").cause is Cause.NETWORK
    assert fetch("http://nobody.invalid/a.mp4").cause is Cause.NETWORK


def test_a_certificate_nobody_signed_is_no_connection(
    fetch: Fetch, sites: Sites
) -> None:
    sites.serve("https://a.example/*", b"a")
    environment = {**sites.environment, "SSL_CERT_FILE": "", "REQUESTS_CA_BUNDLE": ""}
    assert fetch("https://a.example/", environment=environment).cause is Cause.NETWORK


def test_a_redirect_in_circles_is_a_broken_link(fetch: Fetch, sites: Sites) -> None:
    answer = Answer(status=302, headers={"Location": "/a.mp4"})
    assert fetch(sites.serve("/a.mp4", answer)).cause is Cause.INVALID_URL


def test_a_rate_limit_carries_its_wait(fetch: Fetch, sites: Sites) -> None:
    answer = Answer(status=429, headers={"Retry-After": "17"})
    got = fetch(sites.serve("/a.mp4", answer))
    assert (got.cause, got.retry_after_s) == (Cause.RATE_LIMITED, 17)
    assert sites.hits["/a.mp4"] == 1


def test_a_page_that_does_not_fit_into_memory_is_too_large(
    fetch: Fetch, sites: Sites
) -> None:
    page = gzip.compress(b"<title>A page</title>" + b" " * 150_000_000, 1)
    headers = {"Content-Encoding": "gzip", "Content-Type": "text/html"}
    sites.serve("/page", Answer(page, headers=headers))
    got = fetch(sites.url("/page"), memory_bytes=80_000_000)
    assert got.cause is Cause.TOO_LARGE


def test_a_job_of_too_many_bytes_stops_there(
    fetch: Fetch, sites: Sites, shelf: Path
) -> None:
    files = [media.padded_video(shelf, 60_000, number) for number in range(1, 5)]
    tags = [
        f'<video src="{sites.serve(f"/{number}.mp4", file)}"></video>'
        for number, file in enumerate(files)
    ]
    page = sites.serve("/page", "".join(tags))
    got = fetch(page, max_job_bytes=130_000)
    assert (len(got.files), got.failed_items) == (2, [Cause.TOO_LARGE])
    assert fetch(page, max_job_bytes=50_000).cause is Cause.TOO_LARGE


@pytest.mark.parametrize("where", ["a list of segments", "YouTube"])
def test_a_live_stream_is_refused(browse: Fetch, sites: Sites, where: str) -> None:
    url = sites.serve("/a.m3u8", hls("0.ts", ended=False))
    if where == "YouTube":
        url = YouTube(sites).live("aaaaaaaaaac")
    got = browse(url)
    assert (got.cause, got.message) == (Cause.UNSUPPORTED, engine.LIVE)
    assert not sites.hits["/0.ts"]


REFUSALS = {
    "private": Cause.PRIVATE,
    "age": Cause.AGE,
    "bot": Cause.LOGIN,
    "removed": Cause.GONE,
    "unavailable": Cause.GONE,
    "region": Cause.REGION,
    "members": Cause.PRIVATE,
    "limited": Cause.RATE_LIMITED,
}


def test_a_refusal_of_the_site_has_its_cause(
    browse: Fetch, sites: Sites, shelf: Path
) -> None:
    youtube = YouTube(sites)
    names = [f"refused{number:04}" for number in range(len(REFUSALS))]
    for name, refusal in zip(names, REFUSALS, strict=True):
        youtube.refused(name, refusal)
    youtube.video("aaaaaaaaaad", media.video(shelf))
    got = browse(youtube.playlist("PL" + "b" * 32, *names, "aaaaaaaaaad"))
    causes = dict(zip(REFUSALS, got.failed_items, strict=True))
    assert (causes, len(got.files)) == (REFUSALS, 1)


def test_the_platforms_own_phrases_come_first(browse: Fetch, sites: Sites) -> None:
    url = YouTube(sites).refused("aaaaaaaaaae", "private")
    assert browse(url, failures=[("private", Cause.AGE)]).cause is Cause.AGE


def test_a_warning_counts_only_for_its_own_video() -> None:
    failures = [("children", Cause.AGE)]
    request = Request("https://a.example/", Path(), "", failures=failures)
    video = engine.Video(request, cast(bossbot.Report, None))
    video.warning("not for children")
    video.failed(None, "ERROR: a")
    video.failed(None, "ERROR: b")
    assert [one.cause for one in video.failures] == [Cause.AGE, Cause.NO_MEDIA]


def test_causes_of_real_exceptions() -> None:
    from yt_dlp import utils
    from yt_dlp.networking import Response, exceptions
    from yt_dlp.utils import ExtractorError

    def answered(status: int) -> ExtractorError:
        response = Response(io.BytesIO(), "https://a.example/", {}, status=status)
        cause = exceptions.HTTPError(response)
        words = f"Unable to download webpage: {cause}"
        return ExtractorError(words, cause=cause, expected=True)

    def below(error: BaseException) -> ExtractorError:
        return ExtractorError("Unable to download JSON metadata", cause=error)

    def said(words: str) -> ExtractorError:
        return ExtractorError(words, expected=True)

    table = {
        Cause.GONE: [
            answered(404),
            said("This video has been removed by the uploader"),
            said("Video unavailable"),
            said("This content isn't available"),
        ],
        Cause.LOGIN: [
            answered(403),
            said("Sign in to confirm you’re not a bot."),
            said("This video is only available for registered users. Use --cookies"),
            said("This video is only available to Music Premium members"),
        ],
        Cause.AGE: [said("Sign in to confirm your age.")],
        Cause.PRIVATE: [
            said("Private video. Sign in if you've been granted access"),
            said("Join this channel to get access to members-only content"),
        ],
        Cause.REGION: [
            utils.GeoRestrictedError("not here", countries=["DE"]),
            answered(451),
        ],
        Cause.RATE_LIMITED: [answered(429)],
        Cause.UNSUPPORTED: [
            utils.UnsupportedError("https://a.example/"),
            said("This video is DRM protected"),
        ],
        Cause.NO_MEDIA: [
            said("No video formats found!"),
            utils.UserNotLive(),
            utils.PostProcessingError("Invalid data found when processing input"),
        ],
        Cause.NETWORK: [
            answered(502),
            answered(503),
            below(exceptions.SSLError("certificate has expired")),
            below(exceptions.TransportError("Failed to resolve 'a.example'")),
            below(exceptions.IncompleteRead(1, 2)),
            utils.ContentTooShortError(1, 2),
            utils.DownloadError("x", (None, exceptions.ProxyError("refused"), None)),
        ],
        Cause.TIMED_OUT: [below(exceptions.TransportError("The read timed out"))],
        Cause.INVALID_URL: [
            below(
                exceptions.HTTPError(
                    Response(io.BytesIO(), "https://a.example/", {}, status=302),
                    redirect_loop=True,
                )
            )
        ],
        Cause.ENGINE_OUTDATED: [
            utils.RegexNotFoundError("Unable to extract player"),
            ExtractorError("Failed to parse JSON", cause=ValueError("no JSON")),
            KeyError("videoDetails"),
        ],
        Cause.TOO_LARGE: [
            MemoryError(),
            utils.UnavailableVideoError(OSError(27, "File too large")),
        ],
        Cause.DISK_FULL: [
            utils.UnavailableVideoError(OSError(28, "No space left on device"))
        ],
        Cause.INTERNAL: [RuntimeError("what?")],
    }
    request = Request("https://a.example/", Path(), "")
    for cause, errors in table.items():
        for error in errors:
            found = engine.failure(request, error, f"ERROR: {error}", []).cause
            assert found is cause, repr(error)


# ── What cannot be reached ─────────────────────────────────────────────────────────


def test_no_extractor_is_behind_a_prefix(lab: Lab, tmp_path: Path) -> None:
    links = ["ytsearch5:cats", ":ytfav", "file:///etc/passwd", "ftp://127.0.0.1/a.mp4"]
    links += ["mastodon:http://127.0.0.1/", "http://a.example/", ""]
    link = "https://vimeo.com/76979871"
    assert lab.supported([*links, link], tmp_path) == [link]


@pytest.mark.parametrize("segment", ["file:///etc/passwd", "/list.m3u8"])
def test_a_list_of_segments_opens_no_local_file(
    fetch: Fetch, sites: Sites, segment: str
) -> None:
    inner = "#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    sites.serve("/list.m3u8", Answer(inner.encode()))
    got = fetch(sites.serve("/a.m3u8", hls(segment)))
    assert all(b"root:" not in content for content in got.contents)
    assert got.left == got.names
    assert got.cause or segment == "/list.m3u8"  # a text, which the bot refuses


def test_ffmpeg_opens_only_media(browse: Fetch, sites: Sites, shelf: Path) -> None:
    secret = media.video(shelf, sound=False)
    script = shelf / "script.mp4"
    script.write_text(f"ffconcat version 1.0\nfile '{secret.name}'\n")
    setup = f"""if True:
        import os, shutil
        shutil.copy({str(secret)!r}, "../files")"""
    sound = media.video(shelf, picture=False)
    for picture, cause in ((secret, None), (script, Cause.NO_MEDIA)):
        url = YouTube(sites).video("aaaaaaaaaaf", media.video(shelf), picture, sound)
        got = browse(url, setup=setup)
        assert got.cause is cause
        assert got.left == [*got.names, secret.name]


def test_ffmpeg_never_fetches(fetch: Fetch, sites: Sites, tmp_path: Path) -> None:
    ffmpeg = tmp_path / "ffmpeg"
    ffmpeg.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\necho ffmpeg version 7\n")
    ffmpeg.chmod(0o755)
    locked = hls("0.ts")
    key = "#EXT-X-KEY:METHOD=SAMPLE-AES,URI=key\n#EXTINF"
    locked.content = str(locked.content).replace("#EXTINF", key)
    got = fetch(sites.serve("/a.m3u8", locked), programs={"ffmpeg": str(ffmpeg)})
    assert (got.cause, got.left) == (Cause.UNSUPPORTED, [])
    assert not (tmp_path / "ran").exists()


def test_data_in_the_fragment_is_ignored(
    fetch: Fetch, sites: Sites, shelf: Path
) -> None:
    url = sites.serve("/a.mp4", media.video(shelf))
    smuggled = "#__youtubedl_smuggle=%7B%22referer%22%3A%20%22http%3A//evil/%22%7D"
    assert fetch(url + smuggled).cause is None
    assert all("referer" not in request.headers for request in sites.requests)


def test_no_option_or_file_of_the_owner_undoes_the_safety(
    fetch: Fetch, sites: Sites, shelf: Path, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    options: dict[str, Any] = {
        "outtmpl": {"default": str(ran)},
        "paths": {"home": str(tmp_path)},
        "postprocessors": [{"key": "Exec", "exec_cmd": f"touch {ran}"}],
        "cookiesfrombrowser": ["firefox"],
        "external_downloader": {"default": "curl"},
        "netrc_cmd": f"touch {ran}",
        "usenetrc": True,
        "enable_file_urls": True,
        "extractor.directlink.filename": "gallery-dl's",
    }
    config = f'--exec "touch {ran}"'
    setup = f"""if True:
        import pathlib
        folder = pathlib.Path(".config/yt-dlp")
        folder.mkdir(parents=True)
        (folder / "config").write_text({config!r})"""
    url = sites.serve("/a.mp4", media.video(shelf))
    got = fetch(url, engine_options=options, setup=setup)
    assert got.names == got.left == ["job_1_temp_0001.mp4"]
    assert not ran.exists()


def test_only_the_programs_of_the_request_start(
    fetch: Fetch, sites: Sites, shelf: Path, tmp_path: Path
) -> None:
    for name in ("ffmpeg", "ffprobe", "deno", "phantomjs", "rtmpdump"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran-{name}\n")
        program.chmod(0o755)
    for piece in segments(shelf):
        sites.serve(f"/{piece.name}", piece)
    url = sites.serve("/a.m3u8", hls(*[piece.name for piece in segments(shelf)]))
    setup = f"""if True:
        import os
        os.environ["PATH"] = {str(tmp_path)!r}
        from yt_dlp.extractor.openload import PhantomJSwrapper
        from yt_dlp.extractor.generic import GenericIE
        extract = GenericIE._real_extract
        def look(self, url):
            assert not PhantomJSwrapper._version()
            return extract(self, url)
        GenericIE._real_extract = look"""
    assert fetch(url, programs={}, setup=setup).cause is None
    assert not list(tmp_path.glob("ran-*"))
