"""Search by meaning, seen from the bot: texts become rows, and rows are compared.

Rows are made by the model of this machine (``_model.py``), or by an endpoint that
speaks OpenAI's ``/embeddings``. They are compared by the child in ``_scores.py``, which
has numpy; the bot does not import it. Without model or numpy there is no meaning, and
the archive is searched by words.
"""

import asyncio
import hashlib
import math
import time
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import aiohttp
from bossbot_plugins._chat_model import ModelFailed, authorization, key_of, whole
from bossbot_plugins._limited_child import ChildError, LimitedChild
from loguru import logger
from pydantic import SecretStr

from bossbot import N_, Finding, cut_line

from . import _model

MEMORY_BYTES = 400 * 2**20  # of the child's, a wall; it uses 150 MB
BATCH = 32  # texts of a request, so that a search waits no longer than for these
MAX_TEXT = 2000  # characters of a text that count
MAX_ANSWER_BYTES = 32 * 2**20  # of an endpoint
MAX_DIMS = 8192
RESTS_S = 60.0  # after an endpoint failed


class Meaning:
    """Rows for texts, and the pieces whose rows are nearest to one.

    ``kind`` is "auto", "off" or "endpoint". The database is archive.db, with a table
    ``vectors(guild_id, channel_id, id, vector)`` that is read only.
    """

    def __init__(
        self,
        database: Path,
        kind: Literal["auto", "off", "endpoint"] = "auto",
        *,
        idle_s: float = 600,
        endpoint_url: str = "",
        endpoint_model: str = "",
        endpoint_key: SecretStr | None = None,
    ) -> None:
        self.kind = kind
        self._endpoint = Endpoint(endpoint_url, endpoint_model, key_of(endpoint_key))
        self._child = LimitedChild(
            Path(__file__).with_name("_scores.py"),
            {"database": str(database)},
            memory_bytes=MEMORY_BYTES,
            idle_s=idle_s,
        )
        self._failed = False  # the last time
        self._missing = {"auto": _model.lacking, "endpoint": _model.lacking_numpy}.get(
            kind, lambda: "off"
        )()

    @property
    def model(self) -> str:
        """The name of the model that makes the rows, "" for none. Rows of another one
        cannot be compared, and are computed again from their texts."""
        if self._missing:
            return ""
        return _model.NAME if self.kind == "auto" else self._endpoint.name

    @property
    def pid(self) -> int:
        """The child's, 0 while there is none."""
        return self._child.pid

    async def stop(self) -> None:
        """End the child and the connections."""
        await self._child.stop()
        await self._endpoint.stop()

    def status(self) -> str:
        """Its state, as a sentence that ``_`` translates."""
        if self.kind == "off":
            return N_("Search by meaning is off.")
        if self._missing:
            return N_("Search by meaning is not installed, so I search only by words.")
        if self._child.off or self._endpoint.resting or self._failed:
            return N_(
                "Search by meaning has failed, so I search only by words for now."
            )
        if self.kind == "endpoint":
            return N_("Search by meaning uses another machine.")
        if self.pid:
            return N_("Search by meaning is ready.")
        return N_("Search by meaning starts when it is needed.")

    async def embed(
        self, texts: Sequence[str], wait_s: float | None = None
    ) -> list[bytes] | None:
        """A row of int8 for each text, of as many bytes as the model has dimensions;
        None when there are none now."""
        if not self.model:
            return None
        texts = [text[:MAX_TEXT] for text in texts]
        try:
            rows: list[bytes] = []
            for at in range(0, len(texts), BATCH):
                some = texts[at : at + BATCH]
                if self.kind == "endpoint":
                    rows += await self._endpoint.embed(some)
                    continue
                _, data = await self._child.ask({"texts": some}, wait_s=wait_s)
                size = len(data) // len(some)
                rows += [data[size * n : size * (n + 1)] for n in range(len(some))]
        except (ChildError, EndpointError) as error:
            self._fail(error)
            return None
        self._failed = False
        return rows

    def _fail(self, error: Exception) -> None:
        if not self._failed:
            logger.warning("search by meaning has failed: {}", error)
        self._failed = True

    async def nearest(
        self,
        query: str | bytes,
        guild_id: int,
        channels: Iterable[int],
        limit: int,
        *,
        among: Iterable[int] | None = None,
        also: Iterable[int] = (),
        wait_s: float | None = 10,
    ) -> list[tuple[int, float]] | None:
        """The ids of the pieces nearest to a text or a row, and their cosines, the best
        first; None when meaning is not available within ``wait_s``.

        Only pieces in these channels of the guild are read, and of them only those in
        ``among``, if it is given. The cosines of the pieces in ``also`` are added at the
        end, whether they are near or not, if they lie in these channels.
        """
        if not self.model:
            return None
        if isinstance(query, str) and self.kind == "endpoint":
            rows = await self.embed([query])
            if not rows:
                return None
            query = rows[0]
        row, text = (query, "") if isinstance(query, bytes) else (b"", query)
        lists = [array("q", one) for one in (channels, among or (), also)]
        request = {
            "nearest": True,
            "text": text[:MAX_TEXT],
            "row": len(row),
            "guild": guild_id,
            "limit": limit,
            "filtered": among is not None,
            "counts": [len(one) for one in lists],
        }
        body = row + b"".join(one.tobytes() for one in lists)
        try:
            answer, data = await self._child.ask(request, body, wait_s)
        except ChildError as error:
            self._fail(error)
            return None
        self._failed = False
        ids, cosines = array("q"), array("f")
        count = int(answer["count"])
        ids.frombytes(data[: 8 * count])
        cosines.frombytes(data[8 * count : 12 * count])
        return list(zip(ids, cosines, strict=True))


def findings(kind: str) -> list[Finding]:
    """The findings of ``check`` about search by meaning."""
    if kind == "off" or not (
        missing := _model.lacking() if kind == "auto" else _model.lacking_numpy()
    ):
        return []
    return [
        Finding(
            f"{missing} is missing",
            "the archive is searched by words, not by meaning",
            "python -m pip install -r requirements.txt; on a machine it has no wheels "
            'for, set meaning = "off" or an endpoint in [plugins.archive].',
        )
    ]


class EndpointError(Exception):
    """An endpoint gave no vectors."""


class Endpoint:
    """An OpenAI-compatible server that embeds texts."""

    timeout_s = 60.0

    def __init__(self, url: str, model: str, key: str) -> None:
        self.url, self.model, self._key = url.rstrip("/"), model, key
        # Which server it is goes into no name that members see.
        where = hashlib.sha256(f"{self.url} {model}".encode()).hexdigest()[:8]
        self.name = f"endpoint {where}" if url and model else ""
        self._session: aiohttp.ClientSession | None = None
        self._rests_until_s = 0.0

    @property
    def resting(self) -> bool:
        """Whether it failed a moment ago."""
        return time.monotonic() < self._rests_until_s

    async def stop(self) -> None:
        if self._session:
            await self._session.close()
            self._session = None

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        """A row for each text. Raises ``EndpointError``."""
        if self.resting:
            raise EndpointError("it failed a moment ago")
        try:
            return await self._embed(texts)
        # Its answer may be anything.
        except (
            *(ModelFailed, aiohttp.ClientError, TimeoutError, OSError),
            *(ValueError, TypeError, LookupError, RecursionError),
        ) as error:
            self._rests_until_s = time.monotonic() + RESTS_S
            said = cut_line(f"{type(error).__name__}: {error}")
            logger.warning("the endpoint for embeddings failed: {}", said)
            raise EndpointError(said) from error

    async def _embed(self, texts: Sequence[str]) -> list[bytes]:
        if not self._session:
            timeout = aiohttp.ClientTimeout(total=self.timeout_s, connect=10)
            self._session = aiohttp.ClientSession(timeout=timeout)
        asked = {"model": self.model, "input": list(texts)}
        async with self._session.post(
            f"{self.url}/embeddings",
            json=asked,
            headers=authorization(self._key),
            allow_redirects=False,  # the key is for this server only
        ) as response:
            data = await whole(response, MAX_ANSWER_BYTES)
        return await asyncio.to_thread(rows_of, data, len(texts))


def rows_of(data: bytes, count: int) -> list[bytes]:
    """The rows in an answer to ``/embeddings``, in the order of the texts; raises
    ValueError, TypeError or LookupError for anything else."""
    import json

    found = json.loads(data)["data"]
    rows: list[bytes] = [b""] * count
    for place, one in enumerate(found):
        rows[int(one.get("index", place))] = quantise(one["embedding"])
    if len(found) != count or not all(rows) or len({len(row) for row in rows}) != 1:
        raise ValueError("not a vector for each text")
    return rows


def quantise(vector: Sequence[Any]) -> bytes:
    """A vector as int8, with a scale of its own, which a cosine does not see."""
    if not 0 < len(vector) <= MAX_DIMS:
        raise ValueError(f"a vector of {len(vector)} numbers")
    numbers = [float(one) for one in vector]
    most = max(map(abs, numbers))
    if not math.isfinite(most) or not most:
        raise ValueError("a vector without a direction")
    scale = 127 / most
    return array("b", [round(one * scale) for one in numbers]).tobytes()
