"""Forgetting: the rows, files and messages of a member or a server.

The convention by which every plugin takes part: a table with a column ``user_id`` holds
rows about members, and with ``guild_id`` says on which server. With ``posts`` (JSON of
``bossbot.Post``) and ``channel_id``, its rows are about downloads and name our
messages. With ``message_id`` and ``shared``, a row where that is 1 says that its member
asked for a message that somebody else asked for, too: it stays as long as one of these
rows does. So the rows of plugins that are switched off are forgotten, too. A plugin
deletes its other data itself: its table ``<plugin>_wishes``, with ``guild_id`` (-1 for
all) and ``member`` (0 for everybody), lists what is still to be deleted.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bossbot import App, Job

ROWS = 500  # removed in one statement
OFF = "not in statistics"  # the fact, followed by the member's id


class Table(NamedTuple):
    """A table with rows about members."""

    name: str
    columns: frozenset[str]
    numbered: bool = True  # False when it was made WITHOUT ROWID

    @property
    def of_downloads(self) -> bool:
        return {"posts", "channel_id"} <= self.columns


@dataclass
class Forgotten:
    """What was removed."""

    jobs: int = 0
    size_bytes: int = 0  # of kept files
    rows: dict[str, int] = field(default_factory=dict)  # by table
    # Channel and message; a thread itself has the number of its message below zero.
    messages: set[tuple[int, int]] = field(default_factory=set)

    def add(self, job: Job) -> None:
        self.jobs += 1
        self.size_bytes += job.total_bytes if job.folder else 0
        if job.status_message_id:
            self.messages.add((job.channel_id, job.status_message_id))
        posts = [(p.channel_id, p.thread_id, p.message_id) for p in job.posts]
        self.messages |= messages_of(job.channel_id, posts)


async def tables(app: App) -> list[Table]:
    """The tables with rows about members; not those of the parts, which forget by
    themselves."""
    rows = await app.database.all(
        "SELECT m.name, group_concat(c.name), m.sql FROM sqlite_master AS m, "
        "pragma_table_info(m.name) AS c WHERE m.type = 'table' GROUP BY m.name"
    )
    scripts = [s for p in app.plugins.all.values() if p.parts for s in p.tables]
    made = r'(?i)CREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?["`\[]?(\w+)'
    of_parts = set(re.findall(made, "\n".join(scripts)))
    found = [
        Table(name, frozenset(columns.split(",")), "WITHOUT ROWID" not in sql.upper())
        for name, columns, sql in rows
    ]
    return [t for t in found if "user_id" in t.columns and t.name not in of_parts]


async def count_rows(app: App, user_id: int) -> dict[str, int]:
    """How many rows each table has about a member."""
    counts = {}
    for table in await tables(app):
        sql = f'SELECT count(*) FROM "{table.name}" WHERE user_id = ?'
        row = await app.database.one(sql, user_id)
        counts[table.name] = int(row[0]) if row else 0
    return counts


async def forget_ended(
    app: App, guild_id: int | None = None, user_id: int | None = None
) -> Forgotten:
    """Forget the ended downloads of a server, a member, or a member on a server, with
    their kept files."""
    forgotten = Forgotten()
    await wish(app, guild_id, user_id)
    while jobs := await app.queue.forget(guild_id, user_id):
        for job in jobs:
            # A crash in between leaves a folder without a job, which retention removes.
            if job.folder:
                await app.storage.forget(job)
            forgotten.add(job)
    await app.plugins.call("forget_downloads", guild_id=guild_id, user_id=user_id)
    about_downloads = [t for t in await tables(app) if t.of_downloads]
    await forget_rows(app, forgotten, about_downloads, guild_id, user_id)
    return forgotten


async def wish(app: App, guild_id: int | None, user_id: int | None) -> None:
    """Note a member for plugins that may be switched off now, and must forget them."""
    sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB '*_wishes'"
    values = (-1 if guild_id is None else guild_id, user_id or 0)
    for row in await app.database.all(sql):
        await app.database.all(
            f'INSERT OR IGNORE INTO "{row[0]}" VALUES (?, ?)', *values
        )


async def forget_rows(
    app: App,
    forgotten: Forgotten,
    tables: Iterable[Table],
    guild_id: int | None = None,
    user_id: int | None = None,
) -> None:
    """Remove rows of tables, and note the messages of ours in them. A table without
    ``guild_id`` is the whole bot's: its rows go only when those of all servers do."""
    for table in tables:
        values = {"guild_id": guild_id, "user_id": user_id}
        wanted = {name: value for name, value in values.items() if value is not None}
        if not wanted.keys() <= table.columns:
            continue
        where = " AND ".join(f"{name} = :{name}" for name in wanted)
        if table.numbered:
            some = f'SELECT rowid FROM "{table.name}" WHERE {where} LIMIT {ROWS}'
            where = f"rowid IN ({some})"
        sql = f'DELETE FROM "{table.name}" WHERE {where} RETURNING *'
        while True:
            rows = await app.database.all(sql, **wanted)
            for row in rows if table.of_downloads else ():
                posts = [
                    (post.get("channel_id"), post.get("thread_id"), post["message_id"])
                    for post in json.loads(row["posts"])
                ]
                forgotten.messages |= messages_of(row["channel_id"], posts)
            known = forgotten.rows.get(table.name, 0)
            forgotten.rows[table.name] = known + len(rows)
            if len(rows) < ROWS:
                break


def messages_of(
    channel_id: int, posts: Iterable[tuple[int, int | None, int]]
) -> set[tuple[int, int]]:
    """The messages of posts, given by place (0 for the job's), thread and number, and
    their threads."""
    found = {(place or thread or channel_id, n) for place, thread, n in posts if n}
    return found | {(thread, -thread) for _place, thread, _n in posts if thread}


async def without_shared(
    app: App,
    messages: Iterable[tuple[int, int]],
    shared: Iterable[tuple[int, int]] = (),
) -> list[tuple[int, int]]:
    """The messages but those that another member has asked for, too, as tables say or is
    known otherwise: the numbers and places of ``shared``."""
    places = {number: (place, number) for place, number in messages}
    threads = {-number for number in places if number < 0}
    known: list[Any] = [*shared]
    for table in await tables(app):
        if {"shared", "message_id", "channel_id"} <= table.columns:
            sql = (
                f'SELECT message_id, channel_id FROM "{table.name}" WHERE shared = 1 '
                "AND message_id IN (SELECT value FROM json_each(?))"
            )
            known += await app.database.all(sql, json.dumps([*places]))
    for number, place in known:
        places.pop(number, None)
        if place in threads:
            places.pop(-place, None)
    return list(places.values())


# ── Statistics ─────────────────────────────────────────────────────────────────────


async def in_statistics(app: App, user_id: int) -> bool:
    """Whether a member's name may be in statistics."""
    return not await app.facts.get(f"{OFF} {user_id}")


async def set_in_statistics(app: App, user_id: int, yes: bool) -> None:
    await app.facts.set(f"{OFF} {user_id}", "" if yes else "1")
