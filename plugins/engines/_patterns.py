"""Finds the patterns that a link may match, without trying each one.

A pattern matches no link that lacks its literal parts, "imgur.com" for one. Four
characters of those find it in a table. A pattern without such a part is always tried.
"""

import contextlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from re import _constants as ops  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

LENGTH = 4  # of a piece
COMMON = "https://www."  # to look for a part of it gains nothing
Needs = dict[tuple[str, int], list[str]]  # by a pattern and its flags


@contextlib.contextmanager
def noting_needs() -> Iterator[Needs]:
    """What the patterns need that are compiled inside: to parse them again would take
    as long as to compile them."""
    needs, parse = Needs(), _parser.parse

    def note(source: Any, flags: int = 0, state: Any = None) -> Any:
        tree = parse(source, flags, state)
        if isinstance(source, str):
            needs[source, flags | tree.state.flags] = _needed(tree)
        return tree

    _parser.parse = note
    try:
        yield needs
    finally:
        _parser.parse = parse


def needed(pattern: re.Pattern[str], needs: Needs | None = None) -> list[str]:
    """Texts of which every ASCII text that the pattern matches has one, in lower case;
    none if that cannot be determined."""
    known = (needs or {}).get((pattern.pattern, pattern.flags))
    if known is None:
        return _needed(_parser.parse(pattern.pattern, pattern.flags))
    return known


def _needed(parts: Iterable[tuple[Any, Any]]) -> list[str]:
    best, shortest, run = list[str](), LENGTH - 1, ""
    for kind, value in [*parts, (ops.AT, None)]:
        if kind is ops.LITERAL and value < 128:
            run += chr(value).lower()
            continue
        if len(run) > shortest and run not in COMMON:
            best, shortest = [run], len(run)
        found, run = list[str](), ""
        if kind is ops.SUBPATTERN:
            found = _needed(value[-1])
        elif kind is ops.BRANCH:
            found = _needed_of_any(value[1])
        elif kind in (ops.MAX_REPEAT, ops.MIN_REPEAT) and value[0]:
            found = _needed(value[2])
        if found and (length := min(map(len, found))) > shortest:
            best, shortest = found, length
    return best


def _needed_of_any(branches: Iterable[Any]) -> list[str]:
    found = list[str]()
    for branch in branches:
        if not (texts := _needed(branch)):
            return []
        found += texts
    return found


def finder(
    patterns: Sequence[re.Pattern[str] | None], needs: Needs | None = None
) -> Callable[[str], list[int]]:
    """A function that returns the numbers of the patterns that a link may match, in
    order; None always matches."""
    texts = [needed(one, needs) if one else [] for one in patterns]
    count = Counter(piece for some in texts for one in some for piece in _pieces(one))
    table = defaultdict[str, list[int]](list)
    always = [number for number, some in enumerate(texts) if not some]
    for number, some in enumerate(texts):
        for text in some:
            table[min(_pieces(text), key=lambda piece: count[piece])].append(number)
    known = {piece: tuple(numbers) for piece, numbers in table.items()}

    def find(link: str) -> list[int]:
        if not link.isascii():  # which other letters match a letter is not so simple
            return list(range(len(patterns)))
        found = {*always}
        for piece in {*_pieces(link.lower())}:
            found.update(known.get(piece, ()))
        return sorted(found)

    return find


def _pieces(text: str) -> list[str]:
    return [text[at : at + LENGTH] for at in range(len(text) - LENGTH + 1)]
