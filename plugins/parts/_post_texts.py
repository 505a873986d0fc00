"""The courier's texts: the lines of its messages, names of threads, descriptions."""

import copy
from collections.abc import Sequence
from typing import Any

import discord
from bossbot_plugins._spoilers import is_spoiler

from bossbot import (
    N_,
    Fetched,
    Job,
    MediaFile,
    Status,
    _,
    escape,
    format_size,
    ngettext,
    now,
    one_line,
)

MAX_DESCRIPTION = 1024  # Discord, 2026-11: characters of a file's, in UTF-16
MAX_NOTES = 3  # on how files were made to fit, in one message
MAX_NAME = 100  # characters, of a thread
MAX_EMBED = 6000  # Discord, 2026-11: characters of all its texts together
PING_AFTER_S = 60  # a member who waited longer gets a ping
NAMELESS = N_("Album")
MUTE = N_(
    "Without sound: adding it to the picture needs ffmpeg, which is missing here."
)


def thread_names(job: Job) -> list[str]:
    """The names for a thread, the best first: Discord may not like a title."""
    title = "" if is_spoiler(job) else one_line(job.title)
    name = title if len(title) <= MAX_NAME else title[: MAX_NAME - 1] + "…"
    return [*filter(None, [name.strip()]), _(NAMELESS)]


def untitled(job: Job, name: str) -> str:
    """A file's name without the title in it."""
    return name[max(name.find(f"{job.id}_"), 0) :]


def notes_of(files: Sequence[MediaFile]) -> dict[str, str]:
    """How files were made to fit, by name."""
    return {file.name: file.note for file in files if file.note}


def alts_of(files: Sequence[MediaFile]) -> dict[str, str]:
    """The descriptions of files, by name."""
    return {file.name: alt for file in files if (alt := alt_of(file))}


def alt_of(file: MediaFile) -> str | None:
    """The description of a file, cut to Discord's limit; None if the site has none."""
    text = one_line(file.alt[: 8 * MAX_DESCRIPTION])
    if len(text.encode("utf-16-le")) > 2 * MAX_DESCRIPTION:
        cut = text.encode("utf-16-le")[: 2 * MAX_DESCRIPTION - 2]
        text = cut.decode("utf-16-le", "ignore") + "…"
    return text or None


def why_not_posted(job: Job, file: MediaFile, limit: int) -> str:
    """The line of a file that cannot be posted."""
    name = untitled(job, file.name) if is_spoiler(job) else file.name
    if file.failure:
        return f"{name}: {_(str(file.failure))}"
    text = _("Too large for this channel: {name} is {size}, the limit is {limit}.")
    size, most = format_size(file.size), format_size(limit)
    return text.format(name=name, size=size, limit=most)


def remarks(fetched: Fetched) -> list[str]:
    """The missing files of a download, a line each."""
    notes, facts, lost = list[str](), fetched.facts, len(fetched.failures)
    total = len(fetched.files) + lost
    if lost:
        causes = {_(str(f.cause)).replace("_", " ") for f in fetched.failures}
        reason = ", ".join(sorted(causes))
        text = _("{count} of {total}, {lost} could not be fetched ({reason}).")
        told = text.format(count=total - lost, total=total, lost=lost, reason=reason)
        notes.append(told)
    items = facts.get("items")
    if facts.get("more") or (items or 0) > total:
        text = _("The first {total}; there are more.")
        if items:
            text = _("The first {total} of {items}.")
        notes.append(text.format(total=total, items=items))
    if facts.get("mute") and fetched.files:
        notes.append(_(MUTE))
    return notes


# The first line of a message is what its files are: how many, how large, how they were
# made to fit, and which message of several it is. What the post is, decorate_message adds
# before it.


def first_line(*parts: str) -> str:
    return " · ".join(filter(None, parts))


def measure(job: Job, files: Sequence[MediaFile], text_only: bool = False) -> str:
    """The amount to post: "4 files, 2 MiB"."""
    count, items = len(files), job.facts.get("items") or 0
    size = format_size(sum(file.size for file in files))
    if not files:
        return _("text only") if text_only else _("no files")
    if job.status is not Status.DOWNLOADING:
        if count == 1:
            return size
        text = ngettext("{count} file, {size}", "{count} files, {size}", count)
    elif items > count:
        text = _("first {count} of {items} files, {size}")
    else:
        text = ngettext(
            "first {count} file, {size}", "first {count} files, {size}", count
        )
    return text.format(count=count, items=items, size=size)


def noted(files: Sequence[MediaFile]) -> str:
    """How the files of a message were made to fit."""
    notes = list(dict.fromkeys(escape(file.note, 100) for file in files if file.note))
    more = ["…"] if len(notes) > MAX_NOTES else []
    return ", ".join(notes[:MAX_NOTES] + more)


def ping(job: Job) -> str:
    """The mention of a member who has waited long."""
    return f"<@{job.user_id}>" if now() - job.created_at > PING_AFTER_S else ""


def clip_embed(embed: discord.Embed) -> discord.Embed:
    """A copy within Discord's limits: texts are cut, and fields that are too many, or
    over what all texts may hold together, are left out."""
    data: dict[str, Any] = copy.deepcopy({**embed.to_dict()})
    room = MAX_EMBED

    def cut(table: dict[str, Any], key: str, limit: int) -> None:
        nonlocal room
        if text := str(table.get(key) or ""):
            table[key] = text if len(text) <= limit else text[: limit - 1] + "…"
            room -= len(table[key])

    cut(data, "title", 256)
    cut(data.get("author", {}), "name", 256)
    cut(data.get("footer", {}), "text", 2048)
    cut(data, "description", min(4096, room))
    fields, data["fields"] = data.get("fields", [])[:25], []
    for field in fields:
        cut(field, "name", 256)
        cut(field, "value", 1024)
        if room >= 0:
            data["fields"].append(field)
    return discord.Embed.from_dict(data)
