"""The child of ``_meaning.py``: embeds texts, and finds the rows nearest to one.

Requests: ``{"texts": [...]}`` answers the rows one after the other; ``{"nearest": ...}``
reads archive.db, and answers ids and cosines as two arrays.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ._model import BATCH, Model

BLOCK = 512  # rows scored at once: 1 MB of float32
QUERY = "SELECT id, vector FROM vectors WHERE guild_id = ? AND channel_id = ?"
Answer = tuple[dict[str, Any], bytes]


def start(options: dict[str, Any]) -> Callable[[dict[str, Any], bytes], Answer]:
    """See ``LimitedChild``; ``options`` names the database."""
    return Scores(Path(options["database"])).answer


class Scores:
    """What the child has: the database's path, and the model once it is needed."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self._model: Model | None = None

    def answer(self, request: dict[str, Any], body: bytes) -> Answer:
        if "texts" in request:
            return {}, self.embed(request["texts"]).tobytes()
        row = np.frombuffer(body[: request["row"]], np.int8)
        if text := request["text"]:
            row = self.embed([text])[0]
        numbers = np.frombuffer(body[request["row"] :], np.int64)
        channels, among, also = np.split(numbers, np.cumsum(request["counts"])[:2])
        places = [(request["guild"], int(channel)) for channel in channels]
        some = among if request["filtered"] else None
        found = self.nearest(row, places, request["limit"], some, also)
        return {"count": len(found[0])}, b"".join(part.tobytes() for part in found)

    def embed(self, texts: Sequence[str]) -> Any:
        """The int8 rows of some texts; one that the model cannot read is all zeros."""
        if not self._model:
            self._model = Model()
        parts = [texts[at : at + BATCH] for at in range(0, len(texts), BATCH)]
        return np.concatenate([self._rows(self._model, part) for part in parts])

    def _rows(self, model: Model, texts: Sequence[str]) -> Any:
        try:
            return quantise(model.embed(texts))
        except Exception:  # whatever a text does to the model, the others have rows
            if len(texts) > 1:
                return np.concatenate([self._rows(model, [text]) for text in texts])
            return np.zeros((1, 512), np.int8)

    def nearest(
        self, row: Any, places: Any, limit: int, among: Any, also: Any
    ) -> tuple[Any, Any]:
        """The ids and cosines of the rows nearest to one, the best first, and after
        them those of ``also``."""
        query = row.astype(np.float32)
        query /= max(float(np.linalg.norm(query)), 1e-9)
        wanted = {*also.tolist()}
        asked: dict[int, float] = {}
        best_ids: list[int] = []
        best = np.empty(0, np.float32)
        least = -2.0  # a worse one is not among the best any more
        for ids, rows in self._blocks(places, len(query)):
            scores = rows @ query
            scores /= np.sqrt(np.einsum("ij,ij->i", rows, rows)) + 1e-9
            if wanted.intersection(ids):
                pairs = zip(ids, scores.tolist(), strict=True)
                asked |= {one: score for one, score in pairs if one in wanted}
            if among is not None:
                scores[~np.isin(np.array(ids, np.int64), among)] = -2.0
            good = np.flatnonzero(scores > least)
            best_ids += [ids[at] for at in good.tolist()]
            best = np.concatenate([best, scores[good]])
            if len(best) > 4 * limit:
                first = np.argpartition(-best, limit)[:limit]
                best_ids, best = [best_ids[at] for at in first], best[first]
                least = float(best.min())
        order = np.argsort(-best, kind="stable")[:limit]
        found = {best_ids[at]: best[at] for at in order.tolist()}
        found |= {one: score for one, score in asked.items() if one not in found}
        return np.array([*found], np.int64), np.array([*found.values()], np.float32)

    def _blocks(self, places: Any, dims: int) -> Iterator[tuple[list[int], Any]]:
        """The ids and rows in some channels, at most ``BLOCK`` at a time; the rows are
        good until the next ones."""
        uri = f"{self.database.absolute().as_uri()}?mode=ro"
        buffer = np.empty((BLOCK, dims), np.float32)
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5)) as database:
            database.execute("PRAGMA cache_size = -256")  # each page is read once
            for place in places:
                cursor = database.execute(QUERY, place)
                while block := cursor.fetchmany(BLOCK):
                    data = b"".join([row for _, row in block])
                    if len(data) != len(block) * dims:  # some are another model's
                        block = [one for one in block if len(one[1]) == dims]
                        data = b"".join([row for _, row in block])
                    rows = buffer[: len(block)]
                    np.copyto(rows, np.frombuffer(data, np.int8).reshape(-1, dims))
                    yield [number for number, _ in block], rows


def quantise(vectors: Any) -> Any:
    """Vectors as int8 rows: each with a scale of its own, which a cosine does not see."""
    most = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-9)
    return np.rint(vectors * (127 / most)).astype(np.int8)
