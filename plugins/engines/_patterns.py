"""Tells which of an engine's many patterns may match a link, without asking each."""

import re
from collections.abc import Iterable, Sequence
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any


def needed(pattern: re.Pattern[str]) -> str:
    """The longest text that is in all that a pattern matches, in small letters; "" when
    there is none."""
    longest = run = ""

    def walk(items: Iterable[tuple[Any, Any]]) -> None:
        nonlocal longest, run
        for kind, value in items:
            if kind is _constants.LITERAL:
                run += chr(value).lower()
                longest = max(longest, run, key=len)
            elif kind is _constants.SUBPATTERN:
                walk(value[-1])
            elif kind is not _constants.AT:  # which is between two characters
                run = ""

    walk(_parser.parse(pattern.pattern, pattern.flags))
    return longest


def candidates(needs: Sequence[str], url: str) -> list[int]:
    """The numbers, in order, of the patterns that may match a link, by what they
    need."""
    if not url.isascii():  # other letters may count as the small form of a pattern's
        return list(range(len(needs)))
    small = url.lower()
    return [number for number, text in enumerate(needs) if text in small]
