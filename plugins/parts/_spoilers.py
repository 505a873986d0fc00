"""Hides the texts of a job that is a spoiler, until somebody clicks on them."""

import re

from bossbot import Job

BARS = "||"
MAX_CONTENT = 2000  # characters of a message


def is_spoiler(job: Job) -> bool:
    return bool(job.options.get("spoiler"))


def bars(text: str) -> str:
    return f"{BARS}{text}{BARS}"


def hide(job: Job, text: str) -> str:
    """A piece of text about a job, hidden if the job is a spoiler; it is escaped, so
    that no bars are in it."""
    return bars(text) if text and is_spoiler(job) else text


def hide_lines(content: str, shown: str) -> str:
    """A message's content with everything hidden but what ends its first line, and cut to
    what a message holds. What is hidden in part stays so."""
    most = MAX_CONTENT - 2 * len(BARS) * (content.count("\n") + 1)
    if len(content) > most:
        content = content[:most].rstrip("\\")  # which would escape the bars
    first, *lines = content.split("\n")
    before = first.removesuffix(shown)
    return "\n".join([_hidden(before) + first[len(before) :], *map(_hidden, lines)])


def _hidden(line: str) -> str:
    """What stays outside is the mark of a quote or a small line, and what divides it."""
    match = re.fullmatch(r"((?:> |-# )?)(.*?)((?: · )?)", line, re.DOTALL)
    if not line.strip() or BARS in line or not match:
        return line
    return f"{match[1]}{bars(match[2])}{match[3]}"
