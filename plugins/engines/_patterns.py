"""Tells which of an engine's many patterns may match a link, without asking each."""

import re
from collections.abc import Iterable
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any


def needed(pattern: re.Pattern[str]) -> str:
    """The longest text that is in all that a pattern matches, in small letters; "" when
    there is none."""
    longest = run = ""

    def walk(items: Iterable[tuple[Any, Any]]) -> None:
        nonlocal longest, run
        for kind, value in items:
            if kind is _constants.LITERAL and value > ord(" "):
                run += chr(value).lower()
                longest = max(longest, run, key=len)
            elif kind is _constants.SUBPATTERN:
                walk(value[-1])
            elif kind is not _constants.AT:  # which is between two characters
                run = ""

    walk(_parser.parse(pattern.pattern, pattern.flags))
    return longest


def all_needed(patterns: Iterable[re.Pattern[str] | None]) -> str:
    """What each pattern needs, in lines; nothing for None. As one text, of which a
    child copies no page."""
    return "\n".join(needed(one) if one else "" for one in patterns)


def candidates(needs: str, url: str) -> list[int]:
    """The numbers, in order, of the patterns that may match a link, by what they all
    need."""
    # Other letters may count as the small form of one in a pattern: then all may match.
    small = url.lower() if url.isascii() else needs
    texts = enumerate(needs.split("\n"))
    return [number for number, text in texts if text in small]
