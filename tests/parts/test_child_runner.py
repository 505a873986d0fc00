"""The child processes: what they tell, how they die, what they may not do.

One fork server serves nearly all tests; each writes an engine of its own, since a child
imports its plugin afresh from disk.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import media
import pytest
import pytest_asyncio
from bossbot_plugins import _seccomp
from bossbot_plugins._child import is_public
from bossbot_plugins._cookies import keep_cookies, write_cookies
from conftest import CORE, PARTS, ROOT, make_job, our_plugins, spread
from pydantic import SecretStr

import bossbot
import bossbot_contracts
from bossbot import (
    SENTENCES,
    App,
    Cause,
    Fetched,
    Job,
    JobFailed,
    Platform,
    Progress,
    Ran,
    Settings,
    format_size,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLUGINS = Path(__file__).parent / "plugins"
ENGINE = (PLUGINS / "toy.py").read_text("utf-8")  # which downloads nothing
CAN_FORK = sys.platform == "linux"
numbers = count(1)


class Toys:
    """An app whose one engine does what a test writes."""

    def __init__(self, folder: Path, forks: bool = CAN_FORK, **settings: Any) -> None:
        self.plugin = folder / "plugins" / "toy.py"
        self.plugin.parent.mkdir(parents=True, exist_ok=True)
        self.write("pass")
        defaults = {
            "data_dir": folder / "data",
            "plugins_dir": self.plugin.parent,
            "allow_writable_plugins": True,  # else each load looks at every file
        }
        self.settings = Settings(**spread({**defaults, **settings}))
        self.app = App(self.settings, our_plugins(*PARTS))
        self.app.plugins.load()
        off = {name: one.off for name, one in self.app.plugins.all.items() if one.off}
        assert not off
        bossbot.prepare_data(self.settings.data_dir)
        self.runner: Any = self.app.runner
        self.runner.can_fork = forks
        sleep = os.path.realpath(shutil.which("sleep") or "")
        self.runner.programs["sleep"] = sleep  # as one of the helpers

    def write(self, body: str) -> None:
        body = textwrap.indent(textwrap.dedent(body), "    ")
        self.plugin.write_text(ENGINE.replace("    pass", body))

    def job(self, url: str = "https://toy.example/") -> Job:
        number = f"{next(numbers):010x}"
        return make_job(id=number, url=url, engine="toy", claim_number=1)

    def set(self, **values: Any) -> None:
        """Settings in place of the default ones; those of a part begin with its name:
        see ``spread``."""
        tables = spread(values)
        parts = {"child_runner": self.app.runner, "local_worker": self.app.worker}
        for stem, part in parts.items():
            config = type(self.app.plugins.all[stem].config)
            part.config = config(  # type: ignore[attr-defined]
                **{
                    **self.settings.plugins.get(stem, {}),
                    **tables["plugins"].pop(stem, {}),
                }
            )
        assert not tables.pop("plugins")
        self.app.settings = self.settings.model_copy(update=tables)

    async def fetch(
        self,
        body: str,
        url: str = "https://toy.example/",
        on_progress: Callable[[Progress], None] = lambda progress: None,
        **settings: Any,
    ) -> Fetched:
        """What an engine with this body downloads, under these settings."""
        self.write(body)
        self.set(**settings)
        return await self.app.worker.fetch(self.job(url), on_progress)

    async def failure(self, body: str, **options: Any) -> JobFailed:
        with pytest.raises(JobFailed) as caught:
            await self.fetch(body, **options)
        return caught.value

    @property
    def pids_file(self) -> Path:
        return self.settings.data_dir / "cache" / "other" / "pids"

    def pids(self) -> list[int]:
        """Of the child and the grandchild."""
        text = self.pids_file.read_text()
        self.pids_file.unlink()
        return [int(pid) for pid in text.split()]


@contextlib.asynccontextmanager
async def running_toys(folder: Path, **how: Any) -> AsyncIterator[Toys]:
    toys = Toys(folder, **how)
    try:
        yield toys
    finally:
        await toys.app.stop()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def toys(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Toys]:
    async with running_toys(tmp_path_factory.mktemp("toys")) as toys:
        yield toys


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def fresh_toys(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Toys]:
    async with running_toys(tmp_path_factory.mktemp("fresh"), forks=False) as toys:
        yield toys


@pytest.fixture(params=["forked", "fresh"])
def either(request: pytest.FixtureRequest, toys: Toys, fresh_toys: Toys) -> Toys:
    """Where there is no safe fork, a fresh interpreter does the same."""
    if request.param == "forked" and not CAN_FORK:
        pytest.skip("no fork here")
    return toys if request.param == "forked" else fresh_toys


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def nobody(progress: Progress) -> None:
    """Watches no progress."""


async def until(condition: Callable[[], Any], within_s: float = 60) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


# What they tell


async def test_facts_files_and_progress_arrive(either: Toys) -> None:
    seen: list[Progress] = []
    body = """
        report.info(title="Title", uploader="ada")
        report.info(items=2)
        report.progress(Progress("a.txt", 10, 100, 5.0, 1, 2))
        report.file(save(request, 1, "first"))
        report.file(save(request, 2, "second"))
        """
    fetched = await either.fetch(body, on_progress=seen.append)
    assert fetched.facts == {"title": "Title", "uploader": "ada", "items": 2}
    assert [file.path.read_text() for file in fetched.files] == ["first", "second"]
    assert [file.mime for file in fetched.files] == ["text/plain"] * 2
    assert seen == [Progress("a.txt", 10, 100, 5.0, 1, 2)]
    assert either.runner.running == {}


async def test_progress_is_told_at_most_ten_times_a_second(toys: Toys) -> None:
    seen: list[Progress] = []
    body = """
        for number in range(1000):
            report.progress(Progress("a", number))
        report.info(text="done")
        """
    started_s = time.monotonic()
    await toys.fetch(body, on_progress=seen.append)
    assert 1 <= len(seen) <= 2 + 10 * (time.monotonic() - started_s)


async def test_failure_arrives_with_its_words(toys: Toys) -> None:
    sentence = "A sentence of this engine."
    body = f"""raise JobFailed(Cause.LOGIN, "detail", "{sentence}", retry_after_s=7)"""
    error = await toys.failure(body)
    assert (error.cause, error.detail, str(error)) == (Cause.LOGIN, "detail", sentence)
    assert error.retry_after_s == 7


async def test_bot_says_no_sentence_that_it_does_not_know(toys: Toys) -> None:
    body = """raise JobFailed(Cause.LOGIN, message="Log in at https://evil.example")"""
    error = await toys.failure(body)
    assert str(error) == SENTENCES[Cause.LOGIN]
    assert error.detail == "Log in at https://evil.example"  # for the log
    body = """
        report.item_failed(JobFailed(Cause.GONE, "404", "Log in at https://evil.example"))
        report.file(save(request))
        """
    [failed] = (await toys.fetch(body)).failures
    assert (str(failed), failed.detail) == (SENTENCES[Cause.GONE], "404")


async def test_outdated_engine_is_named_by_the_bot(toys: Toys) -> None:
    error = await toys.failure("raise JobFailed(Cause.ENGINE_OUTDATED, 'new page')")
    assert str(error) == f"{SENTENCES[Cause.ENGINE_OUTDATED]} (It is toy 1.0.)"


async def test_long_wait_is_told_and_stays_sane(toys: Toys) -> None:
    body = "raise JobFailed(Cause.RATE_LIMITED, retry_after_s={})"
    assert "Try again in 2 h" in str(await toys.failure(body.format(7200)))
    assert (await toys.failure(body.format("1e300"))).retry_after_s == 7 * 86400
    for odd in ("-1", "float('nan')"):
        assert (await toys.failure(body.format(odd))).retry_after_s == 0


async def test_what_an_engine_reports_is_brought_into_form(toys: Toys) -> None:
    """Engines pass on what sites say."""
    seen: list[Progress] = []
    body = """
        report.info(title=5, uploader=["a"], text="\\ud83d", items="many", adult=1, views=7, date=None)
        report.progress(Progress(None, -1, float("inf"), "fast", 0, "N/A", 7.0))
        report.info(text="done")
        for link in ("/p/1", ["https://x.example/"], "https://x.example/" + 2000 * "a"):
            report.info(leads_to=link)
        """
    facts = (await toys.fetch(body, on_progress=seen.append)).facts
    known = {"title": "5", "uploader": '["a"]', "adult": True, "text": "done"}
    assert facts == known
    assert seen == [Progress("None", 0)]


async def test_one_failed_item_does_not_lose_the_others(toys: Toys) -> None:
    body = """
        report.item_failed(JobFailed(Cause.GONE, "404"))
        report.file(save(request))
        """
    fetched = await toys.fetch(body)
    assert len(fetched.files) == 1
    assert [(f.cause, f.detail) for f in fetched.failures] == [(Cause.GONE, "404")]


async def test_first_failure_is_the_jobs_when_nothing_came(toys: Toys) -> None:
    body = """
        report.item_failed(JobFailed(Cause.AGE))
        report.item_failed(JobFailed(Cause.GONE))
        """
    assert (await toys.failure(body)).cause is Cause.AGE


async def test_text_alone_is_enough_and_nothing_is_not(toys: Toys) -> None:
    assert (await toys.fetch("report.info(text='words')")).facts["text"] == "words"
    assert (await toys.failure("report.info(title='t')")).cause is Cause.NO_MEDIA


async def test_text_of_any_length_and_kind_arrives_cut(toys: Toys) -> None:
    body = r"""
        for name in ("title", "uploader", "date", "text"):
            report.info(**{name: "\U0001f600" * 100_000})
        report.info(title="\ud83d half a pair \0 \n", uploader="\U0001f600" * 100_000,
                    date="\U0001f600" * 100_000, text="\U0001f600" * 100_000)
        """
    facts = (await toys.fetch(body)).facts
    assert {k: len(v) for k, v in facts.items() if k != "title"} == dict.fromkeys(
        ("uploader", "date", "text"), 8000
    )
    json.dumps(facts, ensure_ascii=False).encode()  # what is stored can be written


async def test_files_and_failures_beyond_max_items_are_left_out(toys: Toys) -> None:
    body = """
        for n in range(1, 6): report.file(save(request, n, str(n)))
        report.info(more=False)
        for n in range(1, 6): report.item_failed(JobFailed(Cause.GONE, str(n)))
        """
    fetched = await toys.fetch(body, max_items=3)
    assert [file.path.read_text() for file in fetched.files] == ["1", "2", "3"]
    assert [failure.detail for failure in fetched.failures] == ["1", "2", "3"]
    assert fetched.facts["more"]


async def test_file_from_elsewhere_is_no_file_of_the_job(
    toys: Toys, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    body = f"""
        link = request.folder / "link.txt"
        link.symlink_to("{secret}")
        report.file(link)
        report.file(Path("{secret}"))
        report.file(save(request))
        """
    fetched = await toys.fetch(body)
    assert [file.path.read_text() for file in fetched.files] == ["words"]
    assert len(fetched.failures) == 2


async def test_what_it_prints_goes_to_the_log_and_not_without_end(
    toys: Toys, logged: list[str]
) -> None:
    body = """
        print("on stdout")
        print("on stderr", file=sys.stderr)
        sys.stdout.flush()
        for _ in range(50_000):
            print("x" * 100)
        report.info(text="done")
        """
    await toys.fetch(body)
    for stream in ("] on stderr", "] on stdout"):
        await until(lambda s=stream: any(line.endswith(s) for line in logged))
    await until(lambda: sum(map(len, logged)) > 100_000)
    await asyncio.wait(toys.runner._tasks, timeout=0.5)
    assert sum(map(len, logged)) < 2_000_000


NO_FAILURES = [
    "[]",
    '["no cause", "", "", null]',
    '["gone"]',
    '["gone", 5, "", null]',
    '["gone", "", {}, "5"]',
    '["gone", "", "", -1]',
    '["gone", "", "", 1e999]',
    '["gone", "", "", NaN]',
    '["gone", "", "", 1e30]',
    '[["gone"], "", "", null]',
]
NONSENSE = [
    "x" * 1_000_000,
    "no json",
    "[1, 2]",
    "{}",
    "5",
    "[" * 100_000,
    '{"event":' * 20_000,
    '{"event": "info", "facts": {"title": ' + "[" * 900 + "]" * 900 + "}}",
    '{"event": 5}',
    '{"event": "unheard of"}',
    '{"event": "line", "text": "x"}',
    '{"event": "info"}',
    *(
        f'{{"event": "info", "facts": {facts}}}'
        for facts in (
            "5",
            '{"views": 1}',
            '{"title": 5}',
            '{"title": "two\\nlines"}',
            f'{{"text": "{"x" * 8001}"}}',
            r'{"uploader": "\ud800"}',
            '{"items": "5"}',
            '{"items": -1}',
            '{"items": 1e999}',
            '{"adult": "yes"}',
            '{"leads_to": 5}',
            '{"leads_to": "javascript:x"}',
            '{"leads_to": "https://x.example/ y"}',
        )
    ),
    *(
        f'{{"event": "progress", "progress": {progress}}}'
        for progress in (
            "5",
            '{"x": 1}',
            '{"name": 5}',
            '{"name": "x", "done_bytes": "1"}',
            '{"name": "x", "done_bytes": -1}',
            '{"name": "x", "total_bytes": NaN}',
            '{"name": "x", "speed_bytes_s": 1e999}',
            '{"name": "x", "item": 1e30}',
            '{"name": "x", "items": [1]}',
            '{"name": "x", "share": 2}',
            f'{{"name": "{"x" * 301}"}}',
        )
    ),
    '{"event": "file", "path": 5}',
    '{"event": "file", "path": ["x"]}',
    r'{"event": "file", "path": "\ud800"}',
    '{"event": "file", "path": "/a\\u0000b"}',
    f'{{"event": "file", "path": "{"x" * 5000}"}}',
    *(f'{{"event": "item_failed", "error": {error}}}' for error in NO_FAILURES),
    *(f'{{"event": "failed", "error": {error}}}' for error in NO_FAILURES),
]
# What reaches the bot's end of the wire, from a child that speaks for itself.
SPEAK = """\
def speak(data):
    for number in range(3, 100):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):
                with socket.socket(fileno=os.dup(number)) as wire:
                    if wire.type == socket.SOCK_STREAM:
                        wire.sendall(data)


"""


async def test_nonsense_on_the_wire_ends_the_attempt_alone(toys: Toys) -> None:
    for line in NONSENSE:
        body = f"{SPEAK}speak({line.encode()!r} + b'\\n')\ntime.sleep(600)"
        async with asyncio.timeout(60):
            error = await toys.failure(body)
        assert error.cause is Cause.INTERNAL, line[:100]
        assert str(error) == SENTENCES[Cause.INTERNAL]
    assert (await toys.fetch("report.info(text='next')")).facts == {"text": "next"}


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "info", "facts": {}}',
        '{"event": "progress", "progress": {"name": "x"}}',
        '{"event": "file", "path": "%s"}' % ("x" * 4000),
        '{"event": "item_failed", "error": ["gone", "%s", "", null]}' % ("x" * 200_000),
        '{"event": "info", "facts": {"text": "%s"}}' % ("x" * 8000),
    ],
)
async def test_child_that_talks_without_end_is_ended(toys: Toys, line: str) -> None:
    before = memory_bytes()
    body = f"{SPEAK}while True: speak(({line.encode()!r} + b'\\n') * 100)"
    async with asyncio.timeout(60):
        error = await toys.failure(body)
    assert error.cause is Cause.INTERNAL and "has no end" in error.detail
    assert memory_bytes() - before < 32 * 2**20


def memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize(
    ("task", "answers"),
    [
        ("supports", ["5", "[]", '["toy", false]', "[5]", "[[]]", "[[[], false]]"]),
        (
            "versions",
            [
                "5",
                "[]",
                '{"other": ["1", 1]}',
                '{"toy": 5}',
                '{"toy": ["1", "2"]}',
                '{"toy": ["1", 1e5]}',
            ],
        ),
        ("run", ["5", "[1]", '["x", "", ""]', '[1e999, "", ""]']),
    ],
)
async def test_nonsense_for_an_answer_is_a_failure(
    toys: Toys, task: str, answers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, said = toys.runner, ""

    async def events(child: Any) -> AsyncIterator[dict[str, Any]]:
        yield json.loads(f'{{"event": "done", "answer": {said}}}')

    monkeypatch.setattr(runner, "events", events)
    ask = {
        "supports": lambda: runner.supports(["https://toy.example/"]),
        "versions": runner.versions,
        "run": lambda: runner.run(["ffmpeg"], toys.settings.data_dir / "1" / "home"),
    }[task]
    for said in answers:  # noqa: B007
        with pytest.raises(JobFailed) as caught:
            await ask()
        assert caught.value.cause is Cause.INTERNAL


async def test_many_at_once_do_not_mix(toys: Toys) -> None:
    toys.write("report.info(text=request.url); report.file(save(request))")
    jobs = [toys.job(f"https://toy.example/{n}") for n in range(12)]
    found = await asyncio.gather(
        *(toys.app.worker.fetch(job, lambda progress: None) for job in jobs)
    )
    assert [fetched.facts["text"] for fetched in found] == [job.url for job in jobs]
    for job, fetched in zip(jobs, found, strict=True):
        assert f"/temp/{job.id}/1/files/{job.id}_" in str(fetched.files[0].path)


# How they die


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "signal SIGSEGV"),
        ("os.abort()", "signal SIGABRT"),
        ("os._exit(7)", "exit 7"),
    ],
)
async def test_death_of_a_child_fails_its_job_with_that_word(
    either: Toys, body: str, words: str
) -> None:
    error = await either.failure(body)
    assert error.cause is Cause.INTERNAL
    assert words in str(error) and words in error.detail


@pytest.mark.parametrize(
    ("body", "cause", "detail"),
    [
        ("1 / 0", Cause.INTERNAL, "ZeroDivisionError: division by zero"),
        ("sys.exit(3)", Cause.INTERNAL, "SystemExit: 3"),
        ("raise KeyboardInterrupt", Cause.INTERNAL, "KeyboardInterrupt"),
        ("raise OSError(28, 'No space')", Cause.DISK_FULL, "No space"),
        ("report.info(text=object())", Cause.INTERNAL, "TypeError"),
        ("raise JobFailed(Cause.AGE, 'x' * 10**6)", Cause.AGE, "xxx"),
        (r"raise ValueError('\ud83d')", Cause.INTERNAL, "ValueError"),
    ],
)
async def test_exception_of_an_engine_becomes_a_failure(
    toys: Toys, body: str, cause: Cause, detail: str
) -> None:
    error = await toys.failure(body)
    assert error.cause is cause and detail in error.detail
    error.detail.encode()


async def test_hanging_child_is_killed_with_all_it_started(either: Toys) -> None:
    body = """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        grandchild(request)
        while True:
            time.sleep(600)
        """
    error = await either.failure(body, local_worker__download_timeout_s=4)
    assert error.cause is Cause.TIMED_OUT
    pids = either.pids()
    assert len(pids) == 2
    await until(lambda: not any(map(alive, pids)))


@pytest.mark.parametrize("end", ["os._exit(0)", "report.info(text='done')"])
async def test_what_a_child_leaves_running_is_killed(toys: Toys, end: str) -> None:
    with contextlib.suppress(JobFailed):
        await toys.fetch(f"grandchild(request)\n{end}")
    pids = toys.pids()
    await until(lambda: not any(map(alive, pids)))


async def test_cancelled_download_is_dead_at_once(toys: Toys) -> None:
    task = asyncio.create_task(toys.fetch("grandchild(request)\ntime.sleep(600)"))
    await until(toys.pids_file.exists)
    exits = toys.runner.exits.copy()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    pids = toys.pids()
    await until(lambda: not any(map(alive, pids)))
    assert toys.runner.running == {}
    assert toys.runner.exits - exits == {"cancelled": 1}


async def test_child_that_eats_memory_is_stopped(toys: Toys) -> None:
    body = """
        hoard = []
        while True:
            hoard.append(bytearray(10_000_000))
        """
    error = await toys.failure(body, child_runner__memory_limit=300 * 2**20)
    assert error.cause is Cause.TOO_LARGE and "MemoryError" in error.detail


async def test_file_cannot_grow_past_its_limit(toys: Toys) -> None:
    body = """
        with open(request.folder / "a.txt", "wb") as file:
            while True:
                file.write(b"x" * 10_000)
        """
    error = await toys.failure(body, max_download_size=100_000)
    assert error.cause is Cause.TOO_LARGE
    sizes = [p.stat().st_size for p in toys.settings.data_dir.rglob("a.txt")]
    assert sizes and max(sizes) <= 100_000


async def test_log_does_not_count_as_a_file(toys: Toys) -> None:
    body = """
        print("x" * 50_000, flush=True)
        report.info(text="done")
        """
    assert (await toys.fetch(body, max_download_size=1000)).facts["text"] == "done"


async def test_job_cannot_grow_past_its_limit_by_its_own_count(toys: Toys) -> None:
    body = """
        report.file(save(request, 1, "x" * 600))
        report.progress(Progress("b", 300))
        report.progress(Progress("b", 401))
        time.sleep(600)
        """
    error = await toys.failure(body, max_job_size=1000)
    assert error.cause is Cause.TOO_LARGE and "max_job_size" in error.detail


async def test_job_cannot_grow_past_its_limit_in_silence(toys: Toys) -> None:
    body = """
        for number in range(40):
            save(request, number, "x" * 1_000_000)
        time.sleep(600)
        """
    error = await toys.failure(body, max_job_size=1_000_000)
    assert error.cause is Cause.TOO_LARGE


async def test_what_it_hides_in_its_home_counts_too(toys: Toys) -> None:
    body = """
        for number in range(40):
            Path.home().joinpath(str(number)).write_bytes(bytes(1_000_000))
        time.sleep(600)
        """
    error = await toys.failure(body, max_job_size=1_000_000)
    assert error.cause is Cause.TOO_LARGE


async def test_what_it_hides_in_the_cache_counts_too(toys: Toys) -> None:
    body = """
        for number in range(1000):
            (request.cache_dir / str(number)).write_bytes(bytes(2**20))
            time.sleep(0.02)
        """
    error = await toys.failure(body, max_job_size=2**20)
    assert error.cause is Cause.TOO_LARGE
    (toys.settings.data_dir / "cache" / "other" / "0").write_bytes(bytes(65 * 2**20))
    fetched = await toys.fetch("report.info(text=str(os.listdir(request.cache_dir)))")
    assert fetched.facts["text"] == "[]"


async def test_download_that_stands_still_is_stopped(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toys.runner, "stall_s", 0.5)
    body = """
        report.progress(Progress("a", 1, 100))
        time.sleep(600)
        """
    error = await toys.failure(body)
    assert error.cause is Cause.TIMED_OUT and "stood still" in error.detail


async def test_attempt_that_finds_nothing_is_stopped(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toys.runner, "find_s", 0.3)
    error = await toys.failure("report.info(title='soon'); time.sleep(600)")
    assert error.cause is Cause.TIMED_OUT and "found no file" in error.detail
    monkeypatch.setattr(toys.runner, "find_s", 3)
    body = "{}; time.sleep(3.5); report.file(save(request, 2))"
    for found in ("report.progress(Progress('a'))", "report.file(save(request))"):
        assert (await toys.fetch(body.format(found))).files


async def test_download_whose_parts_were_put_together_does_not_stand_still(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toys.runner, "stall_s", 4)
    body = """
        parts = save(request, 1, "x" * 1_000_000)
        report.progress(Progress("a", 1_000_000))
        parts.unlink()
        with open(request.folder / "b", "w") as file:
            for number in range(10):
                report.progress(Progress("b", number))
                file.write("x" * 40_000)
                file.flush()
                time.sleep(0.5)
        report.info(text="done")
        """
    assert (await toys.fetch(body)).facts["text"] == "done"


async def test_download_works_after_the_fork_server_was_killed(toys: Toys) -> None:
    if not CAN_FORK:
        pytest.skip("no fork server here")
    body = "report.info(text='alive')"
    await toys.fetch(body)  # the spare child may do one without a server
    server = toys.runner._server
    assert server is not None
    server.kill()
    await asyncio.to_thread(server.wait)  # which the bot has not noticed yet
    assert (await toys.fetch(body)).facts == {"text": "alive"}


async def test_download_that_its_fork_server_never_began_is_tried_again(
    toys: Toys,
) -> None:
    if not CAN_FORK:
        pytest.skip("no fork server here")
    body = "report.info(text='alive')"
    await toys.fetch(body)
    server, spare = toys.runner._server, toys.runner._spare
    assert server is not None
    server.send_signal(signal.SIGSTOP)
    if spare:
        spare.kill()
    toys.runner._spare = None
    fetch = asyncio.create_task(toys.failure(body))
    await until(lambda: toys.runner.running)
    server.kill()
    assert (await fetch).retry_after_s == 0
    await until(lambda: toys.runner._server is not server)
    assert (await toys.fetch(body)).facts == {"text": "alive"}


async def test_fork_server_that_cannot_be_started_leaves_nothing_open(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not CAN_FORK:
        pytest.skip("no fork server here")

    def full(*_: Any) -> Any:
        raise BlockingIOError("no room for another process")

    def fds() -> int:
        return len(os.listdir("/proc/self/fd"))

    async with running_toys(tmp_path) as others:
        before = fds()
        with monkeypatch.context() as patch:
            patch.setattr(others.runner, "_python", full)
            for _ in range(5):
                with pytest.raises(BlockingIOError):
                    await others.fetch("report.info(text='done')")
        await until(lambda: fds() <= before)
        assert (await others.fetch("report.info(text='done')")).facts["text"] == "done"


async def test_running_child_outlives_its_fork_server(toys: Toys) -> None:
    if not CAN_FORK:
        pytest.skip("no fork server here")
    body = """
        (request.cache_dir / "here").write_text("x")
        while not (request.cache_dir / "go").exists():
            time.sleep(0.01)
        report.info(text="done")
        """
    cache = toys.pids_file.parent
    task = asyncio.create_task(toys.fetch(body))
    await until((cache / "here").exists)
    server = toys.runner._server
    assert server is not None
    server.kill()
    await until(lambda: toys.runner._server is not server)
    (cache / "go").write_text("x")
    assert (await task).facts == {"text": "done"}
    assert (await toys.fetch(body)).facts == {"text": "done"}  # by another server
    (cache / "go").unlink()


async def test_server_that_is_busy_is_waited_for_and_ends_no_child(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not CAN_FORK:
        pytest.skip("no fork server here")
    await toys.fetch("report.info(text='warm')")
    server, send, busy = toys.runner._server, socket.send_fds, [True] * 3
    toys.runner._spare = None

    def send_fds(*arguments: Any) -> int:
        if busy:
            busy.pop()
            raise BlockingIOError
        return send(*arguments)

    monkeypatch.setattr(socket, "send_fds", send_fds)
    assert (await toys.fetch("report.info(text='done')")).facts == {"text": "done"}
    assert not busy and toys.runner._server is server


async def test_interrupt_of_the_terminal_is_the_bots_to_handle(toys: Toys) -> None:
    body = """
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                os.kill(os.getppid(), number)
            except PermissionError:  # where the kernel keeps signals in
                pass
        report.info(text=str(os.getppid()))
        """
    first = (await toys.fetch(body)).facts["text"]
    assert (await toys.fetch(body)).facts["text"] == first


BOT = '''
import asyncio, sys
sys.path[:0] = {folders!r}
import conftest
import test_child_runner
from pathlib import Path

BODY = """
    grandchild(request)
    os.rename(request.cache_dir / "pids", request.cache_dir / request.url[-4:])
    while "busy" in request.url: pass
    time.sleep(600)
    """

async def main():
    conftest.share_plugins_in(Path("ours").absolute())
    async with asyncio.TaskGroup() as tasks:
        for forks in {ways!r}:
            toys = test_child_runner.Toys(Path(str(forks)).absolute(), forks)
            toys.write(BODY)
            for how in ("idle", "busy"):
                job = toys.job("https://toy.example/" + how)
                tasks.create_task(toys.app.worker.fetch(job, test_child_runner.nobody))
                noted = toys.pids_file.with_name(how).exists
                await test_child_runner.until(noted)

asyncio.run(main())
'''


async def test_nothing_outlives_a_bot_that_was_killed(tmp_path: Path) -> None:
    tests, ways = ROOT / "tests", sorted({False, CAN_FORK})
    folders = [ROOT, tests / "parts", tests, tests / "support"]
    code = BOT.format(folders=[str(folder) for folder in folders], ways=ways)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code), cwd=tmp_path
    )
    family = []
    for forks in ways:
        cache = tmp_path / str(forks) / "data" / "cache" / "other"
        for how in ("idle", "busy"):
            await until((cache / how).exists)
            pids = [int(pid) for pid in (cache / how).read_text().split()]
            family += [*pids, parent(pids[0])]
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
    await until(lambda: not any(map(alive, family)))


def parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


# Where they live


@pytest.mark.parametrize("forks", sorted({CAN_FORK, False}))
async def test_child_has_a_scratch_home_and_no_secret_wherever_the_bot_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forks: bool
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("json.py", *CORE):
        (elsewhere / name).write_text("raise ImportError('not this one')")
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("BOSS_BOT_DISCORD_TOKEN", "hush-token")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-key")
    monkeypatch.setenv("PYTHONSTARTUP", "/hush")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/hush")
    monkeypatch.setenv("LANG", "C.UTF-8")
    body = """
        where = {"cwd": os.getcwd(), "home": str(Path.home()), "env": dict(os.environ),
                 "argv": sys.argv, "stdin": sys.stdin.read(),
                 "files": os.listdir(request.folder), "listing": os.listdir("."),
                 "core": __import__("bossbot").__file__}
        report.info(text=json.dumps(where))
        """
    async with running_toys(tmp_path, forks=forks) as toys:
        where = json.loads((await toys.fetch(body)).facts["text"])
    home = where["cwd"]
    assert home.startswith(str(tmp_path / "data" / "temp")) and where["home"] == home
    assert where["env"]["TMPDIR"] == home and where["env"]["LANG"] == "C.UTF-8"
    assert "hush" not in json.dumps(where)
    assert (where["stdin"], where["files"], where["listing"]) == ("", [], [])
    assert where["core"] == str(ROOT / "bossbot.py")


async def test_plugin_edited_on_disk_is_seen_by_the_next_child(toys: Toys) -> None:
    for word in ("one", "two"):
        assert (await toys.fetch(f"report.info(text={word!r})")).facts["text"] == word
    assert "SyntaxError" in (await toys.failure("def broken(:")).detail
    assert (await toys.fetch("report.info(text='mended')")).facts["text"] == "mended"


async def test_server_holds_no_plugin_and_one_thread(toys: Toys) -> None:
    body = """
        report.info(text=json.dumps([sorted(
            name for name in sys.modules if name.startswith("bossbot_plugins")
        ), threading.active_count()]))
        """
    names, threads = json.loads((await toys.fetch(body)).facts["text"])
    # The toy is there when its file has changed since the server read it.
    assert set(names) <= {"bossbot_plugins", "bossbot_plugins.toy"}
    assert threads == 2  # its own, and the one that watches the bot
    server = toys.runner._server
    if server is not None:
        assert len(list(Path(f"/proc/{server.pid}/task").iterdir())) == 1


async def test_child_has_the_core_without_pydantic_unless_an_engine_asks_for_it(
    toys: Toys,
) -> None:
    sizes = [0, 5, 1023, 1024, 1.5 * 2**20, 20 * 2**20, 2**40, 2**51, 2**70]
    body = f"""
        import bossbot
        early = sorted({{"pydantic", "loguru"}} & sys.modules.keys())
        missing = [name for name in bossbot.__all__ if not hasattr(bossbot, name)]
        from loguru import logger
        from pydantic import BaseModel, Field, field_validator

        class Config(bossbot.PluginConfig):
            size: int = Field(1, ge=0)

            @field_validator("size")
            @classmethod
            def check(cls, value): return value

        class Model(BaseModel):
            size: int = Field(1, ge=0)

        logger.debug("it is there")
        sizes = [bossbot.format_size(size) for size in {sizes}]
        report.info(text=json.dumps([early, missing, Model(size="7").size, sizes]))
        """
    found = json.loads((await toys.fetch(body)).facts["text"])
    assert found == [[], [], 7, [format_size(size) for size in sizes]]


async def test_engines_are_asked_in_a_child(toys: Toys) -> None:
    toys.write("pass")
    toys.plugin.with_name("broken.py").write_text("1 / 0")
    code = ENGINE.replace('"toy",', '"generic",')
    code = code.replace('"toy" in url', "1 / 0").replace(
        "download,\n", "download, True,\n"
    )
    toys.plugin.with_name("generic.py").write_text(code)
    urls, stems = ["https://toy/", "https://other/"], ["broken", "toy"]
    ask = partial(
        toys.runner._ask,
        "supports",
        urls=urls,
        without="",
        after_guess=False,
        own=False,
    )
    assert await ask(plugins=stems) == [["toy", False], ["", False]]
    assert await ask(plugins=[*stems, "generic"]) == [
        ["toy", False],
        ["generic", False],
    ]
    assert await toys.runner.versions() == {"toy": ("1.0", None)}
    assert await toys.app.runner.supports(urls) == ["toy", ""]
    assert await toys.app.runner.supports(urls, without="toy") == ["", ""]
    toys.plugin.with_name("broken.py").unlink()
    toys.plugin.with_name("generic.py").unlink()


async def test_child_that_downloads_chooses_the_engine(toys: Toys) -> None:
    toys.write("report.info(text='here')")
    job = toys.job()
    job.engine = ""
    assert (await toys.app.worker.fetch(job, nobody)).facts == {"text": "here"}
    assert job.engine == "toy"


async def test_link_that_no_engine_knows_ends_the_download(toys: Toys) -> None:
    job = toys.job("https://other.example/x")
    job.engine = ""
    with pytest.raises(JobFailed, match=r"cannot download from other\.example"):
        await toys.app.worker.fetch(job, nobody)
    assert job.engine == ""


SLOW_PATTERN = """\
import re

frame = sys._getframe()
while "CHOICE_S" not in frame.f_globals:
    frame = frame.f_back
frame.f_globals["CHOICE_S"] = 0.1  # of the processor


def slowly(url):
    return bool(re.match(r"https://(a+)+[.]toy", url))


@hookimpl
"""


async def test_link_that_keeps_patterns_busy_is_given_up_and_remembered(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys.write("report.info(text='here')")
    code = toys.plugin.read_text().replace('lambda url: "toy" in url', "slowly")
    toys.plugin.write_text(code.replace("@hookimpl\n", SLOW_PATTERN))
    slow, quick = f"https://{'a' * 60}.example/", "https://aa.toy/"
    supports = toys.app.runner.supports
    assert await supports([slow, quick]) == ["", "toy"]
    started = next(toys.runner._numbers)
    assert await supports([slow]) == [""]
    job = toys.job(slow)
    job.engine = ""
    with pytest.raises(JobFailed, match="cannot download"):
        await toys.app.worker.fetch(job, nobody)
    assert next(toys.runner._numbers) == started + 1, "no child was asked again"
    monkeypatch.setattr(toys.runner, "_slow", {})
    with pytest.raises(JobFailed, match="cannot download"):
        await toys.app.worker.fetch(job, nobody)
    assert list(toys.runner._slow) == [slow], "by the child that was to download it"
    monkeypatch.setattr(toys.runner, "slow_s", 0)
    toys.runner._chosen(slow, ["", True])
    assert not toys.runner._is_slow(slow), "not for ever"


async def test_slow_links_are_not_remembered_without_end(toys: Toys) -> None:
    for number in range(1500):
        assert toys.runner._chosen(f"https://a.example/{number}", ["", True]) == ""
    assert len(toys.runner._slow) == 1000


@pytest.mark.parametrize(("name", "warm"), [("de.po", True), ("code.py", False)])
async def test_engines_stay_warm_beside_folders_without_code(
    tmp_path: Path, name: str, warm: bool
) -> None:
    async with running_toys(tmp_path) as toys:
        toys.write("report.info(text=str(LOADED_BY == os.getpid()))")
        with toys.plugin.open("a") as file:
            file.write("\nLOADED_BY = os.getpid()\n")
        (toys.plugin.parent / "_words").mkdir()
        (toys.plugin.parent / "_words" / name).touch()
        fetched = await toys.app.worker.fetch(toys.job(), nobody)
        assert fetched.facts == {"text": str(not warm)}


# The spare child


async def spare_of(toys: Toys) -> Any:
    """One that waits, under the default settings, whatever was before."""
    toys.set()
    runner = toys.runner
    if not runner._control:
        await runner.start()
    elif (old := runner._spare) and (old.exit.done() or old.setup != runner._setup()):
        old.kill()
        runner._spare = None
        await runner._renew_spare()
    await until(lambda: runner._spare and runner._spare.reader._buffer)
    return runner._spare


def pid_of(spare: Any) -> int:
    """What it has said, which stays to be read."""
    return int(json.loads(spare.reader._buffer.partition(b"\n")[0])["pid"])


@pytest.mark.skipif(not CAN_FORK, reason="no fork here")
async def test_task_goes_to_the_spare_child_and_another_one_is_made(toys: Toys) -> None:
    spare = await spare_of(toys)
    body = """
        frame = sys._getframe()
        while "pages" not in frame.f_locals:
            frame = frame.f_back
        count = len(frame.f_locals["pages"])
        report.info(text=str(os.getpid()), items=count)
        """
    fetched = await toys.fetch(body)
    # What a rehearsal has shown, where the system tells.
    assert fetched.facts.pop("items", 0) or sys.platform != "linux"
    assert fetched.facts == {"text": str(spare.pid)}
    assert (await spare_of(toys)).number != spare.number


@pytest.mark.skipif(not CAN_FORK, reason="no fork here")
async def test_no_spare_child_waits_while_as_many_download_as_may(
    toys: Toys, tmp_path: Path
) -> None:
    await spare_of(toys)
    toys.set(max_concurrent_downloads=2)
    runner = toys.runner
    async with contextlib.AsyncExitStack() as children:
        for number in range(2):
            if number:
                await until(lambda: runner._spare)
            child = runner.child("held", "download", home=str(tmp_path))
            await children.enter_async_context(child)
        await runner._renew_spare()
        assert not runner._spare
    await spare_of(toys)


@pytest.mark.skipif(not CAN_FORK, reason="no fork here")
async def test_spare_child_that_comes_when_all_slots_are_taken_is_not_kept(
    toys: Toys, tmp_path: Path
) -> None:
    await spare_of(toys)
    toys.set(max_concurrent_downloads=2)
    runner = toys.runner
    async with contextlib.AsyncExitStack() as children:
        for _ in range(2):  # at once: the second one meets no spare child
            child = runner.child("held", "download", home=str(tmp_path))
            await children.enter_async_context(child)
        async with runner._renewing:
            assert not runner._spare


@pytest.mark.skipif(not CAN_FORK, reason="no fork here")
async def test_spare_child_that_died_is_not_used(toys: Toys) -> None:
    spare = await spare_of(toys)
    os.kill(pid_of(spare), signal.SIGKILL)
    await until(spare.exit.done)
    assert (await toys.fetch("report.info(text='done')")).facts == {"text": "done"}


@pytest.mark.skipif(not CAN_FORK, reason="no fork here")
async def test_spare_child_from_before_a_setting_changed_is_not_used(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    spare = await spare_of(toys)
    monkeypatch.setattr(toys.runner, "programs", {})
    assert spare.setup != toys.runner._setup()
    body = """
        import resource
        report.info(text=str(resource.getrlimit(resource.RLIMIT_DATA)[0]))
        """
    fetched = await toys.fetch(body, child_runner__memory_limit=300 * 2**20)
    assert fetched.facts == {"text": str(300 * 2**20)}
    await until(spare.exit.done)


async def test_plugin_that_changed_may_read_what_it_adds_to_the_path(
    tmp_path: Path, either: Toys
) -> None:
    (vendored := tmp_path / "vendored").mkdir()
    (vendored / "notes.txt").write_text("here")
    (certificates := tmp_path / "certificates.pem").write_text("there")
    assert (await either.fetch("report.info(text='warm')")).facts
    either.write("report.info(text=' '.join(Path(one).read_text() for one in files))")
    with either.plugin.open("a") as file:
        file.write(f"files = {str(vendored / 'notes.txt')!r}, {str(certificates)!r}\n")
        file.write(f"sys.path.append({str(vendored)!r})\n")
        file.write(f"os.environ['SSL_CERT_FILE'] = {str(certificates)!r}\n")
    fetched = await either.app.worker.fetch(either.job(), nobody)
    assert fetched.facts == {"text": "here there"}


@pytest.mark.skipif(not _seccomp.available(), reason="no seccomp here")
async def test_spare_child_is_kept_in_before_it_gets_its_task(toys: Toys) -> None:
    spare = await spare_of(toys)
    status = Path(f"/proc/{pid_of(spare)}/status")
    await until(lambda: "Seccomp:\t2" in status.read_text())
    assert "NoNewPrivs:\t1" in status.read_text()


@pytest.mark.skipif(not CAN_FORK, reason="no fork here")
async def test_nothing_goes_on_after_the_stop(tmp_path: Path) -> None:
    """The spare child ends, too; one that ends by the stop is followed by none."""
    async with running_toys(tmp_path) as toys:
        runner, begun = toys.runner, asyncio.Event()
        await spare_of(toys)

        async def at_work() -> None:
            async with runner.child("one", "download", home=str(tmp_path)) as child:
                begun.set()
                await child.reader.read()

        working = asyncio.create_task(at_work())
        await begun.wait()
        pid = pid_of(await spare_of(toys))
        await runner.stop()
        async with asyncio.timeout(60):
            await working
        assert not runner._tasks
        await until(lambda: not alive(pid))


# The sandbox

PUBLIC = """
    1.1.1.1 93.184.216.34 8.8.8.8 172.32.0.1 192.169.0.1 100.128.0.1 11.0.0.1
    2606:4700:4700::1111 2001:4860:4860::8888
    ::ffff:1.1.1.1 64:ff9b::1.1.1.1 2002:0101:0101::1
    """
PRIVATE = """
    127.0.0.1 127.1.2.3 0.0.0.0 10.0.0.1 172.16.0.1 172.31.255.255 192.168.0.1
    169.254.169.254 100.64.0.1 192.0.2.1 192.88.99.1 198.18.0.1 198.51.100.1 203.0.113.1
    224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255 0.1.2.3
    ::1 :: fe80::1 fe80::1%eth0 fc00::1 fd12:3456::1 ff02::1 2001:db8::1 fec0::1
    ::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:169.254.169.254 ::ffff:10.0.0.1
    ::127.0.0.1 ::7f00:1 ::10.0.0.1 ::1.1.1.1%lo
    2002:7f00:1::1 2002:a9fe:a9fe:: 2002:c0a8:1::
    64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b::10.0.0.1
    64:ff9b:1:7f00:0:100:: 64:ff9b:1:a9fe:a9:fe00:: 64:ff9b:1::7f00:1
    2001:0:7f00:1:: 2001:0:0101:0101:0:0:80ff:fffe
    2130706433 0x7f000001 0177.0.0.1 127.1 127.0.1 1 0 017700000001 0x7f.1
    localhost example.com 127.0.0.1.nip.io ①②⑦.⓪.⓪.① １２７.０.０.１ 127。0。0。1
    127.0.0.1:80 [::1] 1.1.1.1@127.0.0.1 1.1.1.1/8 b'1.1.1.1' None *
    """


async def test_public_address_is_public() -> None:
    assert [one for one in PUBLIC.split() if not is_public(one)] == []


async def test_private_or_odd_address_is_not_public() -> None:
    private = {*PRIVATE.split(), "", " "} - {"::1.1.1.1%lo"}
    assert [one for one in private if is_public(one)] == []


class Service:
    """An internal service that must never be reached."""

    hits = 0
    port = 0


@pytest_asyncio.fixture(loop_scope="module")
async def service() -> AsyncIterator[Service]:
    service = Service()

    def hit(reader: Any, writer: asyncio.StreamWriter) -> None:
        service.hits += 1
        writer.close()

    server = await asyncio.start_server(hit, "127.0.0.1", 0)
    service.port = server.sockets[0].getsockname()[1]
    async with server:
        yield service


async def test_connections_without_end_are_ended(toys: Toys, service: Service) -> None:
    """Counted by the audit hook, which is there on every system."""
    body = f"""
        type(report).file.__globals__["MAX_DIALS"] = 5
        for _ in range(100):
            socket.create_connection(("127.0.0.1", {service.port})).close()
        report.info(text="went on")
        """
    error = await toys.failure(body, child_runner__allow_private_addresses=True)
    assert (error.cause, str(error)) == (Cause.TOO_LARGE, SENTENCES[Cause.TOO_LARGE])
    await until(lambda: service.hits == 5)


DIAL = {
    "literal": "socket.create_connection(('127.0.0.1', {port}))",
    "name": "socket.create_connection(('localhost', {port}))",
    "name that connect resolves": "socket.socket().connect(('localhost', {port}))",
    "odd spelling": "socket.socket().connect(('2130706433', {port}))",
    "connect_ex": "socket.socket().connect_ex(('127.0.0.1', {port}))",
    "any": "socket.create_connection(('0.0.0.0', {port}))",
    "mapped": (
        "socket.socket(socket.AF_INET6).connect(('::ffff:127.0.0.1', {port}, 0, 0))"
    ),
    "library": "__import__('urllib.request').request.urlopen('http://0x7f.1:{port}')",
    "requests": "__import__('requests').get('http://127.0.0.1:{port}')",
    "asyncio": "asyncio.run(asyncio.open_connection('127.0.0.1', {port}))",
    "sendto": (
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))"
    ),
    "sendmsg": (
        "socket.socket(type=socket.SOCK_DGRAM)"
        ".sendmsg([b'x'], [], 0, ('127.0.0.1', {port}))"
    ),
    "unix socket": "socket.socket(socket.AF_UNIX).connect('/run/docker.sock')",
    "abstract socket": "socket.socket(socket.AF_UNIX).connect(b'\\0x')",
    "in a thread": (
        "t = threading.Thread(target=socket.create_connection,"
        " args=(('127.0.0.1', {port}),)); t.start(); t.join()"
    ),
}


@pytest.mark.parametrize("dial", DIAL.values(), ids=DIAL.keys())
async def test_private_address_ends_the_attempt_at_once(
    toys: Toys, service: Service, dial: str
) -> None:
    body = f"""
        while True:  # as an engine that retries
            try:
                {dial.format(port=service.port)}
            except BaseException:
                pass
        """
    error = await toys.failure(body, local_worker__download_timeout_s=10)
    assert error.cause is Cause.INVALID_URL, error.detail
    assert "private address" in str(error)
    assert service.hits == 0


async def test_address_a_name_leads_to_is_judged_and_a_public_one_passes(
    toys: Toys,
) -> None:
    refused = toys.runner.fenced["address"]
    body = """
        sys.audit("socket.connect", None, ("93.184.216.34", 443))
        sys.audit("socket.sendto", None, ("2606:4700:4700::1111", 443, 0, 0))
        sys.audit("socket.sendmsg", None, None)
        report.info(text="passed")
        sys.audit("socket.connect", None, ("192.168.1.1", 443))
        """
    error = await toys.failure(body)
    assert error.cause is Cause.INVALID_URL and "192.168.1.1" in error.detail
    assert toys.runner.fenced["address"] == refused + 1


async def test_owner_may_allow_private_addresses(toys: Toys, service: Service) -> None:
    body = f"""
        socket.create_connection(('127.0.0.1', {service.port})).recv(1)
        report.info(text="read")
        """
    await toys.fetch(body, child_runner__allow_private_addresses=True)
    assert service.hits == 1


async def test_owners_proxy_is_allowed_and_the_link_is_judged_instead(
    tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{service.port}")
    for name in ("NO_PROXY", "no_proxy"):  # which names none
        monkeypatch.setenv(name, "127.0.0.1:1")
    dial = f"""
        socket.create_connection(('127.0.0.1', {service.port})).recv(1)
        report.info(text="read")
        """
    async with running_toys(tmp_path) as toys:
        await toys.fetch(dial, url="https://93.184.216.34/")
        assert service.hits == 1
        for url in ("https://127.0.0.1/", "https://localhost/", "https://[::1]:8/"):
            error = await toys.failure(dial, url=url)
            assert error.cause is Cause.INVALID_URL and "private" in str(error)
        for port in (1, 80):
            other = f"sys.audit('socket.connect', None, ('127.0.0.1', {port}))"
            error = await toys.failure(other, url="https://93.184.216.34/")
            assert error.cause is Cause.INVALID_URL
    assert service.hits == 1


PROGRAMS = [
    "subprocess.run(['./sh', '-c', 'echo hi'], cwd='/bin')",
    "subprocess.run(['./sh', '-c', 'echo hi'], cwd=b'/bin')",
    "subprocess.run(['/bin/sh', '-c', 'echo hi'])",
    "subprocess.run('echo hi', shell=True)",
    "subprocess.run([sys.executable, '-c', ''])",
    "subprocess.run(['ffmpeg'], executable='/bin/sh')",
    "subprocess.run([str(request.folder / 'x')])",
    "subprocess.run([shutil.copy('/bin/sh', Path.home()), '-c', 'echo hi'])",
    "os.system('echo hi')",
    "os.popen('echo hi')",
    "os.execv('/bin/sh', ['/bin/sh'])",
    "os.posix_spawn('/bin/sh', ['/bin/sh', '-c', ''], {})",
    "os.spawnv(os.P_WAIT, '/bin/sh', ['/bin/sh', '-c', ''])",
    "__import__('pty').spawn('/bin/sh')",
]


@pytest.mark.parametrize("start", PROGRAMS)
async def test_other_programs_are_not_started(toys: Toys, start: str) -> None:
    body = f"""
        (request.folder / "x").write_text("#!/bin/sh\\n")
        (request.folder / "x").chmod(0o700)
        {start}
        report.info(text="went on")
        """
    refused = toys.runner.fenced["program"]
    error = await toys.failure(body, child_runner__allow_private_addresses=True)
    assert error.cause is Cause.INVALID_URL
    assert str(error) == SENTENCES[Cause.INTERNAL]
    assert toys.runner.fenced["program"] == refused + 1


@pytest.mark.parametrize(
    "start",
    [
        "subprocess.run(['sh', '-c', 'echo hi'])",
        "subprocess.run([b'sh', '-c', 'echo hi'])",
        "subprocess.run(['x', '-c', 'echo hi'], executable='sh')",
        "subprocess.run(['sh', '-c', 'echo hi'], env={'PATH': '/bin'})",
        "subprocess.run(['sh', '-c', 'echo hi'], env={'PATH': '.'}, cwd='/bin')",
        "subprocess.run(['sh', '-c', 'echo hi'], env={'PATH': str(Path.home())})",
        "os.posix_spawnp('sh', ['sh', '-c', 'echo hi'], {})",
    ],
)
async def test_other_programs_are_not_found_by_name(toys: Toys, start: str) -> None:
    body = f"""
        shutil.copy("/bin/sh", Path.home())
        try:
            {start}
        except FileNotFoundError as error:
            report.info(text=error.strerror)
        """
    assert (await toys.fetch(body)).facts["text"] == "not for downloads"


async def test_helper_program_may_be_found_by_name(toys: Toys) -> None:
    body = """
        done = subprocess.run(["ffprobe", "-version"], capture_output=True, text=True)
        report.info(text=done.stdout)
        """
    assert "ffprobe version" in (await toys.fetch(body)).facts["text"]


REMOTE = [
    "http://127.0.0.1/x.ts",
    "HTTP://127.0.0.1/x.ts",
    "http:x.ts",
    "tcp://127.0.0.1:1",
    "tcp:127.0.0.1:1",
    "hls+http://127.0.0.1/x",
    "concat:http://127.0.0.1/a|http://127.0.0.1/b",
    "concatf:list.txt",
    "async:http://127.0.0.1/",
    "cache:http://127.0.0.1/",
    "crypto+http://127.0.0.1/",
    "subfile,,start,0,end,0,,:http://127.0.0.1/",
    "tee:http://127.0.0.1/",
    "data:text/plain,x",
    "rtmp://127.0.0.1/",
    "unix:/run/docker.sock",
    "pipe:0",
    b"http://127.0.0.1/x.ts",
]


@pytest.mark.parametrize("argument", REMOTE)
async def test_ffmpeg_gets_no_address(toys: Toys, argument: str | bytes) -> None:
    body = f"""
        program = request.programs["ffmpeg"]
        subprocess.run([program, "-nostdin", "-i", {argument!r}, "-f", "null", "-"])
        report.info(text="went on")
        """
    assert (await toys.failure(body)).cause is Cause.INVALID_URL


async def test_ffmpeg_gets_local_files(toys: Toys, media_folder: Path) -> None:
    cache = toys.pids_file.parent  # which a child may read
    cache.mkdir(parents=True, exist_ok=True)
    shutil.copy(media.video(media_folder), cache / "video.mp4")
    body = """
        program = request.programs["ffmpeg"]
        video, out = request.cache_dir / "video.mp4", request.folder / "out.mp4"
        subprocess.run([program, "-nostdin", "-v", "error", "-i", f"file:{video}",
                        "-map", "0:v:0", "-c:v", "copy", "-movflags", "+faststart",
                        "-metadata", "title=a: b", "-ss", "00:00:00.1",
                        f"file:{out}"], check=True)
        subprocess.run([program, "-v", "error", "-y", "-i", str(video), str(out)],
                       check=True, stdin=subprocess.DEVNULL)
        report.file(out)
        """
    assert (await toys.fetch(body)).files[0].mime == "video/mp4"


# Programs for a job


Run = Callable[..., Awaitable[Ran]]


@pytest_asyncio.fixture(loop_scope="module")
async def run(toys: Toys) -> AsyncIterator[Run]:
    """Runs a program for a job, as a bench does, with Python as one of those allowed."""
    before = toys.runner.programs
    toys.runner.programs = {**before, "python": os.path.realpath(sys.executable)}

    async def run(*argv: str, on_line: Any = None, **settings: Any) -> Ran:
        toys.set(**settings)
        folder = await toys.app.storage.attempt_folder(toys.job())
        return await toys.app.runner.run(argv, folder / "home", on_line)

    yield run
    toys.runner.programs = before


async def test_all_that_runs_is_ended_with_one_reason(toys: Toys, run: Run) -> None:
    began: list[Any] = []
    code = "import time; print('x', flush=True); time.sleep(600)"
    program = asyncio.create_task(run(sys.executable, "-c", code, on_line=began.append))
    body = "report.progress(Progress('x')); time.sleep(600)"
    download = asyncio.create_task(toys.fetch(body, on_progress=began.append))
    await until(lambda: len(began) == 2)
    assert toys.runner.end_all(JobFailed(Cause.DISK_FULL)) == 2
    for work in (program, download):
        with pytest.raises(JobFailed) as caught:
            await asyncio.wait_for(work, 60)
        assert caught.value.cause is Cause.DISK_FULL
    assert toys.runner.end_all(JobFailed(Cause.DISK_FULL)) == 0


async def test_program_runs_in_the_jobs_scratch_home(toys: Toys, run: Run) -> None:
    code = "import os; print(os.getcwd()); os.write(2, b'oops \\xff'); exit(3)"
    done = await run(sys.executable, "-c", code)
    assert (done.exit, done.stderr) == (3, "oops \ufffd")
    assert done.stdout.startswith(str(toys.settings.data_dir / "temp"))


async def test_lines_of_a_program_arrive_while_it_runs(toys: Toys, run: Run) -> None:
    lines: list[str] = []
    code = """
import os, time
print("a=1", flush=True)
while not os.path.exists("go"):
    time.sleep(0.01)
print(" \\xe9 ")
"""

    def on_line(line: str) -> None:
        lines.append(line)
        for home in (toys.settings.data_dir / "temp").glob("*/1/home"):
            (home / "go").touch()

    async with asyncio.timeout(60):
        done = await run(sys.executable, "-c", code, on_line=on_line)
    assert lines == ["a=1", "é"]
    assert done.stdout == "a=1\n é \n"


async def test_output_of_a_program_is_cut_to_its_end(run: Run) -> None:
    code = "import os; [os.write(n, b'\\xff' * 10**6 + b'end') for n in (1, 2)]"
    done = await run(sys.executable, "-c", code)
    assert done.exit == 0
    for output in (done.stdout, done.stderr):
        assert output.endswith("end") and len(output) == 16384


async def test_missing_program_fails_with_its_name(run: Run) -> None:
    with pytest.raises(JobFailed) as caught:
        await run("no-such-program")
    assert "no-such-program" in caught.value.detail


@pytest.mark.parametrize(
    "argv", [["/bin/sh", "-c", "echo hi"], ["sh", "-c", "echo hi"]]
)
async def test_program_that_is_none_of_the_helpers_is_not_run(
    run: Run, argv: list[str]
) -> None:
    with pytest.raises(JobFailed):
        await run(*argv)


async def test_program_has_the_limits_of_its_job(run: Run) -> None:
    code = "open('big', 'wb').write(bytes(100_000))"
    done = await run(sys.executable, "-c", code, max_job_size=10_000)
    assert done.exit == 1 and "File too large" in done.stderr


PROGRAM = """
import os, time
with open("new", "w") as file:
    file.write(str(os.getpid()))
os.rename("new", "pid")
time.sleep(600)
"""


async def test_program_dies_with_the_task_that_waits_for_it(
    toys: Toys, run: Run
) -> None:
    temp = toys.settings.data_dir / "temp"
    running = asyncio.create_task(run(sys.executable, "-c", PROGRAM))
    await until(lambda: [*temp.glob("*/1/home/pid")])
    [note] = temp.glob("*/1/home/pid")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    pid = int(note.read_text())
    await until(lambda: not alive(pid))


async def test_program_dies_with_its_hook(tmp_path: Path) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    shutil.copy(PLUGINS / "runs_a_program.py", plugins)
    (plugins / "program").write_text(PROGRAM)
    async with running_toys(tmp_path, process_timeout_s=5) as toys:
        toys.runner.programs = {"python": os.path.realpath(sys.executable)}
        toys.write("report.file(save(request))")
        job = toys.job()
        home = toys.settings.data_dir / "temp" / job.id / "1" / "home"
        fetched = await toys.app.worker.complete(job, lambda progress: None)
        pid = int((home / "pid").read_text())
        await until(lambda: not alive(pid))
    assert len(fetched.files) == 1  # it took too long, so its answer is missing


# Cookies


@pytest.fixture
def a_platform(tmp_path: Path) -> Iterator[Platform]:
    jar = tmp_path / "cookies.txt"
    jar.write_text("# Netscape HTTP Cookie File\n.x.com\tTRUE\t/\tTRUE\t0\told\t1\n")
    yield Platform(
        "x",
        "https://x",
        "https://x",
        "toy",
        cookies={"auth": SecretStr("hush"), "none": None},
        cookies_file=jar,
        cookies_domain=".x.com",
    )


async def test_attempt_gets_cookies_of_its_own(
    a_platform: Platform, tmp_path: Path
) -> None:
    path = write_cookies(a_platform, tmp_path / "own.txt")
    assert path is not None and path.stat().st_mode & 0o777 == 0o600
    lines = path.read_text().splitlines()
    assert lines[0] == "# Netscape HTTP Cookie File"
    assert lines[-2:] == [
        ".x.com\tTRUE\t/\tTRUE\t0\told\t1",
        ".x.com\tTRUE\t/\tTRUE\t0\tauth\thush",
    ]
    bare = Platform("y", "https://y", "https://y", "toy", cookies={"a": None})
    assert write_cookies(bare, tmp_path / "none.txt") is None


@pytest.fixture
def used_and_kept(a_platform: Platform, tmp_path: Path) -> tuple[Path, Path]:
    """The cookies.txt of an attempt, and the owner's."""
    used, kept = (
        write_cookies(a_platform, tmp_path / "own.txt"),
        a_platform.cookies_file,
    )
    assert used is not None and kept is not None
    return used, kept


NEW = (
    "# Netscape HTTP Cookie File\n"
    "#HttpOnly_.x.com\tTRUE\t/\tTRUE\t0\told\t2\n"
    ".x.com\tTRUE\t/\tTRUE\t0\tauth\thush\n"
)


async def test_rotated_cookies_are_written_back_without_the_named(
    a_platform: Platform, used_and_kept: tuple[Path, Path]
) -> None:
    used, kept = used_and_kept
    used.write_text(NEW)
    keep_cookies(a_platform, used)
    assert kept.read_text().splitlines() == NEW.splitlines()[:2]
    assert kept.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [None, "", "# emptied\n", "\0\xff", "as it was"])
async def test_cookies_that_did_not_change_are_left_alone(
    a_platform: Platform, used_and_kept: tuple[Path, Path], content: str | None
) -> None:
    used, kept = used_and_kept
    before, inode = kept.read_text(), kept.stat().st_ino
    if content is None:
        used.unlink()
    elif content != "as it was":
        used.write_text(content, "latin-1")
    keep_cookies(a_platform, used)
    assert (kept.read_text(), kept.stat().st_ino) == (before, inode)


async def test_cookies_the_owner_has_changed_meanwhile_win(
    a_platform: Platform, used_and_kept: tuple[Path, Path]
) -> None:
    used, kept = used_and_kept
    used.write_text(NEW)
    kept.write_text("the owner's new ones")
    keep_cookies(a_platform, used)
    assert kept.read_text() == "the owner's new ones"


@pytest.mark.parametrize(
    ("domain", "kept"),
    [
        *[(".x.com", True), ("api.x.com", True), (".X.COM", True)],
        *[("other.example", True), ("#HttpOnly_.other.example", True)],
        *[(".evil.example", False), ("evilx.com", False), ("x.com.evil", False)],
        *[("sub.other.example", False), (".com", False), ("", False)],
    ],
)
async def test_only_rows_of_known_domains_reach_the_owners_file(
    a_platform: Platform, tmp_path: Path, domain: str, kept: bool
) -> None:
    file = a_platform.cookies_file
    assert file
    with file.open("a") as more:
        more.write("other.example\tFALSE\t/\tTRUE\t0\tb\t2\n")
    used = write_cookies(a_platform, tmp_path / "own.txt")
    assert used
    with used.open("a") as more:
        more.write(f"{domain}\tTRUE\t/\tTRUE\t0\tplanted\tvalue\n")
    keep_cookies(a_platform, used)
    assert ("planted" in file.read_text()) is kept
    assert {".x.com", "other.example"} <= set(re.split(r"[\t\n]", file.read_text()))


@pytest.mark.parametrize("mark", [*"\x00\x0b\x0c\r\x1c\x1d\x1e\x1f\x7f\x85", "\u2028"])
async def test_no_character_begins_another_row(
    a_platform: Platform, used_and_kept: tuple[Path, Path], mark: str
) -> None:
    used, kept = used_and_kept
    row = ".x.com\tTRUE\t/\tTRUE\t0\told\t"
    used.write_text(f"{row}new{mark}.bank.example\tTRUE\n{row}ro{mark}tated\n", "utf-8")
    keep_cookies(a_platform, used)
    assert kept.read_text("utf-8").split("\n")[1:] == [f"{row}rotated", ""]


async def test_attempt_takes_no_row_from_the_owner(
    a_platform: Platform, used_and_kept: tuple[Path, Path]
) -> None:
    used, kept = used_and_kept
    used.write_text(".x.com\tTRUE\t/\tTRUE\t0\tnew\t2\n")
    keep_cookies(a_platform, used)
    assert [line.split("\t")[5:] for line in kept.read_text().splitlines()[1:]] == [
        ["old", "1"],
        ["new", "2"],
    ]


async def test_attempts_do_not_make_the_file_too_large_to_be_read(
    a_platform: Platform, tmp_path: Path
) -> None:
    """Each of them leaves less than it may, but under other names."""
    file = a_platform.cookies_file
    assert file
    for attempt in range(4):
        used = write_cookies(a_platform, tmp_path / "own.txt")
        assert used
        names = (f"{attempt}-{number}" for number in range(400))
        rows = (f".x.com\tTRUE\t/\tTRUE\t0\t{n}\t{'v' * 1000}\n" for n in names)
        used.write_text("".join(rows))
        keep_cookies(a_platform, used)
    assert 400_000 < file.stat().st_size <= 2**20
    used = write_cookies(a_platform, tmp_path / "own.txt")
    assert used and "\told\t1\n" in used.read_text()


@pytest.mark.parametrize("what", ["huge", "fifo", "link", "folder", "many"])
async def test_what_is_no_cookies_txt_of_an_attempt_is_not_read(
    a_platform: Platform, used_and_kept: tuple[Path, Path], what: str
) -> None:
    used, kept = used_and_kept
    before = kept.read_text()
    row = ".x.com\tTRUE\t/\tTRUE\t0\t{}\t{}\n"
    used.rename(secret := used.with_name("secret.txt"))
    secret.write_text(row.format("other", "login"))
    match what:
        case "huge":
            used.write_text(row.format("old", "2") + "#" * 2**20)
        case "fifo":
            os.mkfifo(used)
        case "link":
            used.symlink_to(secret)
        case "folder":
            used.mkdir()
        case "many":
            used.write_text("".join(row.format(n, "x" * 9000) for n in range(100)))
    keep_cookies(a_platform, used)
    assert kept.read_text() == before


ROWS = """\
# Netscape HTTP Cookie File
x.com\tTRUE\t/\tTRUE\t0\ta\tvalue-1\r
.x.com\tFALSE\t/\tTRUE\t\tb\tvalue-2
x.com\tFALSE\t/\tTRUE\t1.5\tc\tvalue-3
.x.com\tTRUE\t/\tTRUE\tnever\td\tvalue-4
.x.com\tTRUE\t/\tTRUE\t0\tvalue-5
.x.com TRUE / TRUE 0 e value-6
.x.com\tTRUE\t/\tTRUE\t{long}\tf\tvalue-7
[{{"name": "g", "value": "value-8"}}]
.x.com\tTRUE\t/\tTRUE\t0\th\tvalue-9\xe9
""".format(long="9" * 400)


async def test_rows_that_cannot_be_read_are_named_by_number(
    a_platform: Platform, tmp_path: Path, logged: list[str]
) -> None:
    assert a_platform.cookies_file
    a_platform.cookies_file.write_text("\ufeff" + ROWS, "latin-1", "ignore")
    used = write_cookies(a_platform, tmp_path / "own.txt")
    assert used
    assert used.read_text().split("\n")[1:] == [
        ".x.com\tTRUE\t/\tTRUE\t0\ta\tvalue-1",
        ".x.com\tTRUE\t/\tTRUE\t\tb\tvalue-2",
        "x.com\tFALSE\t/\tTRUE\t1.5\tc\tvalue-3",
        ".x.com\tTRUE\t/\tTRUE\t0\tauth\thush",
        "",
    ]
    (line,) = [line for line in logged if "no cookie" in line]
    assert line.endswith("cookies.txt: no cookie in line 5, 6, 7, 8, 9, 10")
    assert "value-" not in "".join(logged)


async def test_values_of_the_owners_file_count_as_secrets(
    a_platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"x": frozenset({"of-the-settings"})}
    monkeypatch.setattr(bossbot_contracts, "_secrets_of", known)
    file = a_platform.cookies_file
    assert file
    row = '.x.com\tTRUE\t/\tTRUE\t0\told\t"value-{}"\n'
    file.write_text(row.format(1))
    for number in (2, 3):
        used = write_cookies(a_platform, tmp_path / "own.txt")
        assert used
        used.write_text(row.format(number))
        keep_cookies(a_platform, used)
    said = "value-1 value-2 value-3 value-4 of-the-settings"
    secret = "[secret]"
    assert JobFailed(Cause.LOGIN, "with value-3").detail == "with [secret]"
    assert bossbot.redact(said) == f"{secret} {secret} {secret} value-4 {secret}"


async def test_file_open_to_others_is_closed(
    a_platform: Platform, tmp_path: Path, logged: list[str]
) -> None:
    file = a_platform.cookies_file
    assert file
    file.chmod(0o644)
    for _ in range(2):
        write_cookies(a_platform, tmp_path / "own.txt")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (line,) = logged
    assert line.endswith("cookies.txt was readable by others: set to 0600")
