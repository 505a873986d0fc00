"""Tests of plugins/engines/_patterns.py: no pattern is passed over that matches."""

import re

import pytest
from bossbot_plugins._patterns import finder, needed, noting_needs
from bossbot_plugins.gallery_dl import _table
from hypothesis import given, settings
from hypothesis import strategies as st

PATTERNS = [
    r"https?://(?:www\.)?imgur\.com/(\w+)",
    r"(?i)https?://IMGUR\.com/a",
    r"(?:https?://)?(?:www\.|m\.)?(?:tumblr\.com|tumbex\.org)/([^/?#]+)",
    r"https?://[^/?#]+/(?P<path>[^?#]+\.(?:jpe?g|png))$",
    r"""(?x)  # a comment
        https?://(?:
            (?:\w+\.)?example\.(?:org|net)
            | other\.example
        )/(?P<id>\d+)""",
    r"https?://(?!www)(?=\w)([\w-]+)\.booru\.org/(?:index|post){1,2}",
    r"https?://(?:maybe\.never\.com)?x\.se/(?:one|two|three)*",
    r"https?://(?P<a>abcd)?(?(a)efgh|ijkl)(?P=a)?",
    r"https?://(?>atomic\.com)/y++" if hasattr(re, "NOFLAG") else "abcd",
    r"vk\.ru",
    r"(?:one|)two",
    r"https?://(?i:MiXeD\.com)/(?-i:CaSe)",
    r".*",
]
# What can be encoded, which takes hypothesis a second to find out by itself.
CHARACTERS = st.characters(exclude_categories=["Cs"])
COMPILED = [re.compile(one) for one in PATTERNS]
FIND = finder(COMPILED)


@pytest.mark.parametrize("number", range(len(PATTERNS)), ids=PATTERNS)
def test_what_a_pattern_matches_is_found(number: int) -> None:
    @settings(max_examples=12, deadline=None)
    @given(st.from_regex(COMPILED[number], alphabet=CHARACTERS))
    def matching(text: str) -> None:
        for one, pattern in enumerate(COMPILED):
            if pattern.match(text):
                assert one in FIND(text), (pattern, text)

    matching()


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        (r"https?://(?:www\.)?imgur\.com/", ["imgur.com/"]),
        (r"(?i)Imgur\.COM", ["imgur.com"]),
        (r"(?:abcd\.com|efgh\.org)/x", ["abcd.com", "efgh.org"]),
        (r"(?:abcd)+", ["abcd"]),
        (r"(?:abcd)?", []),
        (r"(?:abcd|)", []),
        (r"abc.def", []),
        (r"https://www\.", []),
        (r"ééééé", []),
    ],
)
def test_pattern_needs_its_literal_parts(pattern: str, texts: list[str]) -> None:
    assert needed(re.compile(pattern)) == texts


def test_few_of_many_patterns_are_asked_for_a_link() -> None:
    many = [re.compile(rf"https?://(?:www\.)?site{n:04}\.com/") for n in range(3000)]
    find = finder(many)
    assert find("https://site1234.com/a") == [1234]
    assert find("https://1.1.1.1/a.jpg") == []
    assert len(find("https://ſite1234.com/")) == 3000  # "ſ" may stand for "s"


def test_patterns_are_parsed_once() -> None:
    with noting_needs() as needs:
        pattern = re.compile(r"(?x) https:// once\.example /")
    assert needs == {(pattern.pattern, pattern.flags): needed(pattern)}
    assert needed(pattern) == ["https://once.example/"]
    needs[pattern.pattern, pattern.flags] = ["other"]
    assert needed(pattern, needs) == ["other"]


def test_extractors_are_found_as_by_asking_all() -> None:
    """By the examples of the engine's own, and with most left out."""
    find, matches, extractors = _table()
    for number, one in enumerate(extractors):
        url = one.example
        known = [n for n, match in enumerate(matches) if match(url)]
        assert {*known} <= {*find(url)}, (number, url)
        assert len(find(url)) < 60
