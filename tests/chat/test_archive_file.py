"""The archive's file: what is in it is found, and what is forgotten is gone from it."""

import contextlib
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bossbot_plugins._archive import Query
from bossbot_plugins.archive import _file, _find, store
from bossbot_plugins.archive._file import PostRow, transaction
from bossbot_plugins.archive._pieces import clean, cut, fitted, joined, whole, windows
from bossbot_plugins.archive._words import (
    best_sentence,
    covered,
    has_phrases,
    phrases,
    query_grams,
    rarities,
    text_grams,
)
from bossbot_plugins.archive.reading import read_text

from bossbot import MediaFile, Passage

Db = sqlite3.Connection


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "archive.db"


@pytest.fixture
def db(path: Path) -> Iterator[Db]:
    connection = _file.open_file(path)
    yield connection
    connection.close()


def add(db: Db, number: int, *texts: str, size: int = 500, **fields: Any) -> str:
    """A post whose message has this number; returns the id of its job."""
    defaults = PostRow(
        f"{number:010x}", 1, 2, 3, 1e9 + number, "", "", "image", "", "", False, False
    )
    row = defaults._replace(**fields)
    passages = [Passage(text, "text") for text in texts]
    with transaction(db):
        _file.add_post(db, row, [(number, row.channel_id)], passages, size)
    return row.job_id


def find(
    db: Db, text: str, channels: list[int] | None = None, **fields: Any
) -> list[int]:
    """The messages that are found by their words, best first."""
    values = {"text": text, "guild_id": 1, "channels": channels or [2], **fields}
    asked = _find.ask(db, Query(**values))
    found = _find.ranked(db, asked, None)
    return [one.message_id for one in found if one.score >= 0.3]


# What is to be read


def test_reading_of_files_that_ends_the_bot_has_counted_as_a_try(db: Db) -> None:
    job_id = add(db, 1)
    with transaction(db):
        assert _file.next_work(db, again_s=60) == (job_id, 0, 0)
    with transaction(db):
        found = _file.next_work(db, again_s=60)
    assert found and found[:2] == (job_id, 1) and 50 < found[2] <= 60


# Words


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Foxes were hunting near the barn", "fox hunt barns"),
        ("Éclairs au café crème", "eclair cafe"),
        ("Fußgängerübergänge in Straßburg", "fussgangerubergang strassburg"),
        ("白い猫が東京タワーを見ている", "東京タワーの猫"),
        ("可爱的小猫在睡觉", "小猫 睡觉"),
        ("서울에서 고양이를 봤어요", "고양이"),
        ("แมวสีส้มนอนบนโซฟา", "แมวสีส้ม"),
        ("हिन्दी में एक कविता", "हिन्दी कविता"),
        ("Черепахи на берегу моря", "черепаха берег"),
        ("قطة نائمة في الشمس", "قطة الشمس"),
        ("Party 🎉 tonight", "🎉"),
        ("ＦＵＬＬ　ＷＩＤＴＨ", "full width"),
        ("accommodation", "acommodation"),
        ("a 猫", "猫"),
    ],
)
def test_words_are_found_in_every_language_and_other_forms(
    db: Db, text: str, question: str
) -> None:
    add(db, 1, text)
    for number in range(2, 6):
        add(db, number, f"Something else, number {number}: 電車 и поезд")
    assert find(db, question)[0] == 1


@pytest.mark.parametrize(
    "question",
    [
        "",
        " ",
        "the of and",
        "🙂" * 2000,
        "?!\"'()*:^-+",
        '" OR 1=1; DROP TABLE posts; --',
        'NEAR(a b) AND t:x* NOT "',
        "%_\\%",
        "<@123456789012345678> @everyone",
        "a" * 2000,
        "\x00\ud800\u202e",
        "猫" * 2000,
        " ".join(map(str, range(500))),
    ],
    ids=range(13),
)
def test_any_question_has_an_answer(db: Db, question: str) -> None:
    add(db, 1, "A fox, a cat and 猫 in the year 2026")
    assert set(find(db, question)) <= {1}
    assert find(db, "fox cat") == [1]


def test_words_in_quotation_marks_have_to_be_there(db: Db) -> None:
    add(db, 1, "The quick brown fox jumps")
    add(db, 2, "A brown and quick fox")
    add(db, 3, "She said: “unquick brownie”")
    assert find(db, 'fox "Quick  Brown"') == [1]
    assert find(db, '"quick brown" "nothing like it"') == []
    assert phrases('„zwei“ «trois» ""') == ["zwei", "trois"]
    assert has_phrases("東京タワー", ["京タ"]) and not has_phrases("foxes", ["fox"])


def test_what_a_text_covers_is_what_its_pieces_say() -> None:
    chance = random.Random(1)
    letters = "abc 猫東京é.😀_-"
    for _ in range(300):
        text, asked = ("".join(chance.choices(letters, k=30)) for _ in range(2))
        grams = [g for g in query_grams(asked) if g[-1] != "*"]
        weights = rarities({gram: chance.randrange(9) for gram in grams}, 10)
        there = sum(weights[g] for g in grams if g in text_grams(text))
        assert covered(weights, text) == pytest.approx(
            there / sum(weights.values()) if grams else 0
        )


def test_sentence_that_fits_is_shown() -> None:
    text = "First of all. A fox ran over the snow! Then it slept."
    weights = rarities(dict.fromkeys(query_grams("snow fox"), 1), 10)
    assert best_sentence(weights, text) == "A fox ran over the snow!"
    assert best_sentence({}, text) == "First of all."
    assert best_sentence({}, "") == ""


# Pieces


def test_pieces_keep_every_word_and_end_between_sentences() -> None:
    chance = random.Random(2)
    for _ in range(200):
        words = [
            "x" * chance.randint(1, 30) + chance.choice(["", "", ".", "!\n", "。"])
            for _ in range(chance.randint(0, 200))
        ]
        text = " ".join(words)
        pieces = cut(text, 100)
        assert all(0 < len(piece) <= 100 for piece in pieces)
        assert "".join("".join(pieces).split()) == "".join(text.split())
    assert cut("One. Two. Three.", 9) == ["One. Two.", "Three."]
    assert cut("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]


def test_piece_is_searched_with_the_title_and_the_sentence_before(db: Db) -> None:
    assert whole("Title", "A. The one before.", "This.") == (
        "Title\nThe one before. This."
    )
    assert whole("Title", "", "Title and more") == "Title and more"
    job = add(db, 1, "One sentence. Two of them.", size=15, title="Fox")
    texts = [text for _, text in _file.texts_of(db, job)]
    assert texts == ["Fox\nOne sentence.", "Fox\nOne sentence. Two of them."]


def test_who_made_a_post_counts_for_words_and_not_for_meaning(db: Db) -> None:
    job = add(db, 1, "Soup.", "Snow.", title="Fox", uploader="Ana Ruiz")
    assert find(db, "ana ruiz soup") == find(db, '"ana ruiz"') == [1]
    texts = [text for *_, text in _file.without_vectors(db, 9)]
    assert sorted(texts) == ["Fox\nSoup.", "Fox\nSoup. Snow."]
    asked = _find.ask(db, Query(text="", like=job, guild_id=1, channels=[2]))
    assert asked.text == "Fox\nSoup."


def test_subtitles_are_found_by_the_half_minute() -> None:
    cues = [(n * 2.0, f"line {n}\nline {n + 1}") for n in range(40)]
    passages = windows(cues)
    assert [one.start_s for one in passages] == [0, 30, 60]
    words = " ".join(one.text for one in passages)
    assert words.count("line 7 ") == 1 and "line 40" in words
    assert windows([(1.0, " \n"), (2.0, "<b>")])[0].start_s in (1.0, 2.0)


@pytest.mark.parametrize(("wanted", "found"), [(True, 1), (False, 0)])
def test_subtitles_are_read_where_they_are_wanted(
    tmp_path: Path, wanted: bool, found: int
) -> None:
    path = tmp_path / "talk.srt"
    path.write_text("1\n00:00:01,000 --> 00:00:02,000\nBees\n")
    file = MediaFile(path, 40, path.name, "text/plain")
    assert len(read_text(file, wanted)) == found


def test_text_of_a_post_is_limited_in_bytes() -> None:
    passages = [Passage("é" * 40), Passage("b" * 40), Passage("c")]
    kept = fitted(passages, 101)
    assert [one.text for one in kept] == ["é" * 40, "b" * 21]
    assert clean("a\u202e b\r\n\r\n\x1b[31mred\x00\ud800") == "a b\nred"
    assert joined([Passage("a", "x"), Passage("b", "x"), Passage("c", "x", 3.0)]) == [
        Passage("a b", "x"),
        Passage("c", "x", 3.0),
    ]


# What is found


def test_only_the_channels_that_were_asked_for_are_searched(db: Db) -> None:
    add(db, 1, "fox", channel_id=2)
    add(db, 2, "fox", channel_id=4)
    add(db, 3, "fox", guild_id=9, channel_id=5)
    with transaction(db):
        row = PostRow(f"{4:010x}", 1, 6, 3, 1e9, "", "", "", "", "", False, False)
        _file.add_post(db, row, [(4, 6)], [Passage("fox")], 500, parent_id=4)
    assert find(db, "fox", [2]) == [1]
    assert find(db, "fox", [2, 5]) == [1], "of another server"
    assert {*find(db, "fox", [4])} == {2, 4}, "with the threads of a channel"
    assert find(db, "fox", [7]) == []
    assert find(db, "", [2], like=f"{2:010x}") == []
    assert find(db, "", [2, 4], like=f"{2:010x}") == [1, 4]
    add(db, 8, "fox", guild_id=9, channel_id=2)
    assert find(db, "fox", [2]) == [1], "of this server only"
    asked = _find.ask(db, Query(text="fox", guild_id=1, channels=[2]))
    every = dict.fromkeys([row[0] for row in db.execute("SELECT id FROM pieces")], 1.0)
    assert [one.message_id for one in _find.ranked(db, asked, every)] == [1]


def test_posts_are_found_by_whose_they_are_and_what_they_are(db: Db) -> None:
    add(db, 1, "fox", user_id=7, platform="x", kinds="image video", posted_at=50.0)
    add(db, 2, "fox", user_id=8, platform="y", kinds="audio", posted_at=60.0)
    add(db, 3, "fox", user_id=8, platform="", kinds="text", posted_at=70.0)
    assert find(db, "fox", user_id=7) == [1]
    assert find(db, "fox", platform="y") == [2]
    assert find(db, "fox", kind="video") == [1]
    assert find(db, "fox", kind="o") == []
    assert find(db, "fox", since=60.0) == [3, 2]
    assert find(db, 'fox "fox"', user_id=8, kind="text") == [3]


def test_link_leads_to_the_second_of_a_video(db: Db) -> None:
    row = PostRow(
        "a" * 10, 1, 2, 3, 1e9, "youtube", "https://youtu.be/x?v=1", "video",
        *("Talk", "ann", False, False),
    )  # fmt: skip
    passages = [Passage("About bees.", "text"), Passage("the queen", "subtitles", 90.0)]
    with transaction(db):
        _file.add_post(db, row, [(1, 2)], passages, 500)
    asked = _find.ask(db, Query(text="queen", guild_id=1, channels=[2]))
    [found] = _find.ranked(db, asked, None)
    hit = _find.hit_of(asked, found, 1, True, "")
    assert hit.url == "https://youtu.be/x?v=1&t=90"
    assert hit.passages[0] == Passage("the queen", "subtitles", 90.0)
    with transaction(db):  # whose links take no second
        db.execute("UPDATE posts SET platform = 'reddit'")
    [found] = _find.ranked(db, asked, None)
    assert "t=90" not in _find.hit_of(asked, found, 1, True, "").url


def test_post_is_added_once_and_not_after_it_was_erased(db: Db) -> None:
    job = add(db, 1, "fox")
    add(db, 1, "fox again")
    add(db, 1, "another one of that message", job_id="b" * 10)
    assert find(db, "fox") == [1] and find(db, "again another") == []
    assert db.execute("SELECT count(*) FROM pieces").fetchone()[0] == 1
    with transaction(db):
        assert _file.erase(db, [job]) == 1
    add(db, 1, "fox")
    assert find(db, "fox") == []


# Forgetting


def everything(path: Path) -> bytes:
    return b"".join(one.read_bytes() for one in path.parent.glob(f"{path.name}*"))


def clean_up(db: Db) -> None:
    cleaning = " "
    while cleaning:
        with transaction(db):
            cleaning = _file.clean_index(db, cleaning.strip())
    assert _file.empty_wal(db)


def vectors(db: Db, letter: str) -> None:
    """Store a vector of these letters for each piece that has none."""
    with transaction(db):
        rows = _file.without_vectors(db, 1000)
        made = [(*one[:4], letter.encode() * 512) for one in rows]
        _file.add_vectors(db, made, _file.fact(db, "model"))


@pytest.mark.parametrize("count", [2, 60])  # parts of the index merge by themselves
def test_erased_posts_leave_no_byte_behind(db: Db, path: Path, count: int) -> None:
    for number in range(count):
        words = (
            f"Quetzalcoatl{number} rides" if number % 2 else f"a common text {number}"
        )
        add(db, number + 1, words * 20, title=f"title{number}", user_id=number % 2)
        vectors(db, "ZQ"[number % 2])
    assert b"quet" in everything(path) and b"Q" * 512 in everything(path)
    with transaction(db):
        while _file.erase_some(db, "user_id = ?", [1]):
            pass
    clean_up(db)
    left = everything(path)
    for gone in (b"uetz", b"zalc", b"ides", b"Quetz", b"Q" * 100, b"title1\x00"):
        assert gone not in left, gone
    assert len(find(db, "common text")) == count / 2 and find(db, "quetzalcoatl1") == []
    assert b"Z" * 512 in left
    db.execute("INSERT INTO grams (grams) VALUES ('integrity-check')")


def test_erased_post_leaves_no_row_and_its_id_for_a_week(db: Db) -> None:
    job = add(db, 1, "fox")
    vectors(db, "V")
    with transaction(db):
        _file.erase(db, [job])
    rows = {
        table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("posts", "messages", "pieces", "vectors", "work", "gone")
    }
    assert rows == {**dict.fromkeys(rows, 0), "gone": 1}
    db.execute("UPDATE gone SET at_s = at_s - ?", (_file.GONE_S + 1,))
    other = add(db, 2, "cat")
    with transaction(db):
        _file.erase(db, [other])
    assert [row[0] for row in db.execute("SELECT job_id FROM gone")] == [other]


def test_vector_of_what_was_erased_meanwhile_is_not_stored(db: Db) -> None:
    job = add(db, 1, "fox")
    rows = [(*one[:4], b"V" * 512) for one in _file.without_vectors(db, 10)]
    with transaction(db):
        _file.erase(db, [job])
    add(db, 2, "cat")  # takes no number that was used
    with transaction(db):
        _file.add_vectors(db, rows, "")
        _file.add_passages(db, job, [Passage("late")], 500)
    assert db.execute("SELECT count(*) FROM vectors").fetchone()[0] == 0
    assert db.execute("SELECT count(*) FROM pieces").fetchone()[0] == 1


def test_post_goes_with_the_last_of_its_messages(db: Db) -> None:
    row = PostRow("a" * 10, 1, 2, 3, 1e9, "", "", "", "", "", False, False)
    with transaction(db):
        _file.add_post(db, row, [(1, 2), (5, 2)], [Passage("fox")], 500)
        assert _file.erase_messages(db, [1, 99]) == 0
    assert find(db, "fox") == [5]
    with transaction(db):
        assert _file.erase_messages(db, [5]) == 1
    assert find(db, "fox") == []


# Made anew


def test_other_size_or_model_makes_the_index_anew_from_the_texts(db: Db) -> None:
    text = " ".join(f"Sentence number {n} about foxes." for n in range(40))
    add(db, 1, text, title="Foxes")
    with transaction(db):
        _file.forget_cutting(db, 500, "m1")
    vectors(db, "V")
    assert _file.is_cut(db, 500) and not _file.is_cut(db, 300)
    before = " ".join(p["text"] for p, _ in _file.texts_of(db, f"{1:010x}"))
    with transaction(db):
        _file.forget_cutting(db, 200, "m1")
    assert find(db, "foxes") == []
    while _file.cut_anew(db, 200, 20):
        pass
    pieces = [p["text"] for p, _ in _file.texts_of(db, f"{1:010x}")]
    assert " ".join(pieces) == before and max(map(len, pieces)) <= 200
    assert find(db, "foxes") == [1]
    vectors(db, "W")
    with transaction(db):
        _file.forget_model(db, "m2")
    assert len(_file.without_vectors(db, 1000)) == len(pieces)
    db.execute("INSERT INTO grams (grams) VALUES ('integrity-check')")


# What may happen to it


def test_file_is_its_owners_only_and_of_a_known_version(db: Db, path: Path) -> None:
    add(db, 1, "fox")
    for one in path.parent.glob("archive.db*"):
        assert one.stat().st_mode & 0o77 == 0, one
    db.execute("PRAGMA user_version=99")
    with pytest.raises(_file.Newer):
        _file.open_file(path)


def test_only_a_few_damaged_files_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(1, 9))
    monkeypatch.setattr(store, "now", lambda: float(next(times)))
    for size in (1, 9, 2, 3, 8):
        (tmp_path / "archive.db").write_bytes(b"x" * size)
        store.set_aside(tmp_path / "archive.db", sqlite3.DatabaseError())
    sizes = sorted(one.stat().st_size for one in tmp_path.glob("archive.damaged-*"))
    assert sizes == [3, 8, 9], "the largest, and the last"


@pytest.mark.parametrize("what", ["a folder", "tables", "no tables"])
def test_what_is_no_archive_is_told(tmp_path: Path, what: str) -> None:
    path, kind = tmp_path / "other.db", sqlite3.DatabaseError
    if what == "a folder":
        path.mkdir()
        kind = sqlite3.OperationalError  # which nobody sets aside
    else:
        with contextlib.closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TABLE posts (text)")
            other.execute(f"PRAGMA user_version={int(what == 'no tables')}")
            other.commit()
    with pytest.raises(kind) as error:
        _file.open_file(path)
    assert type(error.value) is kind


KILLED = """
import sys, random, itertools
from pathlib import Path
import bossbot
bossbot.open_plugins(bossbot.plugin_folders(Path("/nowhere")))
from bossbot_plugins.archive import _file
from bossbot import Passage
db = _file.open_file(Path(sys.argv[1]))
first, cleaning = int(sys.argv[2]), ""
print("ready", flush=True)
for number in itertools.count(first):
    row = _file.PostRow(
        f"{number:010x}", 1, number % 5, number % 3, 1e9, "", "", "", f"title {number}",
        "", False, False)
    with _file.transaction(db):
        _file.add_post(db, row, [(number, 2)], [Passage(f"word{number} fox. " * 9)], 100)
    with _file.transaction(db):
        rows = _file.without_vectors(db, 9)
        _file.add_vectors(db, [(*one[:4], b"V" * 512) for one in rows], "")
    if number % 4 == 0:
        with _file.transaction(db):
            _file.erase_some(db, "user_id = 1", [])
    with _file.transaction(db):
        cleaning = _file.clean_index(db, cleaning)
    print(number, flush=True)
"""


def test_nothing_is_lost_or_left_over_by_kills(path: Path) -> None:
    chance, told = random.Random(3), 1
    for _ in range(3):
        command = [sys.executable, "-c", KILLED, str(path), str(told + 1)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout and child.stdout.readline() == "ready\n"
        for _ in range(chance.randint(5, 60)):
            told = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split("\n")
        told = max([told, *(int(one) for one in rest[:-1] if one.isdigit())])
        child.wait()
    db = _file.open_file(path)
    assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    db.execute("INSERT INTO grams (grams) VALUES ('integrity-check')")
    posts = {row[0] for row in db.execute("SELECT job_id FROM posts")}
    gone = {row[0] for row in db.execute("SELECT job_id FROM gone")}
    assert len(posts | gone) >= told - 1 - 3 and not posts & gone
    of_pieces = {row[0] for row in db.execute("SELECT DISTINCT job_id FROM pieces")}
    of_messages = {row[0] for row in db.execute("SELECT job_id FROM messages")}
    assert posts == of_pieces == of_messages
    ids = {row[0] for row in db.execute("SELECT id FROM pieces WHERE in_vectors")}
    assert ids == {row[0] for row in db.execute("SELECT id FROM vectors")}
    in_index = {
        row[0] for row in db.execute("SELECT rowid FROM grams WHERE grams MATCH 'fox_'")
    }
    assert in_index == {row[0] for row in db.execute("SELECT id FROM pieces")}
    db.close()
