"""Text from outside takes linear time, whatever it is: it is looked at on the event loop."""

import functools
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from bossbot_plugins import (
    _cookies,
    _failures,
    _links,
    auto_links,
    file_storage,
    platform_router,
)
from bossbot_plugins._answers import packed
from bossbot_plugins._reports import clean
from bossbot_plugins.download import explained
from bossbot_plugins.progress import render_all
from conftest import make_job

import bossbot
import bossbot_contracts
from bossbot import App, Cause, JobFailed, Refused, Settings, Status

SHORT, TIMES = 1_000, 8
SLOW = {
    "first_cause": 200,
    "escape": 500,
}  # shorter ones, for what has much to do with each letter
# A quadratic function takes 64 times as long for a text 8 times as long.
SLACK = 3.5
NOTHING_S = 0.002  # is too short to be compared

PIECES = [
    "://",
    "a://",
    "http",
    "https://",
    "https://a/",
    "https://a.b/c,",
    "https://a/**",
    "**https://a/",
    "https://@",
    "?a=1&",
    "?a=",
    "a?a",
    "?",
    "@",
    " ",
    "\t \n",
    "\n",
    "\r",
    "(",
    ")",
    "](",
    "[a](",
    "<",
    "</p>",
    "|",
    "||",
    "*",
    "**a ",
    "_",
    "~~",
    "`",
    "```",
    "<a://",
    "`<a:/",
    "\\",
    "\\_",
    ".",
    "a.",
    "a-",
    "youtu.be/",
    "youtu.be/x,",
    "x.com/a ",
    "&amp;",
    "&",
    "'token': '",
    "webhooks/1",
    "interactions/1/a",
    "discord.",
    "1",
    "-",
    "%",
    "#",
    "é",
    "漢",
    "，",
    "😀",
    "\u200b",
    "\u200bhttps://a",
    "\x1b[",
    "\x1b[31",
    "gallery ",
    "reason given: ",
    "a\tb\t",
    "#HttpOnly_",
]


def check(text: str) -> None:
    try:
        platform_router.check_link(f"https://{text}")
    except Refused:
        pass


KNOWN = _links.known_by([])
FUNCTIONS: dict[str, Callable[[str], Any]] = {
    "redact": bossbot.redact,
    "clean": clean,
    "without_queries": bossbot_contracts.without_queries,
    "one_line": bossbot.one_line,
    "one_line unfolded": lambda text: bossbot.one_line(text, fold=False),
    "escape": lambda text: bossbot.escape(text, len(text)),
    "escape short": bossbot.escape,
    "cut_line": bossbot.cut_line,
    "show_link": lambda text: _links.show_link(text, len(text)),
    "public_url": lambda text: bossbot.public_url(make_job(url=text)),
    "JobFailed": lambda text: JobFailed(Cause.INTERNAL, text),
    "find_links": lambda text: _links.find_links(text, KNOWN),
    "without_code": auto_links.without_code,
    "find_links after a scheme": lambda text: _links.find_links(f"https://{text}"),
    "check_link": check,
    "ascii_host": lambda text: check(text[:1900]),
    "first_cause": lambda text: _failures.first_cause(text, tables_once()),
    "wait_asked_s": lambda text: _failures.wait_asked_s({"Retry-After": text}),
    "cookies": _cookies._cookie_rows,
    "safe_name": file_storage.safe_name,
    "refusals": lambda text: packed(
        (one, None) for one in explained({text: [text, text]})
    ),
    "status message": lambda text: render_all(
        [
            make_job(id=str(n), status=Status.FAILED, error=text, url=text)
            for n in range(3)
        ],
        {},
    ),
}


@functools.cache
def tables_once() -> list[tuple[str, Cause]]:
    """All words of all our platforms and engines for failures."""
    rows = []
    with tempfile.TemporaryDirectory() as none:
        app = App(Settings.model_validate({"plugins_dir": none}))
        app.plugins.load()
        for platform in app.plugins.registered("platforms").values():
            rows += platform.failures
        from bossbot_plugins import gallery_dl, yt_dlp

    return [*rows, *gallery_dl.WORDS, *yt_dlp.WORDS, *yt_dlp.SAID]


def best_s(function: Callable[[str], Any], text: str, tries: int) -> float:
    """The shortest of several times: the others were disturbed."""
    times = []
    for _ in range(tries):
        before = time.process_time()
        function(text)
        times.append(time.process_time() - before)
    return min(times)


def is_linear(
    function: Callable[[str], Any],
    piece: str,
    length: int = SHORT,
    attempts: Sequence[int] = (1, 3, 7, 15),  # what seems slow is looked at again
) -> bool:
    """Whether a text 8 times as long takes about 8 times as long."""
    for tries in attempts:
        short = piece * (length // len(piece))
        long_s = best_s(function, short * TIMES, tries)
        if long_s < NOTHING_S:
            return True
        short_s = best_s(function, short, 2 * tries)
        if long_s < max(short_s, NOTHING_S / TIMES) * TIMES * SLACK:
            return True
    return False


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_text_n_times_as_long_takes_about_n_times_as_long(name: str) -> None:
    function = FUNCTIONS[name]
    function("https://a.example/x")  # what is made once is made
    slow = [
        (before, piece, after)
        for before, after in (("", ""), ("**~~_||", " ||"), ("https://a.b/?", "@x"))
        for piece in PIECES
        if not is_linear(
            lambda text: function(before + text + after),  # noqa: B023
            piece,
            SLOW.get(name, SHORT),
        )
    ]
    assert not slow


def test_a_slow_function_would_be_found() -> None:
    old = re.compile(r"(\w://[^\s'\"<>?#]*)[?#][^\s'\"<>]*")
    sub = functools.partial(old.sub, "")
    assert not is_linear(sub, "a://", SLOW["escape"], attempts=[1])
    assert is_linear(lambda text: [*map(ord, text)], "a://")
