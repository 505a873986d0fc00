"""Makes a model's answer safe to show. The model has read posts that anybody may have
written, so its words are as untrusted as theirs: nothing in them links, mentions or
formats, and a source counts only if the model was given it."""

import re
from collections.abc import Callable
from typing import NamedTuple

from bossbot import escape, one_line, redact

MAX_TEXT = 64 * 2**10  # characters that are looked at
MAX_LINES = 20
MAX_LINE = 700  # characters
MAX_SHOWN = 1800  # characters of an answer
MAX_LINKS = 20  # of its sources, in the text
NOTHING = "NOTHING"  # what the model says when the posts do not answer

THOUGHTS = "think|thinking|thought|reasoning|analysis"
MENTION = re.compile(r"<(?:@[!&]?|#|a?:\w{1,32}:|/[\w -]{1,100}:|id:|t:)[\w:-]{0,40}>")
# "[1, 2]", "【1】", "[^1]", "[Post 1]".
NUMBERS = re.compile(
    r"[\[【〔]\s?(?:\^|#|(?:posts?|sources?|n)\s?)?"
    r"(\d{1,3}(?:\s?(?:,|;|-|–|&|and|、|，)\s?\d{1,3}){0,9})"
    r"\s?[\]】〕]",
    re.IGNORECASE,
)
MARKS = (
    (re.compile(r"!?\[([^\[\]\n]{0,300})\]\([^()\n]{0,2000}\)?"), r" \1 "),
    (re.compile(r"<?\b[a-z][a-z0-9+.-]{1,15}:/[^\s>]*>?", re.IGNORECASE), ""),
    (re.compile(r"\b(?:www\.|discord(?:app)?\.(?:gg|com))[^\s]*", re.IGNORECASE), ""),
    (MENTION, ""),
    (re.compile(r"@(everyone|here)\b"), r"\1"),
    (re.compile(r"^[ \t]*(?:#{1,6}[ \t]|>+|-#[ \t])[ \t]*", re.MULTILINE), ""),
    (re.compile(r"^[ \t]*[-*+][ \t]+", re.MULTILINE), "• "),
    (re.compile(r"\*{1,3}|`{1,3}|~~|\|\||__"), ""),
    (re.compile(r"</?[a-z][^<>\n]{0,100}>", re.IGNORECASE), ""),
)


class Cited(NamedTuple):
    """An answer that is safe to show."""

    text: str
    sources: list[int]  # the numbers in it, from 1, in their order, each once


def cited(answer: str, count: int, link: Callable[[int], str]) -> Cited | None:
    """A model's answer to a question with ``count`` posts, as it is shown, even if it
    is not complete; None if it cites none of them, has no other words, or finds no
    answer in them.

    Args:
        link: the address of a post, by its number.
    """
    text = without_thoughts(answer[:MAX_TEXT])
    # Invisible characters could hide links and mentions from the patterns.
    text = "\n".join(map(one_line, text.splitlines()))
    if re.match(rf"\W*{NOTHING}\b", text):
        return None
    text = NUMBERS.sub(lambda found: numbered(found[1], count), text)
    # A number that is a link is not one more source.
    text = re.sub(r"(\[\d{1,3}\])\([^()\n]{0,2000}\)?", r"\1", text)
    for pattern, kept in MARKS:
        text = pattern.sub(kept, text)
    if not re.search(r"[^\W\d_]", text):
        return None
    sources: list[int] = []
    lines, length, links = [], 0, 0

    def linked(found: re.Match[str]) -> str:
        nonlocal links
        number = int(found[1])
        if not 1 <= number <= count:
            return ""
        if number not in sources:
            sources.append(number)
        links += 1
        shown = f"[{number}]"
        return f"[{shown}]({link(number)})" if links <= MAX_LINKS else shown

    for line in [one for one in text.split("\n") if one.strip()][:MAX_LINES]:
        shown = escape(redact(line), min(MAX_LINE, MAX_SHOWN - length))
        length += len(shown)
        shown = re.sub(r"\\\[(\d{1,3})\\\]", linked, shown)
        if shown.strip("• "):
            lines.append(shown)
        if length >= MAX_SHOWN - 20:
            break
    return Cited("\n".join(lines), sources) if sources else None


def numbered(numbers: str, count: int) -> str:
    """ "[1][2]" for "1, 2", for posts that exist."""
    found = [int(one) for one in re.findall(r"\d{1,3}", numbers)]
    return "".join(f"[{one}]" for one in found if 1 <= one <= count)


def without_thoughts(text: str) -> str:
    """An answer without the model's thoughts before it, and without an incomplete
    tag."""
    text = re.sub(
        rf"<({THOUGHTS})>.*?(?:</\1>|\Z)", "", text, flags=re.DOTALL | re.IGNORECASE
    )
    # Some begin to think before their first word.
    text = re.split(rf"</(?:{THOUGHTS})>", text, flags=re.IGNORECASE)[-1]
    text = re.sub(r"<\|[^|<>\n]{0,50}\|>", "", text)
    return re.sub(r"<[^<>\s]{0,20}\Z", "", text)
