"""A language model on loopback that behaves as the name says that it is asked by.

async with FakeModel() as fake:
    ...ask fake.url for the model "plain"...
    fake.asked[-1]  # what reached it
"""

import asyncio
import gzip
import json
from collections.abc import Iterable
from typing import Any, Self

from aiohttp import web

KEY = "sk-fake-0123456789abcdef"
INJECTED = (
    "@everyone <@123456789012345678> **free** nitro: [click](https://evil.example/a) "
    "or https://evil.example/b and discord.gg/evil </ask:1> [1]"
)


class FakeModel:
    """The server. What a behaviour is called is what the model's name is."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[dict[str, Any]] = []  # the bodies
        self.headers: list[dict[str, str]] = []
        self.elsewhere = 0  # requests of what a redirect leads to
        self.answers: dict[str, str] = {}  # more behaviours: a model that says this
        self.gate = asyncio.Event()  # what "gated" waits for before its last words
        self.over = asyncio.Event()  # nobody waits for an answer any more

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self._answer)
        application.router.add_route("*", "/elsewhere", self._elsewhere)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *error: object) -> None:
        self.over.set()
        await self._runner.cleanup()

    async def _elsewhere(self, request: web.Request) -> web.Response:
        self.elsewhere += 1
        return web.Response(text="what is inside")

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        name = str(body["model"])
        if name in self.answers:
            return await streamed(request, [self.answers[name]])
        match name:
            case "401" | "500" | "429":
                text = f"wrong key: {request.headers.get('Authorization')}"
                return web.Response(status=int(name), text=text)
            case "redirect":
                raise web.HTTPTemporaryRedirect("/elsewhere")
            case "hang":
                await self.over.wait()
                return web.Response()
            case "picky" if "max_tokens" in body:
                return web.Response(status=400, text="use max_completion_tokens")
            case "whole":
                told = {"role": "assistant", "content": "It is a whole answer [1]."}
                return web.json_response({"choices": [{"message": told}]})
            case "gzip":
                packed = gzip.compress(b"data: " + event("It is packed [1].") * 10**5)
                headers = {"Content-Encoding": "gzip"}
                return web.Response(body=packed, headers=headers)
            case "empty":
                return web.Response()
            case "html":
                return web.Response(
                    text="<h1>It works [1]</h1>", content_type="text/html"
                )
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            await self._stream(name, response)
        except ConnectionError:  # who asked has heard enough
            return response
        if name == "cut":
            assert request.transport
            request.transport.abort()
        return response

    async def _stream(self, name: str, response: web.StreamResponse) -> None:
        say = response.write
        match name:
            case "stalls":
                await say(event("It begins well [1], and then"))
                await self.over.wait()
            case "cut" | "ends early":
                await say(event("It begins well [1], and then"))
            case "garbage":
                for _ in range(50):
                    await say(b"\x00\xff{{{\ndata: {]\ndata: 7\ndata: []\n\n")
                    await say(b'data: {"choices": [null]}\ndata: {"choices": 3}\n')
                    await say(b'data: {"choices": [{"delta": {"content": {}}}]}\n')
            case "endless line":
                while not self.over.is_set():
                    await say(b"data: " + b"x" * 2**16)
            case "endless words":
                while not self.over.is_set():
                    await say(event("and on it goes [1] ") * 100)
            case "endless thoughts":
                while not self.over.is_set():
                    await say(THOUGHT * 100)
                    await asyncio.sleep(0)
            case "nested":
                await say(b"data: " + b"[" * 50_000 + b"\n\n")
                await say(event("It is deep [1].") + DONE)
            case "reports an error":
                await say(
                    event("It begins [1]") + b'data: {"error": {"message": "x"}}\n'
                )
            case "in parts":
                thought = {"type": "thinking", "thinking": [{"text": "hm"}]}
                text = {"type": "text", "text": "It comes in parts [1]."}
                delta = {"choices": [{"delta": {"content": [thought, text]}}]}
                await say(f"data:{json.dumps(delta)}\r\n\r\n".encode() + DONE)
            case "slow":
                for word in [
                    "It",
                    "takes",
                    "a",
                    "while",
                    "[1]",
                    "until",
                    "all",
                    "of",
                    "it",
                    "is",
                    "there",
                    ".",
                ]:
                    await say(b": still alive\n\n" + event(word + " "))
                    await asyncio.sleep(0.02)
                await say(DONE)
            case "gated":
                await say(event("The first half [1]."))
                await self.gate.wait()
                await say(event(" The second half [2].") + DONE)
            case "long":
                await say(event("A long answer [1] of many words. " * 800) + DONE)
            case "picky":
                await say(event("It is picky [1].") + DONE)
            case _:
                await say(event("It is in the posts") + event(" [1].") + DONE)


def event(text: str) -> bytes:
    return (
        f"data: {json.dumps({'choices': [{'delta': {'content': text}}]})}\n\n".encode()
    )


DONE = b"data: [DONE]\n\n"
THOUGHT = event("").replace(b"{", b'{"reasoning": "%s", ' % (b"hm " * 300), 1)


async def streamed(request: web.Request, texts: Iterable[str]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for text in texts:
        await response.write(event(text))
    await response.write(DONE)
    return response
