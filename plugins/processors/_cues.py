"""Reads subtitles in SRT or WebVTT."""

import re
from collections.abc import Iterator

CLOCK = r"(?:(\d{1,3}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
TIMES = re.compile(rf"\s*{CLOCK}\s+-->\s+{CLOCK}")
# What would be read as a command: of HTML and WebVTT, and of ASS.
MARKUP = re.compile(r"<[^<>]{0,200}>|\{[^{}]{0,200}\}")
MAX_CUES, MAX_LINES, MAX_LINE = 10_000, 4, 200


def cues(text: str) -> Iterator[tuple[str, str, str]]:
    """The start, the end and the words of each subtitle in SRT or WebVTT."""
    count = 0
    for block in re.split(
        r"\n[ \t]*\n", text.replace("\r\n", "\n").replace("\r", "\n")
    ):
        lines = block.split("\n")[: MAX_LINES + 3]
        timed = (n for n, line in enumerate(lines) if TIMES.match(line[:100]))
        if (place := next(timed, None)) is None or count >= MAX_CUES:
            continue
        times = TIMES.match(lines[place])
        assert times
        shown = [plain_line(line) for line in lines[place + 1 :][:MAX_LINES]]
        if words := "\n".join(filter(None, shown)):
            count += 1
            yield clock(*times.groups()[:4]), clock(*times.groups()[4:]), words


def plain_line(line: str) -> str:
    """A line without anything that a renderer would not show as it is."""
    import html  # 0.5 MB of names of characters

    line = html.unescape(MARKUP.sub("", line[: MAX_LINE * 5]))
    line = "".join(char for char in line if char.isprintable())
    return line.translate(str.maketrans("{}<>\\", "()()/")).strip()[:MAX_LINE]


def clock(hours: str | None, minutes: str, seconds: str, part: str) -> str:
    """A time as SRT has it."""
    return f"{int(hours or 0):02}:{int(minutes):02}:{int(seconds):02},{part:0<3}"
