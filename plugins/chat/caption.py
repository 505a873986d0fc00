"""Adds a line to the first message of a post: the site, the author, the title and the
link."""

import re
import unicodedata
from dataclasses import replace
from urllib.parse import urlsplit

from bossbot_plugins._links import show_link
from bossbot_plugins._spoilers import hide, is_spoiler

from bossbot import (
    App,
    Job,
    Message,
    Platform,
    _,
    escape,
    hookimpl,
    one_line,
    public_url,
)

MAX_TITLE, MAX_NAME = 70, 40  # characters
MAX_CONTENT = 2000  # Discord, 2026-11: characters


@hookimpl
async def decorate_message(job: Job, message: Message, app: App) -> Message | None:
    """See docs/plugins.md."""
    if any(post.state == "sent" for post in job.posts):
        return None
    platform = app.plugins.registered("platforms").get(job.platform)
    parts = caption(job, platform)
    while parts and len(line := " · ".join([*parts, message.content])) > MAX_CONTENT:
        parts.pop()
    return replace(message, content=line) if parts else None


def caption(job: Job, platform: Platform | None) -> list[str]:
    """The known facts about a post, the most important first."""
    host = (urlsplit(job.url).hostname or "").removeprefix("www.")
    site = (platform.title or platform.name) if platform else host
    author = str(job.facts.get("uploader") or "")
    title = job.title or (str(job.facts.get("text") or "") if job.file_count else "")
    words, seen = [], {site.casefold()}
    for text, limit in ((author, MAX_NAME), (title, MAX_TITLE)):
        short = shorten(text, limit)
        if short and short.casefold() not in seen:
            seen.add(short.casefold())
            words.append(escape(short))
    if words and is_spoiler(job):
        words = [hide(job, " · ".join(words))]
    # Masked, since it may be long; in angle brackets, Discord makes no preview of it.
    link = show_link(public_url(job))
    shown = [hide(job, f"[{_('link')}]({link})")] if link else []
    return [f"**{escape(site, MAX_NAME)}**", *words, *shown]


def shorten(text: str, limit: int) -> str:
    """The beginning of a text from outside, in a line, cut after a word if it can be."""
    text = one_line(text[: 20 * limit])
    # More marks on one letter than any script has would cover the lines above.
    text = re.sub(r"\S+", lambda word: without_stacks(word[0]), text)
    if len(text) <= limit:
        return text
    cut = text[: limit - 1]
    words = cut.rpartition(" ")[0]
    return (words if len(words) > limit / 2 else cut).rstrip(" ,;:-") + "…"


def without_stacks(word: str) -> str:
    """A word in which no letter has more than four marks."""
    kept, marks = "", 0
    for char in word:
        marks = marks + 1 if unicodedata.combining(char) else 0
        if marks <= 4:
            kept += char
    return kept
