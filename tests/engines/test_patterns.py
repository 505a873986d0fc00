"""Which patterns are asked about a link: none is passed over that would match."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
from bossbot_plugins import gallery_dl, yt_dlp
from bossbot_plugins._patterns import all_needed, candidates, needed


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"(?:https?://)?(?:www\.)?Site\.example/(\w+)", "site.example/"),
        (r"https?://a\.b", "://a.b"),
        (r"(?:one|two)\.example", ".example"),
        (r"^ab$|^cd$", ""),
        (r"ab?cde", "cde"),
        (r"(?P<long>abc)(?:de)(?=x)f", "abcde"),
        (r"(?x) a b  # c", "ab"),
        (r"abc(?!abcdefgh)", "abc"),
        (r"(?:abcdefgh)?abc", "abc"),
        (r"\w+", ""),
    ],
)
def test_longest_text_that_each_match_has(pattern: str, text: str) -> None:
    assert needed(re.compile(pattern)) == text


def test_links_are_compared_without_case_and_other_letters_ask_all() -> None:
    patterns = [None, re.compile(r"site\.example"), re.compile(r"other\.example")]
    needs = all_needed(patterns)
    assert candidates(needs, "https://SITE.example/a") == [0, 1]
    assert candidates(needs, "https://\u017fite.example/a") == [0, 1, 2]


def passed_over(needs: str, asked: Sequence[Any], links: list[str]) -> list[str]:
    """The links that would match what is not asked about them."""
    missed = []
    for link in links:
        others = set(range(len(asked))).difference(candidates(needs, link))
        missed += [link for number in others if asked[number](link)]
    return missed


def test_no_extractor_misses_its_own_links() -> None:
    from yt_dlp.extractor import gen_extractor_classes

    needs, matches, classes = gallery_dl._table()
    links = [one.example for one in classes if one.example]
    assert len(links) > 500
    assert passed_over(needs, matches, links) == []
    needs, asked, *_ = yt_dlp._table()
    tests = [t for one in gen_extractor_classes() for t in one.get_testcases(True)]
    links = [test["url"] for test in tests if test["url"].startswith("http")]
    assert len(links) > 3000
    assert passed_over(needs, asked, links[::5]) == []
