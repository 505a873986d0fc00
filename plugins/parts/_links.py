"""Finds the links in people's texts, whatever is around them, and shows them."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from bossbot import Platform

MAX_LINK = 2000  # characters; a longer one is cut and then refused
DISCORD = re.compile(
    r"https?://(?:\w+\.)?discord(?:app)?\.com/channels/", re.IGNORECASE
)
# A link, or a host with a path, which counts when a platform supports it. Not the end of a
# word, address or path; but Chinese and Japanese have no space before a link.
START = re.compile(
    r"https?://(?:https?:?//)*"
    r"|(?-i:(?<![^\W\u2e80-\uffff]))(?<![@/:.\\%-])"
    r"(?P<bare>(?:[a-z0-9-]{1,63}\.){1,5}[a-z]{2,18}(?::\d{1,5})?/)",
    re.IGNORECASE,
)
END = re.compile(
    r"[\s<>\"`“”„‟«»‹›،؛؟।、。〃〈-】〔-〟！＂＇（），：；＜＞？［］｛｝｟-､…—→]|\|\||\]\(|\[/"
    r"|&(?:lt|gt|quot|apos|#0*(?:34|39|60|62)|#x0*(?:22|27|3c|3e));",
    re.IGNORECASE,
)
AMPERSAND = re.compile(r"&(?:amp;|#0*38;|#x0*26;)+", re.IGNORECASE)
ESCAPED = re.compile(r"\\([_*~()\[\]])")  # as Discord's own clients copy it
MARKS = re.compile(r"\*+|_+|~~")
AFTER = ".,;:!?'|"  # at a link's end it belongs to the sentence
PAIRS = {")": "(", "]": "[", "}": "{"}
# Before a link inside a link, as an archive has it. After anything else begins a second.
INSIDE = "/=?#&:%@"
# What a link is given on its way, and what leads to nothing else.
TRACKING = re.compile(
    r"utm_\w+|(?:fb|g|d|tw|tt|y|ys)clid|msclkid|gclsrc|[gw]braid|igsh|igshid|si|mc_[ce]id"
    r"|mkt_tok|_hs(?:enc|mi)|ref_(?:src|url)|share_id|vero_\w+|oly_\w+|at_medium"
    r"|at_campaign|s_kwcid",
    re.IGNORECASE,
)
# Characters that need no percent sign.
PLAIN = re.compile(r"%(?:2[DE]|3\d|[46][1-9A-F]|[57][0-9A]|5F|7E)", re.IGNORECASE)
UNSEEN = "\u034f\u115f\u1160\u2800\u3164\uffa0"  # though they count as letters


def text_of(message: Any) -> str:
    """All words of a discord.Message, with those that it forwards."""
    forwarded = getattr(message, "message_snapshots", ())
    return "\n".join([message.content, *(one.content for one in forwarded)])


class Found(NamedTuple):
    """A link, and whether its writer has hidden it behind "||"."""

    link: str
    spoiler: bool


def known_by(platforms: Iterable[Platform]) -> Callable[[str], bool]:
    """A test whether a link belongs to one of the platforms, or to Discord."""
    patterns = [re.compile(one.pattern, re.IGNORECASE) for one in platforms]
    patterns.append(DISCORD)
    return lambda link: any(pattern.match(link) for pattern in patterns)


def nothing(link: str) -> bool:
    """Knows no link."""
    return False


def find_links(text: str, known: Callable[[str], bool] = nothing) -> list[str]:
    """The links in a text, in order and once each, without what is around them. One
    that is known may lack its "https://"."""
    return [found.link for found in find_spoilers(text, known)]


def find_spoilers(text: str, known: Callable[[str], bool] = nothing) -> list[Found]:
    """The same, with what is a spoiler. It takes time in proportion to the text, since
    it looks at each link for MAX_LINK characters and at the rest once."""
    links: dict[str, bool] = {}
    bars = [match.start() for match in re.finditer(r"\|\|", text)]
    passed = position = 0  # the bars before the link, and the position so far
    opened = Counter[str]()  # the marks of emphasis that are not closed yet
    while match := START.search(text, position):
        start = match.start()
        note_marks(text, position, start, opened)
        position = match.end()
        if match["bare"]:
            if not is_known(text, start, known):
                continue
            scheme, begin = "https://", start
        else:  # "https://https://" is one of them too many
            schemes = re.findall("https?", match[0], re.IGNORECASE)
            scheme, begin = f"{schemes[-1]}://", position
        end, position = link_end(text, position, opened, known)
        while passed < len(bars) and bars[passed] < start:
            passed += 1
        if begin < end:
            link = scheme + clean(text[begin:end])
            hidden = passed % 2 == 1 and passed < len(bars)
            links[link] = links.get(link, False) or hidden
    return [Found(*pair) for pair in links.items()]


def note_marks(text: str, start: int, stop: int, opened: Counter[str]) -> None:
    """Count the marks of emphasis that a piece of text opens and closes."""
    for match in MARKS.finditer(text, start, stop):
        char, count = match[0][0], len(match[0])
        before = text[match.start() - 1 : match.start()]
        after = text[match.end() : match.end() + 1]
        if opened[char] and before and not before.isspace():
            opened[char] = max(opened[char] - count, 0)
        elif after and not after.isspace() and not (char == "_" and before.isalnum()):
            opened[char] += count


def is_known(text: str, start: int, known: Callable[[str], bool]) -> bool:
    """Whether what begins here is a known link that only lacks its "https://"."""
    before = text[max(start - 9, 0) : start]
    seen = before.rstrip("".join(filter(is_hidden, before)))
    if seen != before and (seen[-1:].isalnum() or seen[-1:] in ("-", ".", "@", "/")):
        return False  # a hidden character inside the host
    word = text[start : start + 300]
    end = END.search(word)
    word = re.sub("^([^/]*):443/", r"\1/", word[: end.start()] if end else word)
    return known(f"https://{word}")


def link_end(
    text: str, start: int, opened: Counter[str], known: Callable[[str], bool]
) -> tuple[int, int]:
    """Where a link ends whose host, or path, begins at ``start``, and where to go on."""
    stop = min(start + MAX_LINK + 1, len(text))
    if found := END.search(text, start, stop):
        stop = found.start()
    elif stop < len(text):  # too long, as the answer will say
        found = END.search(text, stop)
        return stop, found.start() if found else len(text)
    stop = unbalanced(text, start, stop)
    for mark in ("**", "~~"):
        if opened[mark[0]] > 1 and (at := text.find(mark, start, stop)) >= 0:
            stop = at
    for match in START.finditer(text, start, stop):
        at, before = match.start(), text[match.start() - 1]
        if match["bare"]:
            if before in ",;|" and is_known(text, at, known):
                stop = at
                break
        elif before not in INSIDE:
            stop = at
            break
    end = trim(text, start, stop, opened)
    return end, end


def unbalanced(text: str, start: int, stop: int) -> int:
    """Where the first bracket is closed that was not opened inside, or ``stop``."""
    depth = Counter[str]()
    for match in re.compile(r"[()\[\]]").finditer(text, start, stop):
        char = match[0]
        depth[PAIRS.get(char, char)] += -1 if char in PAIRS else 1
        if depth[PAIRS.get(char, char)] < 0:
            return match.start()
    return stop


def trim(text: str, start: int, end: int, opened: Counter[str]) -> int:
    """Where a link ends without the punctuation, closing brackets, marks and hidden
    characters that follow it."""
    count = {char: text.count(char, start, end) for char in "()[]{}"}
    marks = Counter(opened)
    while end > start:
        char = text[end - 1]
        if char in PAIRS:
            if count[char] <= count[PAIRS[char]]:
                break
            count[char] -= 1
        elif char in "([{":
            count[char] -= 1
        elif char == "\\":
            if text[end : end + 1] not in tuple("*_~()[]<>`|"):
                break
        elif marks[char] > 0:
            marks[char] -= 1
        elif text[max(end - 2, start) : end] in ("**", "~~"):  # closes nothing
            end -= 1
        elif not (char in AFTER or is_hidden(char) or is_mark(char)):
            break
        end -= 1
    return end


def clean(link: str) -> str:
    """A link, without its scheme, as it was before it was written as mark-up."""
    host = re.split("[/?#]", link, maxsplit=1)[0]
    rest = ESCAPED.sub(r"\1", link[len(host) :])
    return host + AMPERSAND.sub("&", rest)


def is_mark(char: str) -> bool:
    """Whether a character is a symbol, such as Discord's clients put into a text, or
    punctuation of whatever script."""
    category = unicodedata.category(char)
    return not char.isascii() and (category[0] == "P" or category in ("So", "Sk"))


def is_hidden(char: str) -> bool:
    """Whether a character is invisible."""
    return (
        unicodedata.category(char) in ("Cc", "Cf", "Cn", "Cs", "Co")
        or char in UNSEEN
        or "\ufe00" <= char <= "\ufe0f"
    )


def without_tracking(link: str) -> str:
    """What the links to a page have in common, whoever shares it how: not to be opened,
    but compared."""
    parts = urlsplit(link)
    netloc = parts.netloc.lower().removeprefix("www.").removesuffix(".")
    query = [
        (name, value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if not TRACKING.fullmatch(name)
    ]
    path = PLAIN.sub(lambda match: unquote(match[0]), parts.path).rstrip("/")
    fragment = parts.fragment.partition(":~:")[0]
    pairs = urlencode(sorted(query, key=lambda pair: pair[0]))
    return urlunsplit(("", netloc, path, pairs, fragment))


def show_link(url: str, limit: int = 500) -> str:
    """A link as it is shown in Discord, where it gets no preview and formats nothing:
    "<https://...>", with what could do so percent-encoded. "" for a longer one."""
    shown = quote(url[:limit], "!$%&',/:;=?@+#", errors="replace").replace("~", "%7E")
    return f"<{shown}>" if len(url) <= limit and len(shown) <= limit else ""
