"""Text from outside and for people: one line, escaped, sizes and times."""

import re

import pytest
from bossbot_plugins._failures import unsupported
from bossbot_plugins._links import show_link
from conftest import make_job
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ByteSize, TypeAdapter

from bossbot import (
    cut_line,
    escape,
    format_size,
    format_time,
    one_line,
    public_url,
)
from bossbot_contracts import without_queries

# Text as sites have it: everything, and often what could do harm.
NASTY = st.sampled_from(
    [
        "@everyone",
        "<@123>",
        "<@&1>",
        "[a](https://evil)",
        "discord.gg/x",
        "http://x",
        "||",
        "../",
        "/",
        "\\",
        "`",
        "```",
        "**",
        "__",
        "~~",
        ">",
        "#",
        "CON",
        ".",
        "é",
        "漢字",
        "😀",
        "\u202e",
        "\u200b",
        "\x1b[31m",
        "�",
    ]
) | st.sampled_from("\n\r\t\0\x0b\x85\u2028")
TEXT = st.one_of(
    st.text(st.characters(), max_size=300),
    st.lists(NASTY | st.text(st.characters(), max_size=9)).map("".join),
)
EXAMPLES = settings(deadline=None)


@EXAMPLES
@given(TEXT)
def test_one_line_has_nothing_that_moves_the_cursor(text: str) -> None:
    line = one_line(text)
    assert line.isprintable() or " " in line
    assert len(line.splitlines()) <= 1
    assert not re.search(
        "[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", line
    )
    assert one_line(line) == line
    line.encode()  # no half of a pair is left


@EXAMPLES
@given(TEXT, st.integers(1, 300))
def test_escaped_text_has_no_live_markup_and_a_limit(text: str, limit: int) -> None:
    escaped = escape(text, limit)
    assert len(escaped.splitlines()) <= 1
    assert len(escaped) <= 2 * limit
    assert "://" not in escaped
    alive = re.sub(r"\\.", "", escaped)
    assert not re.search(r"[\\*_~`|>\[\]()#<@]", alive)
    escaped.encode()


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain words, 5 of them.", "plain words, 5 of them."),
        ("@everyone", "\\@everyone"),
        ("<@!5>", "\\<\\@!5\\>"),
        ("[x](https://evil)", "\\[x\\]\\(https:\\/\\/evil\\)"),
        ("DISCORD.GG/abc", "DISCORD\\.GG/abc"),
        ("a\nb\x1b[31mc", "a bc"),
        ("\u202eevil\u200b", "evil"),
        ("x" * 500, "x" * 199 + "…"),
        ("C:\\*", "C:\\\\\\*"),
        ("discord.gift/abc", "discord\\.gift/abc"),
        ("discordapp.com/gifts/abc", "discordapp\\.com/gifts/abc"),
        ("discord.new/abc", "discord\\.new/abc"),
        ("disc\u200bord.gift/x", "discord\\.gift/x"),
        ("- item", "\\- item"),
        ("+ item", "\\+ item"),
        ("* item", "\\* item"),
        ("1. item", "1\\. item"),
        ("12) item", "12\\) item"),
        ("  - item", "\\- item"),
        ("# head", "\\# head"),
        ("-# small", "-\\# small"),
        ("> quote", "\\> quote"),
        ("a - b 1. c", "a - b 1. c"),
        ("-5 degrees, 1.5 m", "-5 degrees, 1.5 m"),
    ],
)
def test_escape_of_a_text(text: str, escaped: str) -> None:
    assert escape(text) == escaped


@EXAMPLES
@given(st.integers(0, 2**50))
def test_shown_size_is_near_the_size_and_a_setting_could_hold_it(size: int) -> None:
    shown = format_size(size)
    assert re.fullmatch(r"\d+(\.\d)? ([KMGTP]i)?B", shown)
    read = TypeAdapter(ByteSize).validate_python(shown)
    assert abs(read - size) <= size * 0.05


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (500, "500 B"),
        (1536, "1.5 KiB"),
        (20 * 2**20, "20 MiB"),
        (2**30, "1 GiB"),
        (512.7, "512 B"),
    ],
)
def test_size_is_shown_in_the_units_of_the_settings(size: float, shown: str) -> None:
    assert format_size(size) == shown


@EXAMPLES
@given(st.floats(-10, 10**7))
def test_shown_time_adds_up(seconds: float) -> None:
    shown = format_time(seconds)
    units = {"s": 1, "min": 60, "h": 3600}
    words = shown.split()
    total = sum(
        float(n) * units[u] for n, u in zip(words[::2], words[1::2], strict=True)
    )
    slack = 60 if "h" in words else 1
    assert abs(total - max(seconds, 0)) <= slack


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0.0 s"),
        (0.84, "0.8 s"),
        (8.2, "8 s"),
        (59.6, "1 min"),
        (125, "2 min 5 s"),
        (3840, "1 h 4 min"),
    ],
)
def test_time_is_shown_in_two_units_at_most(seconds: float, shown: str) -> None:
    assert format_time(seconds) == shown


def test_known_platforms_link_keeps_what_names_the_post() -> None:
    url = "https://a.example/p?token=hush#more"
    assert public_url(make_job(url=url, platform="tube")) == url
    assert public_url(make_job(url=url)) == "https://a.example/p"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a.example/b?c=d&e=%20#f", "<https://a.example/b?c=d&e=%20#f>"),
        ("https://a.example/_b_", "<https://a.example/_b_>"),
        ("https://a.example/<>[]()", "<https://a.example/%3C%3E%5B%5D%28%29>"),
        ("https://a.example/|*~`\\", "<https://a.example/%7C%2A%7E%60%5C>"),
        ("https://a.example/é漢", "<https://a.example/%C3%A9%E6%BC%A2>"),
        ("https://a.example/\u202e\n ", "<https://a.example/%E2%80%AE%0A%20>"),
        ("https://a.example/\ud800", "<https://a.example/?>"),
        ("https://a.example/" + "x" * 500, ""),
        ("https://a.example/" + "é" * 100, ""),
    ],
)
def test_shown_link_formats_nothing(url: str, shown: str) -> None:
    assert show_link(url) == shown


@EXAMPLES
@given(TEXT)
def test_any_shown_link_is_plain(text: str) -> None:
    shown = show_link(f"https://a.example/{text}")
    assert not shown or re.fullmatch(r"<[^<>\[\]()|*~`\s\\]*>", shown)
    assert shown.isascii() and len(shown) <= 502


def test_host_is_escaped_where_it_is_named() -> None:
    assert "from \\_a\\_.example." in unsupported("https://_a_.example/x")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("see https://a.example/b?c=d now", "see https://a.example/b now"),
        ("'https://a.example/b#c'", "'https://a.example/b'"),
        ("a://b?c a://d#e", "a://b a://d"),
        ("mple/b?c=d&e", "mple/b"),
        ("x?a=1&u=http://b.example/?c", "x"),
        ("what? a=1", "what? a=1"),
        ("://b?c", "://b?c"),
    ],
)
def test_queries_are_dropped_word_by_word(text: str, left: str) -> None:
    assert without_queries(text) == left


def test_cut_line_leaves_no_half_of_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bossbot_contracts._secrets", {"0123456789"})
    assert cut_line("x" * 2048) == "x" * 2048
    assert cut_line("x" * 2049) == "x" * 2048 + "…"
    for before in range(2030, 2060):
        cut = cut_line("x" * before + "0123456789" + "y" * 100)
        assert cut.rstrip("y…") in (
            "x" * before + "0123456789",
            "x" * min(before, 2048),
        )
