"""How well the archive finds what members ask for: ``python tests/tools/evaluate_archive.py``.

The posts and the questions lie beside this file, and were written before the first run.
For each kind of question it prints recall@5, the share of questions whose post is among
the first five, and MRR, the mean of one divided by its place: by words, by meaning, and by
both as the archive does it. Then what the thresholds refuse, for the questions that no
post answers, and what they cost; the weight of words, chosen on one half of the
questions and judged on the other; and, with ``--strangers 3000``, how much is still found
among so many texts of others.
"""

import argparse
import ast
import asyncio
import sqlite3
import sys
import sysconfig
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
if __name__ == "__main__":  # as a program
    sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / "support")]

from bossbot_plugins._archive import Query
from bossbot_plugins.archive import _file, _find
from bossbot_plugins.archive._meaning import Meaning
from bossbot_plugins.archive._words import WORDS_WEIGHT
from bossbot_plugins.archive.config import Config
from bossbot_plugins.archive.reading import said_of
from bossbot_plugins.archive.store import NEAREST

from bossbot import Job, Passage

SURE, PERHAPS = Config().sure, Config().perhaps
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5)
WAYS = ("words", "meaning", "both")
GUILD, CHANNEL = 1, 2
AUTHORS = ("Ana Ruiz", "NatureIsMetal", "u/coolcat_99", "Le Monde", "シロクマ")
NOT_FOUND = 10_000  # its place


@dataclass
class Question:
    """A question, the name of the post that answers it, "" for none, and what the
    archive finds, by post: the share of the words, the cosine, and its score."""

    kind: str
    post: str
    text: str
    shares: dict[str, float] = field(default_factory=dict)  # by words only
    found: dict[str, tuple[float, float, float]] = field(default_factory=dict)

    def scores(self, way: str, weight: float | None = None) -> dict[str, float]:
        """The score of each post, by "words", "meaning" or "both", as the archive has
        it, or with another weight of the words."""
        if way == "words":
            return self.shares
        if way == "meaning":
            weight = 0.0
        if weight is None:
            return {name: score for name, (_, _, score) in self.found.items()}
        return {
            name: max(cosine, 0) + weight * share
            for name, (share, cosine, _) in self.found.items()
        }


def read(name: str) -> Iterator[list[str]]:
    """The lines of a file beside this one, as fields."""
    for line in (HERE / name).read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            yield line.split("\t")


def posts() -> dict[str, str]:
    """The texts of the posts, by name."""
    return dict(read("archive_posts.txt"))


def questions() -> list[Question]:
    return [
        Question(kind, post.strip("-"), text)
        for kind, post, text in read("archive_questions.txt")
    ]


def strangers(count: int) -> list[str]:
    """Texts that have nothing to do with the questions: what Python's library says
    about itself."""
    found: list[str] = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        try:
            tree = ast.parse(path.read_text("utf-8"))
        except (ValueError, SyntaxError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                text = " ".join((ast.get_docstring(node) or "").split())
                if len(text) > 30 and text[:500] not in found[-50:]:
                    found.append(text[:500])
                if len(found) == count:
                    return found
    return found


async def ask(asked: Sequence[Question], texts: dict[str, str]) -> None:
    """Put texts into an archive, and note what it finds for each question."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "archive.db"
        meaning, db = Meaning(path), _file.open_file(path)
        try:
            with _file.transaction(db):
                add(db, texts, meaning.model)
            while some := _file.without_vectors(db, 500):
                rows = await meaning.embed([text for *_, text in some])
                if rows is None:
                    raise SystemExit(f"no meaning: {meaning.status()}")
                new = [(*one[:4], row) for one, row in zip(some, rows, strict=True)]
                with _file.transaction(db):
                    _file.add_vectors(db, new, meaning.model)
            for one in asked:
                await look(db, meaning, one)
        finally:
            await meaning.stop()
            db.close()


def add(db: sqlite3.Connection, texts: dict[str, str], model: str) -> None:
    config = Config()
    _file.set_fact(db, "model", model)
    for number, (name, text) in enumerate(texts.items(), 1):
        mark, _, written = text.rpartition("[picture] ")
        author = AUTHORS[number % len(AUTHORS)]
        source = "picture" if mark or text != written else "text"
        row = _file.PostRow(
            *(name, GUILD, CHANNEL, 3, float(number), "site", "https://a.example/"),
            *("image", "", author, False, False),
        )
        passages = [Passage(written, source)]
        if source == "text":
            facts = {"text": written, "uploader": author}
            passages = said_of(Job(id=name, url="", facts=facts))
        _file.add_post(db, row, [(number, CHANNEL)], passages, config.piece_chars)


async def look(db: sqlite3.Connection, meaning: Meaning, one: Question) -> None:
    """Ask as ``SQLiteArchive.search`` does."""
    query = Query(text=one.text, guild_id=GUILD, channels=[CHANNEL])
    asked = _find.ask(db, query)
    near = await meaning.nearest(
        asked.text, GUILD, asked.channels, NEAREST, among=asked.among, also=asked.found
    )
    assert near is not None
    for found in _find.ranked(db, asked, dict(near)):
        cosine = found.score - WORDS_WEIGHT * found.share
        one.found[found.row["job_id"]] = (found.share, cosine, found.score)
    for found in _find.ranked(db, asked, None):
        one.shares[found.row["job_id"]] = found.share


def place(scores: dict[str, float], right: str) -> int:
    """The place of the right post, from 1; another one of the same score is before it."""
    if right not in scores:
        return NOT_FOUND
    best = scores[right]
    return sum(score >= best for score in scores.values())


def quality(places: Sequence[int]) -> tuple[float, float]:
    """recall@5 and MRR."""
    count = max(len(places), 1)
    return sum(at <= 5 for at in places) / count, sum(1 / at for at in places) / count


@dataclass
class Result:
    """What an evaluation found; shares from 0 to 1."""

    by_kind: dict[str, dict[str, tuple[float, float]]]  # kind, way: recall@5 and MRR
    refused: float  # of the questions that no post answers
    lost: float  # of the right first hits, by the lower threshold
    doubted: float  # of the right first hits, by the upper one


def evaluate(asked: Sequence[Question], perhaps: float = PERHAPS) -> Result:
    """Judge questions that were asked."""
    places: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    firsts: list[float] = []
    for one in asked:
        if not one.post:
            continue
        for way in WAYS:
            at = place(one.scores(way), one.post)
            for kind in ("all", one.kind):
                places[kind][way].append(at)
            if way == "both" and at == 1:
                firsts.append(one.scores(way)[one.post])
    best = [max(one.scores("both").values()) for one in asked if not one.post]
    return Result(
        {k: {w: quality(p) for w, p in ways.items()} for k, ways in places.items()},
        sum(score < perhaps for score in best) / max(len(best), 1),
        sum(score < perhaps for score in firsts) / max(len(firsts), 1),
        sum(score < SURE for score in firsts) / max(len(firsts), 1),
    )


def held_out(asked: Sequence[Question]) -> Iterator[str]:
    """The weight of words that is best for one half of the questions, and what it does
    for the other."""
    answered = [one for one in asked if one.post]

    def of(half: Sequence[Question], weight: float) -> tuple[float, float]:
        return quality([place(one.scores("both", weight), one.post) for one in half])

    halves = answered[::2], answered[1::2]
    for mine, other in (halves, halves[::-1]):
        best = max(WEIGHTS, key=lambda weight: of(mine, weight)[1])
        yield (
            f"weight {best} is best for one half ({show(of(mine, best))}); for the other: "
            f"{show(of(other, best))}, with {WORDS_WEIGHT} {show(of(other, WORDS_WEIGHT))}"
        )


def show(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.2f} ({pair[1]:.2f})"


async def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--strangers", type=int, default=0, help="how many other texts")
    parser.add_argument("--failures", action="store_true", help="what is not found")
    options = parser.parse_args()
    texts, asked = posts(), questions()
    print(
        f"{len(texts)} posts in {len({name[:2] for name in texts})} languages, "
        f"{len(asked)} questions, {options.strangers} texts of strangers; recall@5 (MRR)"
    )
    others = strangers(options.strangers) if options.strangers else []
    await ask(asked, texts | {f"-{n}": text for n, text in enumerate(others)})
    print(f"{'':12}{'':>6}" + "".join(f"{way:>16}" for way in WAYS))
    count = Counter(one.kind for one in asked)
    count["all"] = sum(bool(one.post) for one in asked)
    for kind, ways in evaluate(asked).by_kind.items():
        line = "".join(f"{show(ways[way]):>16}" for way in WAYS)
        print(f"{kind:12}{count[kind]:>6}{line}")
    print("threshold   refused   right first hits lost")
    for limit in sorted({0.25, 0.30, PERHAPS, 0.35, 0.40, SURE}):
        at = evaluate(asked, limit)
        print(f"{limit:9.2f}{at.refused:10.0%}{at.lost:24.0%}")
    print(*held_out(asked), sep="\n")
    if options.failures:
        print_failures(asked)


def print_failures(asked: Sequence[Question]) -> None:
    """Each question that is not found, or should not be."""
    for one in asked:
        scores = one.scores("both")
        best = sorted(scores.items(), key=lambda pair: -pair[1])[:3]
        shown = [f"{name} {score:.2f}" for name, score in best]
        if not one.post and best[0][1] >= PERHAPS:
            print("not refused:", one.text, shown)
        elif one.post and (at := place(scores, one.post)) > 1:
            print(f"place {at}:", one.kind, one.text, f"{one.post}, but", shown)


if __name__ == "__main__":
    asyncio.run(main())
