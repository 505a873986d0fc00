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
import sys
import sysconfig
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
if __name__ == "__main__":  # as a program
    sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / "support")]

import numpy as np
from bossbot_plugins.archive._meaning import Meaning
from bossbot_plugins.archive._words import (
    WORDS_WEIGHT,
    covered,
    fused,
    query_grams,
    rarities,
    text_grams,
)

SURE, PERHAPS = 0.45, 0.33
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5)
WAYS = ("words", "meaning", "both")


@dataclass
class Question:
    """A question, the name of the post that answers it, "" for none, and its scores."""

    kind: str
    post: str
    text: str
    shares: list[float] = field(default_factory=list)  # of each post: by words
    cosines: list[float] = field(default_factory=list)

    def scores(self, way: str, weight: float = WORDS_WEIGHT) -> list[float]:
        """The score of each post, by "words", "meaning" or "both"."""
        if way == "words":
            return self.shares
        if way == "meaning":
            return self.cosines
        pairs = zip(self.cosines, self.shares, strict=True)
        if weight == WORDS_WEIGHT:
            return [fused(*pair) for pair in pairs]
        return [max(cosine, 0) + weight * share for cosine, share in pairs]


def read(name: str) -> Iterator[list[str]]:
    """The lines of a file beside this one, as fields."""
    for line in (HERE / name).read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            yield line.split("\t")


def posts() -> dict[str, str]:
    """The texts of the posts, by name."""
    return {
        name: text.removeprefix("[picture] ")
        for name, text in read("archive_posts.txt")
    }


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


async def score(asked: Sequence[Question], texts: Sequence[str]) -> None:
    """Fill in the scores of each text for each question."""
    with tempfile.TemporaryDirectory() as folder:
        meaning = Meaning(Path(folder) / "archive.db")
        rows = await meaning.embed([*texts, *(one.text for one in asked)])
        await meaning.stop()
    if rows is None:
        raise SystemExit(f"no meaning: {meaning.status()}")
    matrix = np.frombuffer(b"".join(rows), np.int8).reshape(len(rows), -1)
    matrix = matrix.astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    cosines = matrix[len(texts) :] @ matrix[: len(texts)].T
    counts = Counter(gram for text in texts for gram in text_grams(text))
    for one, row in zip(asked, cosines, strict=True):
        grams = {gram: count_of(counts, gram) for gram in query_grams(one.text)}
        weights = rarities(grams, len(texts))
        one.shares = [covered(weights, text) for text in texts]
        one.cosines = row.tolist()


def count_of(counts: Counter[str], gram: str) -> int:
    if gram.endswith("*"):
        return sum(n for one, n in counts.items() if one.startswith(gram[:-1]))
    return counts[gram]


def place(scores: Sequence[float], right: int) -> int:
    """The place of the right post, from 1; another one of the same score is before it."""
    return 1 + sum(
        score >= scores[right] for at, score in enumerate(scores) if at != right
    )


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


def evaluate(
    asked: Sequence[Question], names: Sequence[str], perhaps: float = PERHAPS
) -> Result:
    """Judge scored questions."""
    index = {name: at for at, name in enumerate(names)}
    places: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    firsts: list[float] = []
    for one in asked:
        if not one.post:
            continue
        for way in WAYS:
            at = place(one.scores(way), index[one.post])
            for kind in ("all", one.kind):
                places[kind][way].append(at)
            if way == "both" and at == 1:
                firsts.append(max(one.scores(way)))
    best = [max(one.scores("both")) for one in asked if not one.post]
    return Result(
        {k: {w: quality(p) for w, p in ways.items()} for k, ways in places.items()},
        sum(score < perhaps for score in best) / max(len(best), 1),
        sum(score < perhaps for score in firsts) / max(len(firsts), 1),
        sum(score < SURE for score in firsts) / max(len(firsts), 1),
    )


def held_out(asked: Sequence[Question], names: Sequence[str]) -> Iterator[str]:
    """The weight of words that is best for one half of the questions, and what it does
    for the other."""
    index = {name: at for at, name in enumerate(names)}
    answered = [one for one in asked if one.post]

    def of(half: Sequence[Question], weight: float) -> tuple[float, float]:
        return quality(
            [place(one.scores("both", weight), index[one.post]) for one in half]
        )

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
    names, bodies = [*texts], [*texts.values()]
    if options.strangers:
        bodies += strangers(options.strangers)
    await score(asked, bodies)
    result = evaluate(asked, names)
    languages = {name[:2] for name in names}
    print(
        f"{len(names)} posts in {len(languages)} languages, {len(asked)} questions, "
        f"{len(bodies) - len(names)} texts of strangers; recall@5 (MRR)"
    )
    print(f"{'':12}{'':>6}" + "".join(f"{way:>16}" for way in WAYS))
    count = Counter(one.kind for one in asked)
    count["all"] = sum(bool(one.post) for one in asked)
    for kind, ways in result.by_kind.items():
        line = "".join(f"{show(ways[way]):>16}" for way in WAYS)
        print(f"{kind:12}{count[kind]:>6}{line}")
    print("threshold   refused   right first hits lost")
    for limit in (0.25, 0.30, PERHAPS, 0.35, 0.40, SURE):
        at = evaluate(asked, names, limit)
        print(f"{limit:9.2f}{at.refused:10.0%}{at.lost:24.0%}")
    print(*held_out(asked, names), sep="\n")
    if options.failures:
        print_failures(asked, names)


def print_failures(asked: Sequence[Question], names: Sequence[Any]) -> None:
    """Each question that is not found, or should not be."""
    for one in asked:
        scores = one.scores("both")
        order = sorted(range(len(scores)), key=lambda at: -scores[at])[:3]
        best = [
            (names[at] if at < len(names) else "-", round(scores[at], 2))
            for at in order
        ]
        right = [*names].index(one.post) if one.post else None
        if right is None and scores[order[0]] >= PERHAPS:
            print("not refused:", one.text, best)
        elif right is not None and (at := place(scores, right)) > 1:
            print(f"place {at}, {scores[right]:.2f}:", one.kind, one.text, best)


if __name__ == "__main__":
    asyncio.run(main())
