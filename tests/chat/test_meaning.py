"""Search by meaning: the model, the child that holds it, and rows from an endpoint."""

import asyncio
import json
import math
import os
import signal
import sqlite3
import sys
import time
from array import array
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from bossbot_plugins import _limited_child, _walls
from bossbot_plugins._limited_child import ChildError, LimitedChild
from bossbot_plugins.archive import _model
from bossbot_plugins.archive._meaning import Meaning, findings, quantise, rows_of
from discord_support import module
from pydantic import SecretStr

STORED = Path(__file__).parents[1] / "support" / "embeddings.json"
GUILD = 7


def cosine(one: bytes, other: bytes) -> float:
    a, b = array("b", one), array("b", other)
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def store(path: Path, rows: list[tuple[int, int, int, bytes]]) -> None:
    """archive.db, as far as the child reads it."""
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(
            "CREATE TABLE IF NOT EXISTS vectors (guild_id, channel_id, id, vector,"
            " PRIMARY KEY (guild_id, channel_id, id)) WITHOUT ROWID"
        )
        database.executemany("INSERT INTO vectors VALUES (?, ?, ?, ?)", rows)
    database.close()


@pytest.fixture(autouse=True)
def machine() -> Any:
    """Our library, whatever plugins the last app of another test had."""
    return module("_machine")


@pytest.fixture
async def meaning(tmp_path: Path) -> AsyncIterator[Meaning]:
    meaning = Meaning(tmp_path / "archive.db")
    yield meaning
    await meaning.stop()


async def test_texts_become_the_rows_that_are_stored_and_the_nearest_are_found(
    meaning: Meaning, tmp_path: Path
) -> None:
    stored = json.loads(STORED.read_text())
    texts, want = list(stored), [bytes.fromhex(one) for one in stored.values()]
    assert len(texts) == 20
    rows = await meaning.embed(texts)
    assert rows is not None and {len(row) for row in rows} == {_model.DIMS}
    assert min(map(cosine, rows, want)) >= 0.99

    # There is no file yet, and then one that is damaged: nothing is compared.
    assert await meaning.nearest(rows[4], GUILD, [1], 3) is None
    (tmp_path / "archive.db").write_bytes(b"no database" * 1000)
    assert await meaning.nearest(rows[4], GUILD, [1], 3) is None
    (tmp_path / "archive.db").unlink()

    # The even ones are in channel 1, the odd ones in 2, all of them on another server,
    # and a row of another model lies between them.
    places = [(GUILD, 1 + n % 2, n, row) for n, row in enumerate(rows)]
    elsewhere = [(GUILD + 1, 1, 100 + n, row) for n, row in enumerate(rows)]
    store(tmp_path / "archive.db", [*places, *elsewhere, (GUILD, 1, 99, b"\1" * 16)])
    found = await meaning.nearest(rows[4], GUILD, [1], 3)
    assert found and found[0][0] == 4 and found[0][1] == pytest.approx(1, abs=1e-3)
    assert len(found) == 3 and all(number % 2 == 0 for number, _ in found)
    assert [cosine for _, cosine in found] == sorted(
        (c for _, c in found), reverse=True
    )
    everywhere = await meaning.nearest(texts[5], GUILD, [1, 2], 20)
    assert everywhere and everywhere[0][0] == 5
    assert sorted(number for number, _ in everywhere) == list(range(20))
    # Only some of them, and the cosine of one that is not near.
    some = await meaning.nearest(rows[4], GUILD, [1, 2], 1, among=[6, 7], also=[9, 100])
    assert some and [number for number, _ in some][1:] == [9]
    assert some[0][0] in (6, 7) and some[1][1] == pytest.approx(
        dict(await meaning.nearest(rows[4], GUILD, [2], 9) or [])[9], abs=1e-4
    )
    assert await meaning.nearest(rows[4], GUILD, [], 3) == []

    # What is no text for the model has a row all the same.
    odd = [
        "",
        "\0",
        " \n",
        "\ud800",
        "🦊" * 3000,
        "ア" * 5000,
        "'; DROP TABLE vectors--",
    ]
    rows = await meaning.embed(odd)
    assert rows and [len(row) for row in rows] == [_model.DIMS] * len(odd)

    # What stands for many characters takes no longer than they.
    assert _model.shortened("ﷺ" * 2000) == ("صلى الله عليه وسلم" * 200)[:2000]
    assert _model.shortened("ﷺ" * 100) == "ﷺ" * 100

    # What it takes, with everything loaded.
    if sys.platform == "linux":
        lines = Path(f"/proc/{meaning.pid}/smaps_rollup").read_text().splitlines()
        sizes = {line.split()[0]: int(line.split()[1]) for line in lines[1:]}
        assert sizes["Pss:"] < 170_000
        environment = Path(f"/proc/{meaning.pid}/environ").read_bytes()
        assert b"BOSS_BOT" not in environment and b"PYTEST" not in environment
        assert os.getpgid(meaning.pid) == meaning.pid
        assert os.getpriority(os.PRIO_PROCESS, meaning.pid) >= 10

    # That it runs does not mean that it answers.
    assert meaning.status().endswith("is ready.")
    (tmp_path / "archive.db").rename(tmp_path / "elsewhere.db")
    assert await meaning.nearest(rows[4], GUILD, [1], 3) is None
    assert meaning.pid and "has failed" in meaning.status()
    assert await meaning.embed(["a"]) and meaning.status().endswith("is ready.")


async def test_what_is_missing_is_said_and_words_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert findings("auto") == findings("off") == []
    monkeypatch.setattr(_model, "PACKAGE", "no_such_package")
    (finding,) = findings("auto")
    assert "sentence-encoder" in finding.what and "pip install" in finding.remedy
    meaning = Meaning(tmp_path / "archive.db")
    assert meaning.model == "" and "not installed" in meaning.status()
    assert await meaning.embed(["a"]) is None
    assert await meaning.nearest("a", GUILD, [1], 5) is None
    assert meaning.pid == 0
    assert Meaning(tmp_path / "archive.db", "off").status().endswith("is off.")


@pytest.mark.parametrize("name", _model.SHA256)
async def test_data_that_is_not_the_known_one_is_never_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    known = _model._files()
    with known[name].open("rb") as file:  # as it is, but for its end
        (tmp_path / name).write_bytes(file.read()[:-1])
    files = known | {name: tmp_path / name}
    monkeypatch.setattr(_model, "_files", lambda: files)
    with pytest.raises(ImportError, match="not the file that is known"):
        _model.Model()


CHILD = """
import contextlib, fcntl, os, socket, sys, time

def start(options):
    if options.get("broken"):
        raise RuntimeError("broken at the start")
    print("noise on standard output")

    def answer(request, body):
        match request["do"]:
            case "echo":
                return {"pid": os.getpid(), "nice": os.nice(0)}, body
            case "raise":
                raise ValueError("not this one")
            case "die":
                print("last words", file=sys.stderr, flush=True)
                os.kill(os.getpid(), 9)
            case "hang":
                time.sleep(600)
            case "talk":
                os.write(options["out"], b"x" * 100000)
            case "flood":
                for pipe in range(3, 20):  # one of these; all of it is read at once
                    with contextlib.suppress(OSError):
                        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 2**20)
                return {}, b"x" * 5_000_000
            case "eat":
                return {"got": len(bytes(500_000_000))}, b""
            case "read":
                return {"read": open(request["path"]).read()}, b""
            case "dial":
                socket.socket().connect(tuple(request["to"]))
            case "run":
                return {"exit": os.system("true")}, b""

    return answer
"""


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Any]:
    """Makes children that do as they are told."""
    (tmp_path / "_puppet.py").write_text(CHILD)
    children: list[LimitedChild] = []

    def make(options: dict[str, Any] | None = None, **how: Any) -> LimitedChild:
        how = {"memory_bytes": 300 * 2**20, "idle_s": 600} | how
        child = LimitedChild(tmp_path / "_puppet.py", options or {}, **how)
        children.append(child)
        return child

    yield make
    for child in children:
        await child.stop()


async def test_child_answers_and_ends_when_it_is_idle(made: Any) -> None:
    child = made()
    assert child.pid == 0
    answer, body = await child.ask({"do": "echo"}, b"\0\xff")
    assert answer["nice"] == min(os.nice(0) + 10, 19)
    assert body == b"\0\xff" and answer["pid"] == child.pid
    pid, child.idle_s = child.pid, 0.05
    with pytest.raises(ChildError, match="not this one"):
        await child.ask({"do": "raise"})
    while child.pid:
        await asyncio.sleep(0.01)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    again, _ = await child.ask({"do": "echo"})
    assert again["pid"] != pid


async def test_child_that_dies_three_times_is_off_for_a_while(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = made()
    for _ in range(3):
        assert not child.off
        with pytest.raises(ChildError) as error:
            await child.ask({"do": "die"})
        assert error.value.died
    assert child.off
    with pytest.raises(ChildError, match="too often") as error:
        await child.ask({"do": "echo"})
    assert not error.value.died and child.pid == 0
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + 3601)
    await child.ask({"do": "echo"})


@pytest.mark.parametrize("deed", ["hang", "flood", "raise at start"])
async def test_child_that_hangs_or_says_too_much_is_killed(
    made: Any, deed: str
) -> None:
    child = made(
        {"broken": deed == "raise at start"}, timeout_s=60 - 59 * (deed == "hang")
    )
    with pytest.raises(ChildError) as error:
        await child.ask({"do": deed})
    assert error.value.died and child.pid == 0


async def test_search_that_does_not_wait_leaves_the_child_at_work(made: Any) -> None:
    child = made()
    await child.ask({"do": "echo"})
    with pytest.raises(ChildError, match="within"):
        await child.ask({"do": "hang"}, wait_s=0.05)
    assert child.pid and not child.off


async def test_memory_of_a_child_is_limited_and_it_goes_on(made: Any) -> None:
    child = made(memory_bytes=100 * 2**20)
    with pytest.raises(ChildError, match="MemoryError"):
        await child.ask({"do": "eat"})
    await child.ask({"do": "echo"})


async def test_child_behind_walls_has_no_files_and_no_network(
    made: Any, tmp_path: Path
) -> None:
    child = made(walled=True, private=[tmp_path])
    (tmp_path / "secret").write_text("token")
    files, _, network = _walls.standing().values()  # what this kernel has
    deeds = [({"do": "read", "path": str(tmp_path / "secret")}, files)]
    deeds += [({"do": "read", "path": "/etc/passwd"}, files)]
    deeds += [({"do": "dial", "to": ["127.0.0.1", 9]}, network)]
    for request, stands in deeds:
        if stands:
            with pytest.raises(ChildError, match=r"Permission|not permitted"):
                await child.ask(request)


async def test_child_dies_with_the_bot(tmp_path: Path) -> None:
    (tmp_path / "_puppet.py").write_text(CHILD)
    main = Path(_limited_child.__file__).with_name("_limited_main.py")
    pipe = asyncio.subprocess.PIPE
    bot = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", main), stdin=pipe, stdout=pipe, start_new_session=True
    )
    assert bot.stdin and bot.stdout
    setup = {
        "module": str(tmp_path / "_puppet.py"),
        "options": {},
        "memory_bytes": 2**30,
        "walls": "",
        "private": [],
    }
    for request in (setup, {"do": "hang"}):  # it is at work when the bot goes
        text = json.dumps(request).encode()
        bot.stdin.write(_limited_child.LENGTHS.pack(len(text), 0) + text)
        if request is setup:
            await bot.stdout.readexactly(_limited_child.LENGTHS.size + 2)
    bot.stdin.close()
    assert await asyncio.wait_for(bot.wait(), 60) in (-signal.SIGKILL, 0)


# Rows from an endpoint


def answer_of(vectors: list[Any]) -> dict[str, Any]:
    return {"data": [{"index": n, "embedding": v} for n, v in enumerate(vectors)]}


async def misbehave(request: web.Request) -> web.StreamResponse:
    """An endpoint that does what the model's name says."""
    asked = await request.json()
    count = len(asked["input"])
    good = [[float(len(text)), 30.0, -60.0] for text in asked["input"]]
    match asked["model"]:
        case "good":
            if request.headers.get("Authorization") != "Bearer sk-1":
                return web.Response(status=401)
            found = answer_of(good)["data"]
            return web.json_response({"data": found[::-1]})  # in any order
        case "redirect":
            raise web.HTTPTemporaryRedirect("/v1/elsewhere")
        case "error":
            return web.Response(status=500, text="no")
        case "garbage":
            return web.Response(text="<html>")
        case "deep":
            return web.Response(text="[" * 200_000)
        case "few":
            return web.json_response(answer_of(good[:-1]))
        case "twice":
            rows = [{"index": 0, "embedding": good[0]}] * count
            return web.json_response({"data": rows})
        case "uneven":
            return web.json_response(answer_of([*good[:-1], [1.0]]))
        case "words":
            return web.json_response(answer_of([["a", "b"]] * count))
        case "nan":
            return web.Response(
                text=json.dumps(answer_of([[float("nan"), 1.0]] * count)),
                content_type="application/json",
            )
        case "zeros":
            return web.json_response(answer_of([[0.0, 0.0]] * count))
        case "endless":
            response = web.StreamResponse()
            await response.prepare(request)
            for _ in range(80):
                await response.write(b" " * 2**20)
            await response.write(json.dumps(answer_of(good)).encode())
            return response
        case "hang":
            await asyncio.sleep(600)
    raise AssertionError


async def elsewhere(_request: web.Request) -> web.Response:
    return web.json_response(answer_of([[1.0, 2.0]] * 2))


@pytest.fixture
async def address() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/embeddings", misbehave)
    app.router.add_post("/v1/elsewhere", elsewhere)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    await runner.cleanup()


async def test_rows_come_from_an_endpoint(tmp_path: Path, address: str) -> None:
    meaning = Meaning(
        tmp_path / "archive.db",
        "endpoint",
        endpoint_url=address + "/",
        endpoint_model="good",
        endpoint_key=SecretStr("sk-1"),
    )
    texts = ["x" * n for n in range(1, 70)]
    rows = await meaning.embed(texts)
    assert rows and len(rows) == 69
    assert rows[0] == quantise([1.0, 30.0, -60.0]) == bytes([2, 64, 129])
    store(tmp_path / "archive.db", [(GUILD, 1, n, row) for n, row in enumerate(rows)])
    found = await meaning.nearest("x" * 50, GUILD, [1], 2)
    assert found and found[0][0] == 49
    other = Meaning(
        tmp_path / "archive.db",
        "endpoint",
        endpoint_url=address,
        endpoint_model="error",
    )
    assert meaning.model.startswith("endpoint ") and other.model != meaning.model
    assert "127" not in meaning.model
    await meaning.stop()


@pytest.mark.parametrize(
    "model",
    [
        "redirect",
        "error",
        "garbage",
        "deep",
        "few",
        "twice",
        "uneven",
        "words",
        "nan",
        "zeros",
        "endless",
        "hang",
    ],
)
async def test_endpoint_that_misbehaves_means_no_rows_and_a_rest(
    tmp_path: Path, address: str, model: str
) -> None:
    path = tmp_path / "archive.db"
    meaning = Meaning(path, "endpoint", endpoint_url=address, endpoint_model=model)
    if model == "hang":
        meaning._endpoint.timeout_s = 0.1
    assert await meaning.embed(["one", "two"]) is None
    assert "failed" in meaning.status()
    assert meaning._endpoint.resting
    assert await meaning.nearest("one", GUILD, [1], 2) is None
    await meaning.stop()


def test_answer_that_is_no_object_is_refused() -> None:
    for text in (
        b"[]",
        b'{"data": {}}',
        b'{"data": [1]}',
        b'{"data": [{"index": -3}]}',
    ):
        with pytest.raises((ValueError, TypeError, LookupError, AttributeError)):
            rows_of(text, 1)


@pytest.mark.parametrize("mib", [0, 480, 900])
def test_machine_with_too_little_memory_searches_by_words(
    machine: Any, monkeypatch: pytest.MonkeyPatch, mib: int
) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: mib * 2**20)
    found = [one.what for one in findings("auto")]
    few = ["memory (600 MiB, where there are 480) is missing"]
    assert found == (few if mib == 480 else [])
