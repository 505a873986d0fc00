"""The archive's file: its tables, and all writes to them.

Every function takes the connection, in a transaction of its caller's, and may block.
"""

import contextlib
import json
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bossbot import Passage, now

from ._pieces import CUTTING, cut, joined, whole
from ._words import text_grams

SCRIPTS = [  # one for each version of the file; append new ones
    """
    CREATE TABLE posts (
        job_id TEXT PRIMARY KEY, guild_id INTEGER NOT NULL,
        channel_id INTEGER NOT NULL, user_id INTEGER NOT NULL,
        posted_at REAL NOT NULL, platform TEXT NOT NULL, url TEXT NOT NULL,
        kinds TEXT NOT NULL,  -- "image video"
        title TEXT NOT NULL, uploader TEXT NOT NULL,
        adult INTEGER NOT NULL,
        hidden INTEGER NOT NULL  -- a spoiler, of which no picture is shown
    );
    CREATE INDEX posts_by_guild ON posts (guild_id, channel_id, posted_at);
    CREATE INDEX posts_by_user ON posts (user_id, guild_id);
    CREATE INDEX posts_by_time ON posts (posted_at);
    -- A post goes with its last message.
    CREATE TABLE messages (
        message_id INTEGER PRIMARY KEY, channel_id INTEGER NOT NULL,
        job_id TEXT NOT NULL
    );
    CREATE INDEX messages_by_job ON messages (job_id);
    CREATE INDEX messages_by_channel ON messages (channel_id);
    CREATE TABLE places (
        number INTEGER PRIMARY KEY, guild_id INTEGER NOT NULL,
        channel_id INTEGER NOT NULL,
        parent_id INTEGER NOT NULL,  -- the channel of a public thread, else 0
        pieces INTEGER NOT NULL,  -- that were ever made here
        UNIQUE (guild_id, channel_id)
    );
    -- The texts, from which words and vectors are made. An id is the place's number,
    -- and in its lower 32 bits that of the piece there.
    CREATE TABLE pieces (
        id INTEGER PRIMARY KEY, job_id TEXT NOT NULL, source TEXT NOT NULL,
        start_s REAL, text TEXT NOT NULL,
        in_words INTEGER NOT NULL, in_vectors INTEGER NOT NULL
    );
    CREATE INDEX pieces_by_job ON pieces (job_id);
    CREATE INDEX pieces_without_words ON pieces (id) WHERE in_words = 0;
    CREATE INDEX pieces_without_vectors ON pieces (id) WHERE in_vectors = 0;
    CREATE VIRTUAL TABLE grams USING fts5(
        t, content='', columnsize=0, detail=none, tokenize="ascii tokenchars '_'"
    );
    CREATE TABLE vectors (
        guild_id INTEGER NOT NULL, channel_id INTEGER NOT NULL, id INTEGER NOT NULL,
        vector BLOB NOT NULL, PRIMARY KEY (guild_id, channel_id, id)
    ) WITHOUT ROWID;
    CREATE TABLE work (  -- posts whose files are to be read
        job_id TEXT PRIMARY KEY, tries INTEGER NOT NULL, not_before REAL NOT NULL
    );
    CREATE TABLE gone (job_id TEXT PRIMARY KEY, at_s REAL NOT NULL);
    CREATE INDEX gone_by_time ON gone (at_s);
    CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
    """
]
TABLES = {"posts", "messages", "places", "pieces", "grams", "vectors", "work", "gone"}
TABLES |= {"facts"}
BUSY_S = 5.0  # how long another program may lock the file
PLACE_BITS = 32
PAGES = 300  # of the index, cleaned at once
GONE_S = 7 * 86400.0  # how long it is known that a post is not to come back


class Newer(Exception):
    """The file is from a newer version of the bot: git pull updates this one."""


class PostRow(NamedTuple):
    """A row of ``posts``."""

    job_id: str
    guild_id: int
    channel_id: int
    user_id: int
    posted_at: float
    platform: str
    url: str
    kinds: str
    title: str
    uploader: str
    adult: bool
    hidden: bool


def open_file(path: Path, *, check: bool = True) -> sqlite3.Connection:
    """A connection to the file, which is made if there is none. It is read whole to
    ``check`` it, if it was not closed properly.

    Raises:
        sqlite3.OperationalError: it is locked, or cannot be written.
        sqlite3.DatabaseError: it is damaged, or another program's.
        Newer: its version is not known.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
    except OSError as error:
        raise sqlite3.OperationalError(str(error)) from error
    unclean = check and Path(f"{path}-wal").exists()
    db = sqlite3.connect(
        path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
    )
    try:
        db.row_factory = sqlite3.Row
        for pragma in ("synchronous=NORMAL", "secure_delete=ON", "cache_size=-400"):
            db.execute(f"PRAGMA {pragma}")
        db.execute("PRAGMA journal_mode=WAL")
        if unclean:
            said = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if said != "ok":
                raise sqlite3.DatabaseError(said)
        tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if tables and not (version and tables >= TABLES):  # both come in one step
            raise sqlite3.DatabaseError("it has not the archive's tables")
        if version > len(SCRIPTS):
            raise Newer(f"{path} is of a newer version: git pull")
        for number, script in enumerate(SCRIPTS[version:], version + 1):
            db.executescript(
                f"BEGIN IMMEDIATE; {script}; PRAGMA user_version={number};"
            )
            db.commit()
        db.execute(
            "CREATE VIRTUAL TABLE temp.gram_counts USING fts5vocab(main, grams, row)"
        )
    except BaseException:
        db.close()
        raise
    return db


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.commit()
    except BaseException:
        db.rollback()
        raise


def fact(db: sqlite3.Connection, key: str) -> str:
    row = db.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
    return str(row[0]) if row else ""


def set_fact(db: sqlite3.Connection, key: str, value: str) -> None:
    db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (key, value))


# ── Adding ─────────────────────────────────────────────────────────────────────────


def add_post(
    db: sqlite3.Connection,
    post: PostRow,
    messages: Iterable[tuple[int, int]],
    passages: Sequence[Passage],
    size: int,
    parent_id: int = 0,
) -> bool:
    """Add a post with its messages (id and channel) and texts, and note that its files
    are to be read. False, without any change, if it is there already, or was erased."""
    known = "SELECT job_id FROM posts UNION ALL SELECT job_id FROM gone"
    sql = f"SELECT 1 FROM ({known}) WHERE job_id = ?"
    if db.execute(sql, (post.job_id,)).fetchone():
        return False
    added = 0
    for message_id, channel_id in messages:
        added += db.execute(
            "INSERT OR IGNORE INTO messages VALUES (?, ?, ?)",
            (message_id, channel_id, post.job_id),
        ).rowcount
    if not added:  # another post has them
        return False
    marks = ", ".join("?" * len(post))
    db.execute(f"INSERT INTO posts VALUES ({marks})", post)
    place = (post.guild_id, post.channel_id, parent_id)
    db.execute("INSERT OR IGNORE INTO places VALUES (NULL, ?, ?, ?, 0)", place)
    db.execute("INSERT INTO work VALUES (?, 0, 0)", (post.job_id,))
    add_passages(db, post.job_id, passages, size)
    return True


def next_work(db: sqlite3.Connection, again_s: float) -> tuple[str, int, float] | None:
    """The next post whose files are to be read: its job, the tries before this one, and
    the seconds until it is due. When it is due, a try is counted before it begins: a
    file that ends the bot is not read for ever."""
    sql = "SELECT * FROM work ORDER BY not_before, job_id LIMIT 1"
    row = db.execute(sql).fetchone()
    if row is None:
        return None
    (job_id, tries, not_before), at_s = row, now()
    if not_before <= at_s:
        later = (tries + 1, at_s + again_s * 2**tries, job_id)
        sql = "UPDATE work SET tries = ?, not_before = ? WHERE job_id = ?"
        db.execute(sql, later)
    return job_id, tries, max(not_before - at_s, 0)


def add_passages(
    db: sqlite3.Connection, job_id: str, passages: Sequence[Passage], size: int
) -> None:
    """Add texts to a post, if it is still there."""
    place = db.execute(
        "SELECT number, pieces FROM posts JOIN places USING (guild_id, channel_id) "
        "WHERE job_id = ?",
        (job_id,),
    ).fetchone()
    if place is None:
        return
    first = (place["number"] << PLACE_BITS) + place["pieces"]
    rows = [
        (passage.source, passage.start_s, piece)
        for passage in passages
        for piece in cut(passage.text, size)
    ]
    if not rows:
        return
    ids = range(first, first + len(rows))
    db.execute(
        "UPDATE places SET pieces = pieces + ? WHERE number = ?",
        (len(rows), place["number"]),
    )
    db.executemany(
        "INSERT INTO pieces VALUES (?, ?, ?, ?, ?, 0, 0)",
        [(number, job_id, *row) for number, row in zip(ids, rows, strict=True)],
    )
    index_words(db, job_id)


def texts_of(
    db: sqlite3.Connection, job_id: str, by_words: bool = True
) -> list[tuple[sqlite3.Row, str]]:
    """The pieces of a post, each with all that is searched of it. For meaning that is
    not who made it: a name would count as if the post were about it."""
    sql = (
        "SELECT p.*, title, uploader FROM pieces AS p JOIN posts USING (job_id) WHERE job_id = ? "
        "ORDER BY p.id"
    )
    before, texts = None, []
    for piece in db.execute(sql, (job_id,)):
        same = before is not None and before["source"] == piece["source"]
        tail = before["text"] if same and before else ""
        text = whole(piece["title"], tail, piece["text"])
        if by_words and piece["uploader"]:
            text += f"\n{piece['uploader']}"
        texts.append((piece, text))
        before = piece
    return texts


def _grams(text: str) -> str:
    return " ".join(sorted(text_grams(text)))


def index_words(db: sqlite3.Connection, job_id: str) -> None:
    """Make the pieces of a post searchable by words."""
    found = [(p["id"], _grams(t)) for p, t in texts_of(db, job_id) if not p["in_words"]]
    db.executemany("INSERT INTO grams (rowid, t) VALUES (?, ?)", found)
    db.execute("UPDATE pieces SET in_words = 1 WHERE job_id = ?", (job_id,))


def without_vectors(
    db: sqlite3.Connection, count: int
) -> list[tuple[int, str, int, int, str]]:
    """Some pieces that have no vector: id, job, guild, channel, and the text for it."""
    sql = (
        "SELECT p.id, p.job_id, guild_id, channel_id FROM pieces AS p "
        "JOIN posts USING (job_id) WHERE in_vectors = 0 ORDER BY p.id DESC LIMIT ?"
    )
    found, texts = [], dict[int, str]()
    for number, job_id, guild_id, channel_id in db.execute(sql, (count,)).fetchall():
        if number not in texts:
            texts = {p["id"]: text for p, text in texts_of(db, job_id, by_words=False)}
        found.append((number, job_id, guild_id, channel_id, texts[number]))
    return found


def add_vectors(
    db: sqlite3.Connection, rows: Iterable[tuple[int, str, int, int, bytes]], model: str
) -> None:
    """Store vectors of a model: id, job, guild, channel, row. What was erased meanwhile,
    or is to be made by another model, is left out."""
    if fact(db, "model") != model:
        return
    for number, job_id, guild_id, channel_id, vector in rows:
        found = db.execute(
            "UPDATE pieces SET in_vectors = 1 WHERE id = ? AND job_id = ?",
            (number, job_id),
        )
        if found.rowcount:
            values = (guild_id, channel_id, number, vector)
            db.execute("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", values)


# ── Rebuilt ────────────────────────────────────────────────────────────────────────


def forget_model(db: sqlite3.Connection, model: str) -> None:
    """Drop all vectors, since another model makes them."""
    db.execute("DELETE FROM vectors")
    db.execute("UPDATE pieces SET in_vectors = 0 WHERE in_vectors = 1")
    set_fact(db, "model", model)


def forget_cutting(db: sqlite3.Connection, size: int, model: str) -> None:
    """Cut all posts anew: drop the index, and note which are to be cut."""
    db.execute("INSERT INTO grams (grams) VALUES ('delete-all')")
    forget_model(db, model)
    db.execute("UPDATE pieces SET in_words = 0")
    set_fact(db, "cutting", f"{CUTTING} {size}")
    set_fact(db, "dirty", secrets.token_hex(8))


def is_cut(db: sqlite3.Connection, size: int) -> bool:
    """Whether the pieces are of this size, and of this version."""
    return fact(db, "cutting") == f"{CUTTING} {size}"


def cut_anew(db: sqlite3.Connection, size: int, count: int) -> int:
    """Cut some posts anew that have to be; returns how many there were."""
    sql = "SELECT DISTINCT job_id FROM pieces WHERE in_words = 0 LIMIT ?"
    jobs = [row[0] for row in db.execute(sql, (count,)).fetchall()]
    for job_id in jobs:
        pieces = db.execute(
            "SELECT text, source, start_s FROM pieces WHERE job_id = ? ORDER BY id",
            (job_id,),
        )
        passages = joined(Passage(*piece) for piece in pieces.fetchall())
        db.execute("DELETE FROM pieces WHERE job_id = ?", (job_id,))
        add_passages(db, job_id, passages, size)
    return len(jobs)


# ── Forgetting ─────────────────────────────────────────────────────────────────────


def erase(db: sqlite3.Connection, job_ids: Sequence[str]) -> int:
    """Erase posts with all that was made of them; returns how many there were. Their
    words leave the index's pages with ``clean_index``."""
    erased = 0
    for job_id in job_ids:
        for piece, text in texts_of(db, job_id):
            if piece["in_words"]:
                values = (piece["id"], _grams(text))
                sql = "INSERT INTO grams (grams, rowid, t) VALUES ('delete', ?, ?)"
                db.execute(sql, values)
        db.execute(
            "DELETE FROM vectors WHERE (guild_id, channel_id, id) IN (SELECT guild_id, "
            "channel_id, p.id FROM posts JOIN pieces AS p USING (job_id) "
            "WHERE job_id = ?)",
            (job_id,),
        )
        for table in ("pieces", "messages", "work"):
            db.execute(f"DELETE FROM {table} WHERE job_id = ?", (job_id,))
        erased += db.execute("DELETE FROM posts WHERE job_id = ?", (job_id,)).rowcount
        db.execute("INSERT OR REPLACE INTO gone VALUES (?, ?)", (job_id, now()))
    if erased:
        db.execute("DELETE FROM gone WHERE at_s < ?", (now() - GONE_S,))
        set_fact(db, "dirty", secrets.token_hex(8))
    return erased


def erase_some(db: sqlite3.Connection, where: str, values: Sequence[object]) -> int:
    """Erase some of the posts of which ``where`` is true; returns how many."""
    sql = f"SELECT job_id FROM posts WHERE {where} LIMIT 100"
    return erase(db, [row[0] for row in db.execute(sql, tuple(values)).fetchall()])


def erase_messages(db: sqlite3.Connection, message_ids: Iterable[int]) -> int:
    """Forget messages that are gone; erases the posts that have no other, and returns
    how many."""
    listed = json.dumps(list(message_ids))
    some = "message_id IN (SELECT value FROM json_each(?))"
    jobs = db.execute(f"SELECT DISTINCT job_id FROM messages WHERE {some}", (listed,))
    jobs_of = [row[0] for row in jobs.fetchall()]
    db.execute(f"DELETE FROM messages WHERE {some}", (listed,))
    left = "SELECT 1 FROM messages WHERE job_id = ?"
    return erase(
        db, [job for job in jobs_of if not db.execute(left, (job,)).fetchone()]
    )


def clean_index(db: sqlite3.Connection, cleaning: str) -> str:
    """Rewrite some of the index without erased posts; returns the argument of the next
    call, "" at first and when all of it is clean."""
    dirty, before = fact(db, "dirty"), db.total_changes
    if not dirty:
        return ""
    pages = PAGES if cleaning else -PAGES
    db.execute("INSERT INTO grams (grams, rank) VALUES ('merge', ?)", (pages,))
    if not cleaning:
        return dirty
    if db.total_changes - before >= 2:
        return cleaning
    # Unless more was erased in between.
    sql = "DELETE FROM facts WHERE key = 'dirty' AND value = ?"
    db.execute(sql, (cleaning,))
    return ""


def empty_wal(db: sqlite3.Connection) -> bool:
    """Bring everything into the file, and empty the write-ahead log; False if a reader
    still uses an older state."""
    return not db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
