"""The loopback sites are web servers, and nothing is found elsewhere. That the engines
find there what they find on the real ones is tried in test_platforms_end_to_end.py."""

import threading
from collections.abc import Iterator
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener

import media
import pytest
from sites import Answer, Sites, gzip_bomb, in_turn, redirect

fetch = build_opener(ProxyHandler({})).open


@pytest.fixture
def sites() -> Iterator[Sites]:
    with Sites() as running:
        yield running


def proxied(sites: Sites) -> OpenerDirector:
    """Opens pages as the engines do."""
    settings = {kind: sites.environment["HTTP_PROXY"] for kind in ("http", "https")}
    return build_opener(ProxyHandler(settings))


def test_unknown_host_is_refused_and_recorded(sites: Sites) -> None:
    with pytest.raises(OSError, match="Tunnel connection failed"):
        proxied(sites).open("https://elsewhere.example/a.jpg")
    assert sites.unknown == ["https://elsewhere.example:443"]


def test_plain_http_goes_through_the_proxy_as_well(sites: Sites) -> None:
    sites.serve("http://plain.example/*.txt", lambda request: request.host)
    page = proxied(sites).open("http://plain.example/a.txt")
    assert page.read() == b"plain.example"
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


def test_padded_files_have_the_exact_size(media_folder: Path) -> None:
    assert media.padded_image(media_folder, 50_000).stat().st_size == 50_000
    assert media.padded_video(media_folder, 3 << 20).stat().st_size == 3 << 20
