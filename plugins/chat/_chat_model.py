"""Chats with a language model on any server that speaks OpenAI's protocol."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import aiohttp
from pydantic import SecretStr

from bossbot import BossbotError

MAX_BYTES = 4 * 2**20  # of an answer as it is sent; a token takes about 250
MAX_LINE = 64 * 2**10  # bytes of one event
MAX_TEXT = 64 * 2**10  # characters of an answer, what a model thinks included
CONNECT_S = 10.0
TEMPERATURE = 0.2  # the posts count, not what comes to mind


class ModelFailed(BossbotError):
    """There is no answer, or only a part of it. The text names the failure, but never
    quotes the server, which may repeat the key."""


class Endpoint(NamedTuple):
    """A model, and how long to wait for it."""

    base_url: str  # "http://localhost:11434/v1"
    model: str
    key: str  # "" for none
    answer_tokens: int
    first_token_s: float
    timeout_s: float  # for the whole answer


def key_of(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


def authorization(key: str) -> dict[str, str]:
    """The header of a request with that key."""
    return {"Authorization": f"Bearer {key}"} if key else {}


async def whole(response: aiohttp.ClientResponse, most: int) -> bytes:
    """An answer of at most so many bytes. Raises ModelFailed for a refusal and for a
    longer one."""
    if response.status != 200:
        raise ModelFailed(f"it answered {response.status}")
    answer = bytearray()
    async for chunk in response.content.iter_chunked(65536):
        answer += chunk
        if len(answer) > most:
            raise ModelFailed("its answer is too large")
    return bytes(answer)


async def stream(
    endpoint: Endpoint, messages: Sequence[Mapping[str, str]]
) -> AsyncGenerator[str, None]:
    """An answer in pieces, as they come; "" when the model is thinking. Ends after at
    most ``MAX_TEXT`` characters. Follows no redirect, since that could lead anywhere.

    Raises:
        ModelFailed: it cannot be reached, refuses, is too slow, or breaks off.
    """
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    end_s = began_s + endpoint.first_token_s

    async def in_time(what: Any) -> Any:
        async with asyncio.timeout_at(min(end_s, began_s + endpoint.timeout_s)):
            return await what

    url = endpoint.base_url.rstrip("/").removesuffix("/chat/completions")
    headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
    headers |= authorization(endpoint.key)
    try:
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # a small answer could become a large one
        ) as session:
            for body in bodies(endpoint, messages):
                response = await in_time(
                    session.post(
                        f"{url}/chat/completions",
                        json=body,
                        headers=headers,
                        allow_redirects=False,
                    )
                )
                if response.status != 400:
                    break
            if response.status != 200:
                raise ModelFailed(f"it answered {response.status}")
            events = Events("json" in response.content_type)
            length = 0
            while not events.ended:
                data = await in_time(response.content.readany())
                for text in events.feed(data):
                    end_s = began_s + endpoint.timeout_s
                    yield text
                    if (length := length + len(text)) > MAX_TEXT:
                        return
    except TimeoutError:
        raise ModelFailed("it did not answer in time") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise ModelFailed(f"it cannot be reached: {type(error).__name__}") from None


def bodies(
    endpoint: Endpoint, messages: Sequence[Mapping[str, str]]
) -> Iterator[dict[str, Any]]:
    """The bodies of the request; the second is for models that refuse the first
    (400)."""
    body = {"model": endpoint.model, "messages": [*messages], "stream": True}
    most = endpoint.answer_tokens
    yield body | {"max_tokens": most, "temperature": TEMPERATURE}
    yield body | {"max_completion_tokens": most}


async def fault_of(base_url: str, key: str) -> str:
    """Why a server gives no answers, as far as can be seen without a question; "" if
    nothing is wrong."""
    timeout = aiohttp.ClientTimeout(CONNECT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(
                f"{base_url.rstrip('/')}/models",
                headers=authorization(key),
                allow_redirects=False,
            ) as answer,
        ):  # not every server has this list
            return "" if answer.status in (200, 404) else f"it answers {answer.status}"
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        return f"it cannot be reached: {type(error).__name__}"


class Events:
    """Takes an answer apart: server-sent events, or one JSON object from a server that
    does not stream. Nonsense is skipped."""

    def __init__(self, whole: bool = False) -> None:
        self.whole = whole
        self.ended = False
        self._rest = b""
        self._bytes = 0

    def feed(self, data: bytes) -> Iterator[str]:
        """The pieces of the answer that are complete by now; no data is the end of it.
        Raises ModelFailed for what is too large or breaks off."""
        self._bytes += len(data)
        if self._bytes > MAX_BYTES or (self.whole and self._bytes > MAX_LINE * 4):
            raise ModelFailed("its answer is too large")
        if self.whole:
            self._rest += data
            if not data:
                self.ended = True
                yield from self._read(self._rest)
            return
        end = b"" if data else b"\n"
        *lines, self._rest = (self._rest + data + end).split(b"\n")
        if len(self._rest) > MAX_LINE:
            raise ModelFailed("its answer is no stream of events")
        for line in lines:
            if self.ended:
                return
            name, _colon, value = line.strip().partition(b":")
            if name == b"data":
                yield from self._read(value.strip())
        if not data and not self.ended:
            raise ModelFailed("it broke off")

    def _read(self, value: bytes) -> Iterator[str]:
        if value == b"[DONE]":
            self.ended = True
            return
        try:
            event = json.loads(value)
        except (ValueError, RecursionError):
            return
        if not isinstance(event, dict):
            return
        if event.get("error"):
            raise ModelFailed("it reported an error")
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return
        told = choice.get("delta") or choice.get("message")
        if isinstance(told, dict):
            yield text_of(told.get("content"))
        if choice.get("finish_reason"):
            self.ended = True


def text_of(content: Any) -> str:
    """The text of a message, which may be in parts, some of them thoughts."""
    if isinstance(content, list):
        parts = [p for p in content if isinstance(p, dict) and p.get("type") == "text"]
        return "".join(text_of(part.get("text")) for part in parts)
    return content if isinstance(content, str) else ""
