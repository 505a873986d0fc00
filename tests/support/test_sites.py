"""The loopback sites: the real engines find real media there, and nothing elsewhere."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import media
import pytest
from sites import (
    YTDLP_TRUST,
    Answer,
    Sites,
    gzip_bomb,
    in_turn,
    redirect,
)
from sites_canned.instagram import Instagram
from sites_canned.reddit import Reddit
from sites_canned.tiktok import TikTok
from sites_canned.twitter import Twitter
from sites_canned.youtube import YouTube

fetch = build_opener(ProxyHandler({})).open


@pytest.fixture
def sites() -> Iterator[Sites]:
    with Sites() as running:
        yield running


@pytest.fixture(scope="session")
def folder(media_folder: Path) -> Path:
    return media_folder


class Engines:
    """The two commands, with a home of their own and the sites as their web."""

    def __init__(self, sites: Sites, home: Path) -> None:
        self.home, self.saved = home, home / "saved"
        self._environment = {**os.environ, **sites.environment, "HOME": str(home)}
        self._environment["XDG_CACHE_HOME"] = str(home)

    def gallery_dl(self, url: str, *options: str) -> "subprocess.CompletedProcess[str]":
        """Saves files as their number and extension."""
        name = ["-f", "{num|1:>02}.{extension}", "-D", str(self.saved)]
        trust = 'downloader.ytdl.raw-options={"compat_opts": ["no-certifi"]}'
        always = ["--config-ignore", "-R", "0", *name, "-o", trust]
        return self._run("gallery_dl", *always, *options, url)

    def yt_dlp(self, url: str, *options: str) -> "subprocess.CompletedProcess[str]":
        """Saves files as their id and extension."""
        name = ["-o", "%(id)s.%(ext)s", "-P", str(self.saved)]
        always = ["--ignore-config", "--no-cache-dir", "--no-update", *YTDLP_TRUST]
        return self._run("yt_dlp", *always, *name, *options, url)

    def _run(self, module: str, *options: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", module, *options]
        return subprocess.run(
            command,
            env=self._environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def files(self) -> list[bytes]:
        """The contents of what was saved, by name."""
        return [path.read_bytes() for path in sorted(self.saved.glob("*"))]


@pytest.fixture
def engines(sites: Sites, tmp_path: Path) -> Engines:
    return Engines(sites, tmp_path)


def test_four_photos_of_a_tweet_arrive_in_order(
    sites: Sites, engines: Engines, folder: Path
) -> None:
    photos = [media.image(folder, number) for number in (1, 2, 3, 4)]
    done = engines.gallery_dl(Twitter(sites).tweet("1001", *photos))
    assert done.returncode == 0, done.stderr
    assert engines.files() == [photo.read_bytes() for photo in photos]
    assert not sites.unknown


def test_hidden_tweet_opens_with_the_cookie_alone(
    sites: Sites, engines: Engines, folder: Path
) -> None:
    twitter = Twitter(sites)
    url = twitter.tweet("1002", media.video(folder))
    twitter.refused("1002", "NsfwLoggedOut")
    refused = engines.gallery_dl(url)
    assert (refused.returncode, engines.files()) == (16, [])
    assert "AuthRequired: NSFW Tweet" in refused.stderr
    cookie = f'cookies={{"auth_token": "{twitter.auth_token}"}}'
    assert engines.gallery_dl(url, "-o", cookie).returncode == 0
    assert engines.files() == [media.video(folder).read_bytes()]


def test_reddit_gallery_arrives_in_order(
    sites: Sites, engines: Engines, folder: Path
) -> None:
    pictures = [media.image(folder, number) for number in range(1, 13)]
    reddit = Reddit(sites)
    reddit.gallery("abc", *pictures)
    done = engines.gallery_dl(reddit.share("abc"))
    assert done.returncode == 0, done.stderr
    assert engines.files() == [picture.read_bytes() for picture in pictures]
    assert not sites.unknown


def test_reddit_video_is_put_together_from_its_streams(
    sites: Sites, engines: Engines, folder: Path
) -> None:
    picture = media.video(folder, sound=False)
    sound = media.video(folder, picture=False)
    done = engines.gallery_dl(Reddit(sites).video("abd", picture, sound))
    assert done.returncode == 0, done.stderr
    (file,) = engines.files()
    assert b"avc1" in file and b"mp4a" in file
    assert not sites.unknown


def test_instagram_carousel_keeps_its_order(
    sites: Sites, engines: Engines, folder: Path
) -> None:
    files = [media.image(folder), media.video(folder), media.image(folder, 2)]
    instagram = Instagram(sites)
    url = instagram.post("Cabc1", *files)
    assert "HTTP redirect to login page" in engines.gallery_dl(url).stderr
    cookie = f'cookies={{"sessionid": "{instagram.session_id}"}}'
    done = engines.gallery_dl(url, "-o", cookie)
    assert done.returncode == 0, done.stderr
    assert engines.files() == [file.read_bytes() for file in files]


def test_tiktok_video_arrives_by_its_short_link(
    sites: Sites, engines: Engines, folder: Path
) -> None:
    tiktok = TikTok(sites)
    tiktok.video("7100000000000000001", media.video(folder))
    done = engines.yt_dlp(tiktok.short("7100000000000000001"))
    assert done.returncode == 0, done.stderr
    assert engines.files() == [media.video(folder).read_bytes()]
    assert not sites.unknown


def test_youtube_video_arrives_and_a_private_one_says_so(
    sites: Sites, engines: Engines, folder: Path
) -> None:
    youtube = YouTube(sites)
    done = engines.yt_dlp(youtube.video("aaaaaaaaaa1", media.video(folder)))
    assert done.returncode == 0, done.stderr
    assert engines.files() == [media.video(folder).read_bytes()]
    private = engines.yt_dlp(youtube.refused("aaaaaaaaaa2", "private"))
    assert (private.returncode, "Private video" in private.stderr) == (1, True)
    assert not sites.unknown


def test_unknown_host_is_refused_and_recorded(sites: Sites, engines: Engines) -> None:
    done = engines.gallery_dl("https://elsewhere.example/a.jpg")
    assert (done.returncode, engines.files()) == (4, [])
    assert sites.unknown == ["https://elsewhere.example:443"]


def test_plain_http_goes_through_the_proxy_as_well(sites: Sites) -> None:
    sites.serve("http://plain.example/*.txt", lambda request: request.host)
    proxied = build_opener(ProxyHandler({"http": sites.environment["HTTP_PROXY"]}))
    assert proxied.open("http://plain.example/a.txt").read() == b"plain.example"
    assert sites.hits["plain.example/a.txt"] == 1


def test_ranges_and_hits_are_those_of_a_web_server(sites: Sites) -> None:
    url = sites.serve("/a.txt", b"0123456789")
    assert fetch(url).read() == b"0123456789"
    part = fetch(Request(url, headers={"Range": "bytes=3-5"}))
    assert (part.status, part.read()) == (206, b"345")
    assert sites.hits["/a.txt"] == 2
    assert sites.requests[-1].headers["range"] == "bytes=3-5"


def test_redirects_and_answers_in_turn(sites: Sites) -> None:
    busy = Answer("later", 429, {"Retry-After": "1"})
    url = sites.serve("/end", in_turn(busy, b"now"))
    start = sites.serve("/start", redirect(url))
    with pytest.raises(HTTPError) as caught:
        fetch(start)
    assert (caught.value.code, caught.value.headers["Retry-After"]) == (429, "1")
    caught.value.close()
    assert fetch(start).read() == b"now"


def test_announced_length_may_be_a_lie_and_bombs_are_small(sites: Sites) -> None:
    with pytest.raises(IncompleteRead):
        fetch(sites.serve("/short", b"12345", length_bytes=9)).read()
    assert len(fetch(sites.serve("/bomb", gzip_bomb(10_000_000))).read()) < 20_000
    stream = fetch(sites.serve("/endless", b"more ", endless=True))
    assert stream.read(1_000_000).count(b"more ") == 200_000
    stream.close()


def test_held_answer_stops_halfway_until_it_is_let_go(sites: Sites) -> None:
    go = threading.Event()
    answer = fetch(sites.serve("/held", b"01234567", hold=go))
    sites.wait_for("/held")
    assert answer.read(4) == b"0123"
    go.set()
    assert answer.read() == b"4567"


def test_mistake_in_a_handler_is_shown_in_the_end() -> None:
    with pytest.raises(KeyError), Sites() as sites:
        url = sites.serve("/a", lambda request: request.query["missing"])
        with pytest.raises(HTTPError) as caught:
            fetch(url)
        caught.value.close()


def test_padded_files_have_the_exact_size(folder: Path) -> None:
    assert media.padded_image(folder, 50_000).stat().st_size == 50_000
    assert media.padded_video(folder, 3 << 20).stat().st_size == 3 << 20
