"""Reads the archive's file to answer a question.

Every function takes a connection of the caller's thread, and may block.
"""

import heapq
import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bossbot_plugins._archive import Hit, Query

from bossbot import Passage

from ._file import PLACE_BITS, texts_of
from ._words import (
    best_sentence,
    covered,
    fused,
    has_phrases,
    phrases,
    query_grams,
    rarities,
)

MAX_POSTINGS = 40_000  # that are read for a question: those of its rarest pieces
MOST = 300  # pieces of which the score is worked out
MAX_FOUND = 100  # posts in the answers to a question
MAX_PASSAGES = 3  # of one post in an answer
VIDEO_AT = ("youtube",)  # platforms whose links take a second


@dataclass
class Asked:
    """A question, and what its words have found so far."""

    query: Query
    text: str  # the member's, or that of the post that others are to resemble
    weights: dict[str, float]  # of its pieces of words
    phrases: list[str]
    channels: list[int]  # with the public threads of those that were asked for
    among: set[int] | None  # the only pieces that count; None for all in the channels
    found: list[int]  # pieces by words, best first


def ask(db: sqlite3.Connection, query: Query) -> Asked:
    """Find pieces by words."""
    places = db.execute(
        "SELECT number, channel_id FROM places WHERE guild_id = :guild AND (channel_id IN "
        "(SELECT value FROM json_each(:channels)) OR parent_id IN "
        "(SELECT value FROM json_each(:channels)))",
        {"guild": query.guild_id, "channels": json.dumps(list(query.channels))},
    ).fetchall()
    numbers, channels = [row[0] for row in places], [row[1] for row in places]
    text = like_text(db, query, channels) if query.like else query.text
    grams, wanted = query_grams(text), [] if query.like else phrases(text)
    total = db.execute("SELECT count(*) FROM pieces").fetchone()[0]
    counts = {gram: count_of(db, gram) for gram in grams}
    weights = rarities(counts, total)
    asked = Asked(query, text, weights, wanted, channels, None, [])
    asked.among = filtered(db, asked)
    if wanted:
        having = with_phrases(db, wanted, numbers)
        asked.among = having if asked.among is None else asked.among & having
    asked.found = by_words(db, asked, counts, numbers)
    return asked


def like_text(db: sqlite3.Connection, query: Query, channels: Sequence[int]) -> str:
    """The beginning of a post's text; "" for one in another place."""
    found = db.execute(
        "SELECT 1 FROM posts WHERE job_id = ? AND guild_id = ? AND channel_id IN "
        "(SELECT value FROM json_each(?))",
        (query.like, query.guild_id, json.dumps(channels)),
    ).fetchone()
    texts = texts_of(db, query.like, by_words=False) if found else []
    return texts[0][1] if texts else ""


def those_there(db: sqlite3.Connection, job_ids: Sequence[str]) -> set[str]:
    """Those of some jobs whose posts are in the archive."""
    sql = "SELECT job_id FROM posts WHERE job_id IN (SELECT value FROM json_each(?))"
    return {row[0] for row in db.execute(sql, (json.dumps(job_ids),))}


def count_of(db: sqlite3.Connection, gram: str) -> int:
    """How many pieces have this one of a word."""
    if gram[-1] == "*":
        sql = "SELECT sum(doc) FROM temp.gram_counts WHERE term BETWEEN ? AND ?"
        row = db.execute(sql, (gram[:-1], f"{gram[:-1]}\U0010ffff")).fetchone()
    else:
        sql = "SELECT doc FROM temp.gram_counts WHERE term = ?"
        row = db.execute(sql, (gram,)).fetchone()
    return int(row[0] or 0) if row else 0


def quoted(gram: str) -> str:
    """A piece of a word in FTS5's language; it has no quotation mark in it."""
    return f'"{gram[:-1]}" *' if gram[-1] == "*" else f'"{gram}"'


def matching(
    db: sqlite3.Connection, match: str, places: Iterable[int], most: int = -1
) -> list[int]:
    """The ids of the pieces that FTS5 finds in some places."""
    sql = (
        f"SELECT rowid FROM grams WHERE grams MATCH ? AND rowid >> {PLACE_BITS} IN "
        "(SELECT value FROM json_each(?)) LIMIT ?"
    )
    rows = db.execute(sql, (match, json.dumps(list(places)), most))
    return [row[0] for row in rows]


def filtered(db: sqlite3.Connection, asked: Asked) -> set[int] | None:
    """The pieces of the posts that a question is about; None for all."""
    query = asked.query
    tests = {
        "user_id = ?": query.user_id,
        "platform = ?": query.platform,
        "' ' || kinds || ' ' LIKE '% ' || ? || ' %'": query.kind,
        "posted_at >= ?": query.since,
    }
    wanted = {test: value for test, value in tests.items() if value}
    if not wanted:
        return None
    sql = (
        "SELECT p.id FROM posts JOIN pieces AS p USING (job_id) WHERE guild_id = ? AND "
        f"channel_id IN (SELECT value FROM json_each(?)) AND {' AND '.join(wanted)}"
    )
    values = (query.guild_id, json.dumps(asked.channels), *wanted.values())
    return {row[0] for row in db.execute(sql, values)}


def with_phrases(
    db: sqlite3.Connection, wanted: Iterable[str], places: Iterable[int]
) -> set[int]:
    """The pieces in which all phrases stand."""
    grams = [quoted(g) for phrase in wanted for g in query_grams(phrase)]
    found = matching(db, " AND ".join(grams), places) if grams else []
    texts = texts_for(db, found)
    return {number for number in found if has_phrases(texts.get(number, ""), wanted)}


def by_words(
    db: sqlite3.Connection,
    asked: Asked,
    counts: Mapping[str, int],
    places: Collection[int],
) -> list[int]:
    """The pieces that cover most of a question, by its rarest pieces of words."""
    shares: defaultdict[int, float] = defaultdict(float)
    left = MAX_POSTINGS
    for gram in sorted(counts, key=counts.__getitem__):
        if not counts[gram] or left <= 0:
            continue
        weight = asked.weights[gram]
        for number in matching(db, quoted(gram), places, left):
            shares[number] += weight
        left -= counts[gram]
    found: Iterable[tuple[float, int]] = zip(shares.values(), shares, strict=True)
    if asked.among is not None:
        found = ((share, number) for share, number in found if number in asked.among)
    return [number for _, number in heapq.nlargest(MOST, found)]


def texts_for(db: sqlite3.Connection, ids: Iterable[int]) -> dict[int, str]:
    """What is searched of some pieces, by id."""
    listed = json.dumps(list(ids))
    sql = "SELECT DISTINCT job_id FROM pieces WHERE id IN (SELECT value FROM json_each(?))"
    jobs = [row[0] for row in db.execute(sql, (listed,))]
    return {p["id"]: text for job in jobs for p, text in texts_of(db, job)}


def message_of(db: sqlite3.Connection, job_id: str) -> tuple[int, int] | None:
    """The first message of a post that is there, and its channel."""
    row = db.execute(
        "SELECT message_id, channel_id FROM messages WHERE job_id = ? "
        "ORDER BY message_id LIMIT 1",
        (job_id,),
    ).fetchone()
    return (row[0], row[1]) if row else None


def messages_in(db: sqlite3.Connection, channel_id: int) -> list[int]:
    """The messages in a channel."""
    sql = "SELECT message_id FROM messages WHERE channel_id = ?"
    return [row[0] for row in db.execute(sql, (channel_id,))]


class Owner(NamedTuple):
    """Whose post a message belongs to, and where it is."""

    job_id: str
    guild_id: int
    channel_id: int
    user_id: int


def owner_of(db: sqlite3.Connection, message_id: int) -> Owner | None:
    sql = (
        "SELECT job_id, guild_id, messages.channel_id, user_id FROM messages "
        "JOIN posts USING (job_id) WHERE message_id = ?"
    )
    row = db.execute(sql, (message_id,)).fetchone()
    return Owner(*row) if row else None


def channels_of(db: sqlite3.Connection, guild_id: int) -> list[int]:
    """All channels of a guild that something was posted in."""
    sql = "SELECT channel_id FROM places WHERE guild_id = ?"
    return [row[0] for row in db.execute(sql, (guild_id,))]


@dataclass
class Found:
    """A post that fits, with the pieces that do."""

    score: float
    share: float  # of the question's words
    row: sqlite3.Row
    pieces: list[sqlite3.Row]
    message_id: int
    channel_id: int


def ranked(
    db: sqlite3.Connection,
    asked: Asked,
    cosines: Mapping[int, float] | None,
    least: float = 0,
) -> list[Found]:
    """The posts with at least this score, best first, by their best pieces. ``cosines``
    of pieces, by id, are None when meaning is not available."""
    ids = {*asked.found, *(cosines or ())}
    if asked.among is not None:
        ids &= asked.among
    sql = (
        "SELECT p.*, posted_at FROM json_each(?) AS some CROSS JOIN pieces AS p ON p.id = "
        "some.value CROSS JOIN posts USING (job_id) WHERE guild_id = ? AND "
        "channel_id IN (SELECT value FROM json_each(?))"
    )
    # Once more by channel: between the two, ids may have come and gone.
    values = (json.dumps(list(ids)), asked.query.guild_id, json.dumps(asked.channels))
    pieces = {row["id"]: row for row in db.execute(sql, values)}
    texts = texts_for(db, pieces)
    scored = []
    for number, piece in pieces.items():
        share = covered(asked.weights, texts[number])
        cosine = None if cosines is None else cosines.get(number, 0.0)
        if (score := fused(cosine, share)) >= least:
            scored.append((score, piece["posted_at"], number, share))
    found: dict[str, Found] = {}
    for score, _, number, share in sorted(scored, reverse=True):
        job_id = pieces[number]["job_id"]
        if known := found.get(job_id):
            known.pieces = [*known.pieces, pieces[number]][:MAX_PASSAGES]
        elif job_id != asked.query.like and len(found) < MAX_FOUND:
            post = "SELECT * FROM posts WHERE job_id = ?"
            row, message = (
                db.execute(post, (job_id,)).fetchone(),
                message_of(db, job_id),
            )
            if message:
                found[job_id] = Found(score, share, row, [pieces[number]], *message)
    return list(found.values())


def hit_of(asked: Asked, found: Found, rank: int, sure: bool, picture_url: str) -> Hit:
    """A post as an answer has it."""
    row = found.row
    first = found.pieces[0]
    url = row["url"]
    if first["start_s"] is not None and row["platform"] in VIDEO_AT:
        url += f"{'&' if '?' in url else '?'}t={int(first['start_s'])}"
    values: dict[str, Any] = {
        name: row[name]
        for name in ("job_id", "guild_id", "user_id", "posted_at", "platform")
    }
    return Hit(
        **values,
        rank=rank,
        score=found.score,
        sure=sure,
        sentence=best_sentence(asked.weights, first["text"]),
        passages=[Passage(p["text"], p["source"], p["start_s"]) for p in found.pieces],
        channel_id=found.channel_id,
        message_id=found.message_id,
        url=url,
        title=row["title"],
        uploader=row["uploader"],
        kinds=row["kinds"].split(),
        adult=bool(row["adult"]),
        picture_url=picture_url,
        hidden=bool(row["hidden"]),
    )


def status_of(db: sqlite3.Connection, guild_id: int | None) -> dict[str, Any]:
    """How many posts and pieces there are of a guild, or of all; the oldest post."""
    where, values = ("guild_id = ?", [guild_id]) if guild_id is not None else ("1", [])
    posts = db.execute(
        f"SELECT count(*), min(posted_at) FROM posts WHERE {where}", values
    ).fetchone()
    pieces = db.execute(
        "SELECT count(*), sum(in_vectors) FROM pieces JOIN posts USING (job_id) "
        f"WHERE {where}",
        values,
    ).fetchone()
    work = db.execute(
        f"SELECT count(*) FROM work JOIN posts USING (job_id) WHERE {where}", values
    ).fetchone()
    return {
        "posts": posts[0],
        "oldest": posts[1],
        "pieces": pieces[0],
        "vectors": pieces[1] or 0,
        "work": work[0],
    }
