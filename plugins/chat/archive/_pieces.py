"""Cuts texts into pieces that are found one by one."""

import re
from collections.abc import Iterable, Iterator, Sequence

from bossbot import Passage, one_line

from ._words import sentences

CUTTING = 2  # of this file and ``_words.py``; a change rebuilds all
WINDOW_S = 30.0  # of subtitles in one piece
MAX_TAIL = 160  # characters of the sentence before


def clean(text: str) -> str:
    """Text from outside in lines without what cannot be seen; empty ones are left out."""
    lines = map(one_line, re.split(r"[\r\n\v\f\x85\u2028\u2029]+", text))
    return "\n".join(filter(None, lines))


def cut(text: str, size: int) -> list[str]:
    """The pieces of a text, of at most ``size`` characters, if it can be between two
    sentences, else between two words."""
    pieces, current = [""], ""
    for part in _parts(text, size):
        current = f"{pieces[-1]} {part}" if pieces[-1] else part
        if len(current) <= size:
            pieces[-1] = current
        else:
            pieces.append(part)
    return [piece for piece in pieces if piece]


def _parts(text: str, size: int) -> Iterator[str]:
    for sentence in sentences(text):
        while len(sentence) > size:
            at = sentence.rfind(" ", size // 2, size + 1)
            at = at if at > 0 else size
            yield sentence[:at].strip()
            sentence = sentence[at:].strip()
        if sentence:
            yield sentence


def whole(title: str, before: str, text: str) -> str:
    """What is searched of a piece: with the title, and the end of the piece before."""
    last = sentences(before)[-1:] if before else []
    tail = last[0][-MAX_TAIL:] if last else ""
    head = "" if text.startswith(title) else title
    return "\n".join(filter(None, [head, f"{tail} {text}".strip()]))


def windows(cues: Iterable[tuple[float, str]]) -> list[Passage]:
    """Subtitles, given as seconds and words, in passages of half a minute. What is shown
    again, as a line that moves up, counts once."""
    passages: list[Passage] = []
    lines: list[str] = []
    said: list[str] = []
    start_s = 0.0
    for at_s, words in cues:
        if lines and at_s >= start_s + WINDOW_S:
            passages.append(Passage(" ".join(lines), "subtitles", start_s))
            lines = []
        if not lines:
            start_s = at_s
        new = [one for one in clean(words).split("\n") if one and one not in said]
        said = (said + new)[-4:]
        lines += new
    if lines:
        passages.append(Passage(" ".join(lines), "subtitles", start_s))
    return [passage for passage in passages if passage.text]


def fitted(passages: Sequence[Passage], limit_bytes: int) -> list[Passage]:
    """The first passages that take so many bytes, clean; the last one may be cut."""
    kept = []
    for passage in passages:
        text = clean(passage.text[:limit_bytes]).encode()[:limit_bytes]
        limit_bytes -= len(text)
        if text:
            kept.append(passage._replace(text=text.decode("utf-8", "ignore")))
    return kept


def joined(passages: Iterable[Passage]) -> list[Passage]:
    """Pieces as the passages that they were cut from, as far as that can be found."""
    whole: list[Passage] = []
    for one in passages:
        if whole and whole[-1][1:] == one[1:]:
            whole[-1] = one._replace(text=f"{whole[-1].text} {one.text}")
        else:
            whole.append(one)
    return whole
