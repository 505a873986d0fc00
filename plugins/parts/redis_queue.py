"""The queue in Redis, for a bot on several machines: on if `url` is set.

Every verb is one call of the script beside this file, which is where the order, the
limits and the claims are. What is read from Redis is checked: who can write there must
not be able to name a file or a link that the bot would not have taken from a member.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
import secrets
import sys
from collections import defaultdict
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from bossbot_plugins._insist import insist
from bossbot_plugins._links import show_link
from bossbot_plugins._listening import ListenedQueue
from bossbot_plugins._messages import FORMS, NONSENSE, known_progress
from bossbot_plugins._own_name import own_name
from bossbot_plugins._rows import JSON_FIELDS, row_of
from bossbot_plugins._shared import GATEWAY, AtWork, Question, SharedQueue
from bossbot_plugins._spoilers import hide
from loguru import logger
from pydantic import Field, SecretStr, TypeAdapter, ValidationError

import bossbot
from bossbot import (
    HERE,
    N_,
    TERMINAL_STATUSES,
    App,
    BossbotError,
    Cause,
    Change,
    Facts,
    Finding,
    Job,
    JobFailed,
    OutOfReach,
    Part,
    PluginConfig,
    Priority,
    Progress,
    QueueFull,
    Refused,
    StartError,
    Status,
    Subcommand,
    _,
    cut_line,
    escape,
    explain,
    format_time,
    hookimpl,
    now,
    one_line,
    public_url,
)


class Config(PluginConfig):
    """[plugins.redis_queue] in config.toml."""

    url: SecretStr | None = Field(
        None, description="redis://, or rediss:// with TLS; only in .env; not set: off"
    )
    prefix: str = Field(
        "bossbot",
        pattern=r"^[\w.-]+$",
        description="beginning of the names of all keys",
    )
    keep_s: float = Field(604800, ge=3600, description="how long ended jobs are kept")
    sentinels: list[Annotated[str, Field(pattern=r"^.+:\d{1,5}$")]] = Field(
        [], description="host:port of each Sentinel, if Sentinels watch over Redis"
    )
    service: str = Field(
        "mymaster", description="name of that Redis in the Sentinels' configuration"
    )
    requests_per_s: float = Field(
        45,
        ge=1,
        description="requests to Discord by all processes together; its limit is 50",
    )


@hookimpl
def register_parts(config: Config) -> dict[str, Callable[[App], Part]]:
    if not is_on(config):
        return {}
    return {
        "queue": partial(RedisQueue, config=config),
        "facts": partial(RedisFacts, config=config),
    }


@hookimpl
async def check_machine(config: Config) -> list[Finding]:
    """Whether Redis answers, and writes every change to its disk."""
    if not is_on(config):
        return []
    try:
        redis = Redis(config)
        try:
            await redis.start()
        finally:
            await redis.stop()
    except Away as error:
        return [Finding(error.what, "no link can be taken", error.remedy, True)]
    return [] if redis.durable else [NOT_DURABLE]


@hookimpl
def register_subcommands() -> list[Subcommand]:
    text = "list the workers, if the queue is in Redis"
    return [Subcommand("workers", text, show_workers)]


async def show_workers(app: App, args: argparse.Namespace) -> int:
    """Print a line for each worker of the last day."""
    if not isinstance(app.queue, RedisQueue):
        raise StartError(
            f"This machine does all the work: the queue is not in Redis. Set {URL} to "
            "share it."
        )
    await app.queue.redis.start()
    with explained():
        workers = await app.queue.workers()
    for one in workers:
        seen = format_time(one.seen_s)
        print(
            f"{one.name}: version {one.version}, {one.running} of {one.slots} "
            f"downloads, seen {seen} ago"
        )
    if not workers:
        print("No worker was seen in the last day. Start one: python bossbot.py worker")
    return 0


def is_on(config: Config) -> bool:
    return bool(config.url and config.url.get_secret_value())


T = TypeVar("T")
LAYOUT = "1"  # of the keys; a process of another layout does not start
SCRIPT = Path(__file__).resolve().with_name("_redis_queue.lua")
# Stored by the holder of the claim; the rest is set by the queue's own verbs.
HELD = (
    *("status", "crashes", "engine", "facts", "posts", "sources", "folder"),
    *("file_count", "total_bytes", "cause", "error", "detail", "finished_at"),
    "limit_bytes",
)
MAX_DELAY_S = 600  # of a job that is given back
CLOCKS_S = 10.0  # that the clocks of machines may be apart
SEEN_S = 90.0  # a worker that was not seen for so long is not asked
ANSWER = re.compile("answer:[0-9a-f]{16}")  # the key of one
ANSWER_S = 60.0  # after which nobody waits for an answer any more
PLACE_S = 30  # for so long a gateway that died keeps others from its place
SWEEP_S = 3600.0  # between two removals of old rows
PAGE = 200  # jobs that are read at once
MAX_ASKING = 20  # questions at once; redis-py refuses to open a 101st connection
MAX_ERROR = 2000  # characters, as of a message of Discord's
MAX_VALUE = 2**20  # characters of a field; no honest one comes near
LARGEST = 2**63  # numbers are smaller, as in SQLite
LATEST_S = 10**11  # and times, as in datetime
STEP = 2**45  # see the script
ALWAYS = ("id", "url", "status", "priority", "created_at")
DEFAULTS = row_of(Job(id="", url=""))
NUMBERS = [n for n, value in DEFAULTS.items() if isinstance(value, (int, float))]
CLAIMED = {Status.DOWNLOADING, Status.PROCESSING, Status.UPLOADING}
AWAY = N_("The queue is out of reach. Try again in a minute.")
VARIABLE = "BOSS_BOT_PLUGINS__REDIS_QUEUE__URL"
URL = f"{VARIABLE} in .env"
ENCODED = (
    "In a password, percent-encode all but letters and digits: # as %23, / as %2F."
)
NOT_DURABLE = Finding(
    "Redis does not write each change to its disk (appendonly no)",
    "acknowledged links are lost if it stops",
    "Set appendonly yes and appendfsync always in redis.conf.",
)
# The problem and the remedy, by the words of an error that stays until it is fixed.
REFUSALS = {
    "protected mode": (
        "Redis takes no connections from other machines",
        "Give it a password (requirepass in redis.conf), and write it in {url}.",
    ),
    "AUTH|Authentication|password": (
        "Redis does not accept the password",
        f"Correct it: {{url}}. {ENCODED}",
    ),
    "CERTIFICATE_VERIFY_FAILED": (
        "The certificate of Redis is not accepted",
        "For an authority of your own: rediss://host:6379?ssl_ca_certs=/path/ca.pem",
    ),
    "read only replica": (
        "That Redis is a replica",
        "Put the address of the primary there: {url}.",
    ),
    "index is out of range|SELECT is not allowed": (
        "Redis has no database of that number",
        "Take it out of {url}. If other programs use this Redis, set prefix.",
    ),
    "no permissions": (
        "The user in the url may do too little in Redis",
        "An ACL that is enough is in docs/several-machines.md.",
    ),
    "maxmemory": ("Redis is full", "Let it have more memory: maxmemory in redis.conf."),
    "WRONGTYPE": (
        "Something other than the bot has written there",
        "Set [plugins.redis_queue] prefix to another name.",
    ),
}


# ── A job as Redis has it ──────────────────────────────────────────────────────────


def encode(name: str, value: Any) -> str:
    """A value of a row as it is stored; "" for a field's default."""
    if value == DEFAULTS[name] and name not in ALWAYS:
        return ""
    value = int(value) if isinstance(value, Priority) else value
    return str(value).encode("utf-8", "replace").decode()


def fields(job: Job, names: Iterable[str]) -> str:
    """Some of its fields, as the script takes them."""
    row = row_of(job)
    return json.dumps({name: encode(name, row[name]) for name in names})


def whole(job: Job) -> dict[str, str]:
    """All fields that have no default value."""
    row = {name: encode(name, value) for name, value in row_of(job).items()}
    return {name: value for name, value in row.items() if value}


@cache
def checker() -> TypeAdapter[Job]:
    """What checks the types of a job's fields."""
    return TypeAdapter(Job)


def decode(row: Mapping[str, str]) -> Job:
    """The job of a row, whoever wrote it. What this version does not know is left out.

    Raises:
        ValueError: it is none that the bot has written.
    """
    if any(len(value) > MAX_VALUE for value in row.values()):
        raise ValueError("a value is too long")
    values: dict[str, Any] = {name: row[name] for name in DEFAULTS if name in row}
    try:
        for name in values.keys() & {*JSON_FIELDS}:
            values[name] = json.loads(values[name])
        job = checker().validate_python(values)
    except ValidationError as error:
        raise ValueError("; ".join(explain(error, ()))) from None
    except RecursionError as error:
        raise ValueError("tables are nested too deep") from error
    if not re.fullmatch("[0-9a-f]{10}", row.get("id", ""), re.ASCII):
        raise ValueError("its id is none")
    # Kept files lie in folders of their own, which the storage names by their jobs.
    if job.folder and not re.fullmatch(rf"(?:[\w-]+/)+{job.id}", job.folder):
        raise ValueError("its folder is none")
    numbers = {*(getattr(job, name) for name in NUMBERS)}
    for post in job.posts:
        numbers |= {post.number, post.message_id, post.channel_id, post.sending_at}
        numbers.add(post.thread_id or 0)
    for number in numbers:
        most = LATEST_S if isinstance(number, float) else LARGEST
        if not -most < number < most:
            raise ValueError("a number is too large")
    names = [name for post in job.posts for name in post.files]
    if any(name in ("", ".", "..") or "/" in name or "\0" in name for name in names):
        raise ValueError("a file's name is none")
    for name in job.facts.keys() & FORMS.keys():
        if not isinstance(job.facts[name], type(FORMS[name](job.facts[name]))):
            del job.facts[name]
    job.error = cleaned(job)
    return job


def cleaned(job: Job) -> str:
    """A failure as members read it, whoever wrote it. The sentences that the bot
    knows are translated where they are shown; of all others only the job's own link, and
    times, keep their form."""
    error = job.error[:MAX_ERROR]
    if not error or any(
        known.gettext(error) != error for known in bossbot.catalogues.values()
    ):
        return error
    own = hide(job, show_link(public_url(job)))
    lines = []
    for line in error.split("\n"):
        clean = escape(line, MAX_ERROR)
        for form in {own, *re.findall(r"<t:\d{1,12}:R>", line)} - {""}:
            clean = clean.replace(escape(form, MAX_ERROR), form)
        lines.append(clean)
    return "\n".join(lines)


def row_in(answer: str) -> dict[str, str]:
    """The row that the script answered; empty if it gave none."""
    return {n: str(v) for n, v in json.loads(answer).items()} if answer else {}


class Wrong:
    """Says in the log what is wrong in Redis, now and then, however much it is."""

    every_s = 10.0

    def __init__(self) -> None:
        self._again_at = 0.0
        self._left_out = 0

    def __call__(self, what: str, error: Exception) -> None:
        if now() < self._again_at:
            self._left_out += 1
            return
        more = f" ({self._left_out} more like it before)" if self._left_out else ""
        self._again_at, self._left_out = now() + self.every_s, 0
        logger.error(
            "{} in Redis is wrong: {}{}", what, cut_line(str(error), 200), more
        )


is_wrong = Wrong()


def jobs_of(rows: Iterable[Mapping[str, str]]) -> list[Job]:
    """The jobs of rows, without those that are none."""
    jobs = []
    for row in rows:
        if row:
            try:
                jobs.append(decode(row))
            except ValueError as error:
                is_wrong("a job", error)
    return jobs


# ── The connection ─────────────────────────────────────────────────────────────────


class Away(BossbotError):
    """Redis cannot be used now; maybe later."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}. {remedy}")
        self.what, self.remedy = what, remedy


class Unusable(Away, StartError):
    """Redis cannot be used as it is set up."""


def unusable(error: Exception) -> Away:
    """What an error of redis-py at the start means."""
    text = str(error).rstrip(".? ") or "it does not answer"
    for words, (what, remedy) in REFUSALS.items():
        if re.search(words, text):
            return Unusable(f"{what}: {text}", remedy.format(url=place()))
    return Away(
        f"Redis is out of reach: {text}",
        f"Start Redis, or correct {place()}; with TLS it begins with rediss://",
    )


def place() -> str:
    """Where the url is set."""
    if any(name.upper() == VARIABLE for name in os.environ):
        return f"{VARIABLE} in the environment"
    with contextlib.suppress(OSError):
        lines = (HERE / ".env").read_text("utf-8", "replace")
        if re.search(rf"(?im)^\s*(export\s+)?{VARIABLE}\s*=", lines):
            return URL
    return "[plugins.redis_queue] url in config.toml"


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Give the owner the details of a member's short answer."""
    try:
        yield
    except OutOfReach as error:
        assert isinstance(error.__cause__, Exception)
        raise unusable(error.__cause__) from error


class Call(NamedTuple):
    """A call of the script that waits for its answer."""

    call: Sequence[Any]
    answer: asyncio.Future[Any]
    ends_at: float  # by the loop's clock

    def answered(self, what: Any) -> None:
        """Pass an answer on, which may be an error, unless nobody waits for it."""
        if self.answer.done():
            return
        if isinstance(what, Exception):
            self.answer.set_exception(what)
        else:
            self.answer.set_result(what)


class Redis:
    """Redis, as the parts use it."""

    start_within_s = 5.0
    # For one call, with all its tries; and for the next ones after one without an answer:
    # a command may make several, and its member gets an answer within 5 seconds.
    within_s, again_within_s = 2.5, 0.3
    finish_within_s = 2.0  # for calls that are under way, at a stop

    def __init__(self, config: Config) -> None:
        try:
            import redis.asyncio as library
            from redis.asyncio.retry import Retry
            from redis.backoff import ExponentialBackoff
            from redis.exceptions import ConnectionError as Lost
            from redis.exceptions import NoScriptError, RedisError, ResponseError
            from redis.exceptions import TimeoutError as Late
        except ImportError as error:
            raise Unusable(
                "[plugins.redis_queue] url is set, and redis-py is missing",
                f"Run: {sys.executable} -m pip install -r requirements-redis.txt",
            ) from error
        assert config.url
        self.prefix = f"{{{config.prefix}}}:"
        self.errors = (RedisError, OSError)  # a TimeoutError is one
        self.durable = False  # whether Redis writes each change to its disk
        self.answers = ResponseError  # those of them that came from Redis
        self._no_script = NoScriptError
        self._asking: set[asyncio.Task[Any]] = set()
        self._room = asyncio.Semaphore(MAX_ASKING)
        self._run_id = ""  # of this server
        self.met_at = 0.0  # since when; Unix seconds
        self._away = False  # whether the last call got no answer
        options: dict[str, Any] = {
            "decode_responses": True,
            "encoding_errors": "replace",
            "socket_timeout": 10,
            "socket_connect_timeout": 3,
            "retry": Retry(ExponentialBackoff(cap=1, base=0.05), 5),
            "retry_on_error": [Lost, Late],
            "client_name": "boss-bot",
            "redis_connect_func": self._connected,
            "protocol": 2,
        }
        url = config.url.get_secret_value()
        if not url.startswith("unix:"):
            options["socket_keepalive"] = True
        try:
            named = not url.startswith("unix:") and urlsplit(url).path.strip("/")
            if config.sentinels:
                self.client: Any = _by_sentinels(config, url, options)
            else:
                self.client = library.Redis.from_url(url, **options)
            pool = self.client.connection_pool
            pool.make_connection()  # which checks the options after the "?"
        except (ValueError, TypeError):  # their words may be of the password
            raise Unusable(
                "[plugins.redis_queue] url is not the address of a Redis",
                f"Correct {place()}: redis://:password@host:6379. {ENCODED}",
            ) from None
        if named and not re.fullmatch("[0-9]{1,9}", named):  # else it would be 0
            raise Unusable(
                "[plugins.redis_queue] url names a database that is not a number",
                f"Correct {place()}: redis://:password@host:6379/0. If other programs "
                f"use this Redis, set prefix. {ENCODED}",
            )
        for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
            file = pool.connection_kwargs.get(name)
            if file and not os.access(file, os.R_OK):
                raise Unusable(f"{file} cannot be read", f"It is {name}: {place()}.")
        body = SCRIPT.read_text("utf-8")
        # New jobs are refused when Redis is full; those that are there go on.
        scripts = (f"#!lua\n{body}", f"#!lua flags=allow-oom\n{body}")
        self._scripts = {hashlib.sha1(one.encode()).hexdigest(): one for one in scripts}
        self._calls: list[Call] = []  # for the next trip
        self._calling: asyncio.Task[None] | None = None

    def key(self, name: str) -> str:
        return self.prefix + name

    async def _connected(self, connection: Any) -> None:
        """Note when another server answers, or the same one after a restart: it may be a
        copy that is older than what was done."""
        await connection.on_connect()
        await connection.send_command("INFO", "server")
        found = re.search(r"run_id:(\w+)", str(await connection.read_response()))
        run_id = found[1] if found else ""
        if run_id != self._run_id:
            self._run_id, self.met_at = run_id, now()

    async def start(self) -> None:
        """Raises Away, and Unusable when jobs would not be safe there."""
        try:
            async with asyncio.timeout(self.start_within_s):
                server = await self.client.info("server")
                memory = await self.client.info("memory")
                persistence = await self.client.info("persistence")
                key = self.key("layout")
                if not (layout := await self.client.get(key)):  # else full is no matter
                    await self.client.set(key, LAYOUT, nx=True)
                    layout = await self.client.get(key)
        except self.errors as error:
            raise unusable(error) from error
        self.durable = bool(persistence.get("aof_enabled"))
        version = str(server.get("redis_version", ""))
        if int("0" + re.split(r"\D", version)[0]) < 7:
            raise Unusable(f"Redis {version} is too old", "Update it: 7.0 is needed.")
        if (policy := memory.get("maxmemory_policy", "noeviction")) != "noeviction":
            raise Unusable(
                f"Redis would drop jobs when its memory is full ({policy})",
                "Set maxmemory-policy noeviction in redis.conf.",
            )
        if layout != LAYOUT:
            raise Unusable(
                f"The queue in Redis has layout {str(layout)[:20]}, and this bot "
                f"knows {LAYOUT}",
                "Update the bot: git pull.",
            )

    async def finish(self) -> None:
        """Wait for calls that are under way."""
        if self._asking:
            await asyncio.wait(self._asking, timeout=self.finish_within_s)

    async def stop(self) -> None:
        """Disconnect; another call would connect again."""
        await self.finish()
        for task in self._asking:
            task.cancel()
        with contextlib.suppress(*self.errors):
            await self.client.aclose()

    async def ask(self, question: Callable[[], Awaitable[T]], whole: bool = True) -> T:
        """The answer of Redis; raises OutOfReach. The question is asked in a task of
        its own: redis-py may swallow a cancellation, and a change goes on to its end
        unless ``whole`` is off."""
        within_s = self.again_within_s if self._away and whole else self.within_s

        async def body() -> T:
            async with asyncio.timeout(self.within_s):
                if not whole:  # one of the few that stay open
                    return await question()
                async with self._room:
                    return await question()

        task = asyncio.create_task(body())
        self._asking.add(task)
        task.add_done_callback(self._answered)
        try:
            await asyncio.wait([task], timeout=within_s)
        finally:
            if not whole:
                self._asking.discard(task)
                task.cancel()
        try:
            # A stop of Redis cancels the task, but not who asks.
            if not task.done() or task.cancelled():
                raise TimeoutError("it does not answer")
            return task.result()
        except self.errors as error:
            self._away = not isinstance(error, self.answers)
            logger.debug("Redis does not answer: {!r}", error)
            raise OutOfReach(_(AWAY)) from error

    def _answered(self, task: asyncio.Task[Any]) -> None:
        self._asking.discard(task)
        if not task.cancelled() and not task.exception():  # who asked may be gone
            self._away = False

    async def call(self, verb: str, clock: str, per_user: int, *values: Any) -> Any:
        """The script's answer to a verb; raises OutOfReach. All calls that are made while
        others are under way go together in the next trip to Redis."""
        plain, when_full = self._scripts
        sha = plain if verb == "add" else when_full
        loop = asyncio.get_running_loop()
        call = (sha, 1, self.prefix, verb, clock, per_user, *values)
        answer = loop.create_future()
        within_s = self.again_within_s if self._away else self.within_s
        self._calls.append(Call(call, answer, loop.time() + within_s))
        if not self._calling or self._calling.done():
            self._calling = asyncio.create_task(self._make_calls())
            self._asking.add(self._calling)
            self._calling.add_done_callback(self._asking.discard)
        try:
            return await answer
        except self.errors as error:
            self._away = not isinstance(error, self.answers)
            logger.debug("Redis does not answer: {!r}", error)
            raise OutOfReach(_(AWAY)) from error

    async def _make_calls(self) -> None:
        """Make trips until no call is left. One that takes too long goes on, so that a
        change is whole, but nobody waits for it."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        while self._calling is task and (trip := self._calls):
            self._calls = []
            late = loop.call_at(trip[0].ends_at, self._too_late, trip)
            try:
                async with asyncio.timeout(self.within_s):
                    said = await self._trip([one.call for one in trip])
            except asyncio.CancelledError:
                self._give_up(trip, TimeoutError("the bot stops"))
                raise
            except Exception as error:
                self._give_up(trip, error)
            else:
                self._away = False
                for one, what in zip(trip, said, strict=True):
                    one.answered(what)
            finally:
                late.cancel()

    def _too_late(self, trip: Sequence[Call]) -> None:
        self._calling = None
        self._give_up(trip, TimeoutError("it does not answer"))

    def _give_up(self, trip: Sequence[Call], error: Exception) -> None:
        """End calls, and those behind them, which have waited for as long."""
        for one in (*trip, *self._calls):
            one.answered(error)
        self._calls = []

    async def _trip(self, calls: Sequence[Sequence[Any]]) -> list[Any]:
        """Redis' answers to calls of the scripts, which may be errors."""
        async with self.client.pipeline(transaction=False) as pipeline:
            for call in calls:
                pipeline.evalsha(*call)
            said: list[Any] = await pipeline.execute(raise_on_error=False)
        unknown = [n for n, one in enumerate(said) if isinstance(one, self._no_script)]
        if unknown:  # Redis has lost its scripts
            for script in self._scripts.values():
                await self.client.script_load(script)
            again = await self._trip([calls[number] for number in unknown])
            for number, one in zip(unknown, again, strict=True):
                said[number] = one
        return said

    async def rows(self, ids: Sequence[str]) -> list[dict[str, str]]:
        """Jobs as they are stored; empty where there is none."""
        found: list[dict[str, str]] = []
        for start in range(0, len(ids), PAGE):
            keys = [self.key(f"job:{job_id}") for job_id in ids[start : start + PAGE]]
            found += await self.ask_all([("hgetall", key) for key in keys])
        return found

    async def ask_all(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        """The answers to commands with their arguments, asked for at once."""

        async def question() -> list[Any]:
            async with self.client.pipeline(transaction=False) as pipeline:
                for command, *values in commands:
                    getattr(pipeline, command)(*values)
                return await pipeline.execute()  # type: ignore[no-any-return]

        return await self.ask(question)


def _by_sentinels(config: Config, url: str, options: dict[str, Any]) -> Any:
    """The client of whichever Redis the Sentinels name, with the url's password, TLS
    and database."""
    from redis.asyncio.connection import parse_url
    from redis.asyncio.sentinel import Sentinel

    given = dict(parse_url(url))
    for name in ("host", "port", "connection_class"):
        given.pop(name, None)
    hosts = [one.rpartition(":") for one in config.sentinels]
    places = [(host, int(port)) for host, _, port in hosts]
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        places,
        sentinel_kwargs={"socket_timeout": 3},
        ssl=url.startswith("rediss:"),
        **given,
        **options,
    )
    return sentinel.master_for(config.service)


# ── The parts ──────────────────────────────────────────────────────────────────────


class RedisFacts(Facts):
    """The ``Facts`` in one hash."""

    def __init__(self, app: App, config: Config) -> None:
        super().__init__(app)
        self.redis = Redis(config)

    async def start(self) -> None:
        """See ``Redis.start``."""
        await self.redis.start()

    async def stop(self) -> None:
        """Disconnect."""
        await self.redis.stop()

    async def get(self, key: str) -> str:
        """See ``Facts``."""
        client, facts = self.redis.client, self.redis.key("facts")
        return str(await self.redis.ask(partial(client.hget, facts, key)) or "")

    async def set(self, key: str, value: str) -> None:
        """See ``Facts``."""
        await self.redis.call("fact", "", 0, key, value)

    async def swap(self, key: str, old: str, new: str) -> bool:
        """See ``Facts``."""
        return bool(await self.redis.call("fact", "", 0, key, new, old))


class RedisQueue(ListenedQueue, SharedQueue):
    """The ``Queue`` that several processes share."""

    shared = True
    finish_within_s = 2.0  # for the rest of the changes, at a stop
    again_s = 0.5  # before the changes are asked for again
    turn_s = 0.5  # until a request to Discord goes without an answer of Redis
    no_turns_s = 5.0  # after which Redis is asked again
    edit_s = 5.0  # until a request that is not urgent becomes so

    def __init__(self, app: App, config: Config) -> None:
        super().__init__(app)
        self.config = config
        self.redis = Redis(config)
        self.clock = ""  # Unix seconds in place of those of Redis, for tests
        # Of claims without an answer, by worker: the next ones ask for the same jobs.
        self._tokens = defaultdict[str, list[str]](list)
        self._withdrawing: set[asyncio.Task[None]] = set()
        self._read_to: dict[str, str] = {}  # the last entry that was read, by stream
        self._no_turns_until = 0.0  # by the loop's clock
        self._forgotten = asyncio.Queue[Job]()
        self._reading: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._staying: asyncio.Task[None] | None = None
        self._name = ""  # of a gateway

    async def start(self) -> None:
        """See ``Redis.start``."""
        await self.redis.start()
        if not self.redis.durable:
            logger.warning("{}: {}. {}", *dataclasses.astuple(NOT_DURABLE)[:3])
        # A process without commands only needs the signals.
        feeds: Sequence[str] = ("changes", "progress")
        if self.app.works and not self.app.has_gateway:
            feeds = ("signals",)
        for name in feeds:
            with explained():
                last = await self._ask("xrevrange", name, count=1)
            self._read_to[self.redis.key(name)] = last[0][0] if last else "0-0"
        if self.app.has_gateway:
            self._name = await asyncio.to_thread(own_name, self.app.settings.data_dir)
            with contextlib.suppress(OutOfReach):  # it is full
                if other := await self._other_gateway():
                    raise Away(
                        f"{other} is the gateway of this bot",
                        f"Stop it first. If it has died, wait {PLACE_S} seconds.",
                    )
            self._staying = asyncio.create_task(self._stay_gateway())
        self._reading = asyncio.create_task(self._read())
        self._sweeping = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """End ``changes``, and disconnect."""
        tasks = (self._reading, self._sweeping, self._staying, *self._withdrawing)
        for task in tasks:
            if task:
                task.cancel()
                await asyncio.wait([task])
        await self.redis.finish()
        for worker in [*self._tokens]:
            with contextlib.suppress(OutOfReach):
                await self._claim(worker, 0, slots=0)
        if self._staying:
            with contextlib.suppress(OutOfReach):
                if not await self._other_gateway():
                    await self._ask("delete", "gateway")
            self._staying = None
        if self._reading:
            with contextlib.suppress(OutOfReach, TimeoutError):
                async with asyncio.timeout(self.finish_within_s):
                    while await self._read_some(None):
                        pass
            self._reading = None
        self._end_changes()
        await self.redis.stop()

    async def _other_gateway(self) -> str:
        """The name of another gateway, "" when this process has that place."""
        if await self._ask("set", "gateway", self._name, nx=True, ex=PLACE_S):
            return ""
        holder = str(await self._ask("get", "gateway"))
        if holder == self._name:
            await self._ask("expire", "gateway", PLACE_S)
            return ""
        return one_line(holder[:100])

    async def _stay_gateway(self) -> None:
        """Keep the place of the gateway, and say when something is wrong with it."""
        wrong = ""
        while True:
            was = wrong
            with contextlib.suppress(OutOfReach):
                wrong = ""
                if other := await self._other_gateway():
                    wrong = f"{other} is a gateway of this bot, too: stop one of them"
                elif not self.app.works and not any(map(runs, await self.workers())):
                    wrong = "no worker is there: start python bossbot.py worker"
            if wrong and wrong != was:
                logger.warning("{}", wrong)
            await asyncio.sleep(PLACE_S / 3)

    async def health(self) -> str:
        """See ``Part``."""
        try:
            await self.redis.ask(self.redis.client.ping)
        except OutOfReach:
            return "Redis is out of reach"
        return ""

    async def _call(self, verb: str, *values: Any) -> Any:
        per_user = self.app.settings.max_concurrent_per_user
        return await self.redis.call(verb, self.clock, per_user, *values)

    async def _ask(self, command: str, name: str, *values: Any, **options: Any) -> Any:
        """Redis' answer to a command on a key."""
        method, key = getattr(self.redis.client, command), self.redis.key(name)
        return await self.redis.ask(partial(method, key, *values, **options))

    # The feed

    async def _read(self) -> None:
        """Pass on what the streams say, as long as the queue is open."""
        away = False
        while True:
            try:
                await self._read_some(1000)
                away = False
            except Exception as error:  # whatever it is, the next try may go well
                if not away:
                    why = error.__cause__ or error
                    text = f"{type(why).__name__} {why}"
                    log = logger.opt(exception=not isinstance(error, OutOfReach))
                    log.error("Redis is out of reach: {}", text)
                away = True
                await asyncio.sleep(self.again_s)

    async def _read_some(self, block_ms: int | None) -> bool:
        """Pass on the next entries, for which Redis waits so long; whether there were
        some. What is not passed on for an error is read again."""
        xread = self.redis.client.xread
        question = partial(xread, {**self._read_to}, count=PAGE, block=block_ms)
        found = await self.redis.ask(question, whole=False)
        for key, page in found:
            for number, row in page:
                if key == self.redis.key("forgotten"):
                    for job in jobs_of([{**row, "url": "-", "status": "cancelled"}]):
                        self._forgotten.put_nowait(job)
                else:
                    self._passed_on(row)
                self._read_to[key] = number
        return bool(found)

    def _passed_on(self, row: dict[str, str]) -> None:
        try:
            if "url" not in row:  # one of the signals
                row = {"url": "-", **row}
            progress = None
            if shown := row.pop("progress", ""):
                progress = known_progress(Progress(**json.loads(shown)))
            job = decode(row)
            previous = Status(before) if (before := row.get("previous")) else None
        except NONSENSE as error:  # else it would be read again and again
            is_wrong("a change", error)
            return
        if progress:
            self._pass_on(lambda: Change(decode(row), job.status, progress), True)
        else:
            self._pass_on(lambda: Change(decode(row), previous))

    async def forgotten(self) -> AsyncIterator[Job]:
        """See ``Queue``."""
        self._read_to.setdefault(self.redis.key("forgotten"), "0-0")
        while True:
            job = await self._forgotten.get()
            if await insist(partial(self.get, job.id), job, self.again_s) is None:
                yield job

    # What processes ask each other

    async def ask(
        self, worker: str, topic: str, text: str, within_s: float
    ) -> str | None:
        """See ``Queue``."""
        if not await self._is_there(worker):
            return None
        answer, loop = f"answer:{secrets.token_hex(8)}", asyncio.get_running_loop()
        asked, end_s = f"asked:{topic}:{worker}", loop.time() + within_s
        await self._push(asked, json.dumps([answer, text]), within_s)
        while (left_s := end_s - loop.time()) > 0:
            if (found := await self._pop([answer], min(left_s + 0.01, 1))) is not None:
                return found
        return None

    async def _is_there(self, name: str) -> bool:
        """Whether a worker, or the gateway, may answer."""
        if name == GATEWAY:
            return bool(await self._ask("exists", "gateway"))
        workers = await self.workers()
        return any(one.name == name and one.seen_s < SEEN_S for one in workers)

    async def questions(self, topic: str) -> AsyncIterator[Question]:
        """See ``Queue``."""
        while True:
            names = [self.app.worker.name] if self.app.worker.name else []
            names += [GATEWAY] * self.app.has_gateway
            if not names:  # a worker starts last
                await asyncio.sleep(self.again_s)
                continue
            try:
                found = await self._pop([f"asked:{topic}:{one}" for one in names])
                if found is not None:
                    answer, text = json.loads(found)
                    if not ANSWER.fullmatch(answer):  # another key of the queue
                        raise ValueError("it has no place for an answer")
                    push = partial(self._push, answer, within_s=ANSWER_S)
                    yield Question(str(text), push)
            except OutOfReach:
                await asyncio.sleep(self.again_s)
            except NONSENSE as error:
                is_wrong("a question", error)

    async def _push(self, name: str, text: str, within_s: float) -> None:
        """Append to a list, which goes after a while."""
        key, seconds = self.redis.key(name), math.ceil(within_s)
        await self.redis.ask_all([("rpush", key, text), ("expire", key, seconds)])

    async def _pop(self, names: Sequence[str], wait_s: float = 1) -> str | None:
        """The first of some lists, for which Redis waits a second at most."""
        blpop, keys = self.redis.client.blpop, [*map(self.redis.key, names)]
        found = await self.redis.ask(partial(blpop, keys, timeout=wait_s), whole=False)
        return str(found[1]) if found and len(found[1]) <= MAX_VALUE else None

    async def report(self, job: Job, progress: Progress) -> None:
        """See ``Queue``."""
        shown = {
            name: value
            for name in Progress.__slots__
            if (value := getattr(progress, name)) is not None
        }
        row = [text for pair in whole(job).items() for text in pair]
        await self._call("report", *row, "progress", json.dumps(shown))

    # The way of a job

    async def add(self, job: Job) -> int | None:
        """See ``Queue``."""
        settings, app = self.app.settings, self.app
        slots = settings.max_concurrent_downloads
        try:
            code, *rest = await self._call(
                "add",
                job.id,
                settings.max_queue_size,
                settings.max_concurrent_per_guild,
                0 if app.has_gateway and not app.works else slots,
                json.dumps(whole(job)),
            )
        except OutOfReach:  # Redis may come to it later
            task = asyncio.create_task(self._withdraw(job.id))
            self._withdrawing.add(task)
            task.add_done_callback(self._withdrawing.discard)
            raise
        if code == -1:
            text = _(
                "The queue is full: {count} links are waiting. Try again when some are "
                "done."
            )
            raise QueueFull(text.format(count=settings.max_queue_size))
        if code == -2:  # another job has its id
            raise OutOfReach(_(AWAY))
        if code == 0:
            return None
        job.position, job.joins = int(rest[0]), str(rest[1])
        return job.position

    async def _withdraw(self, job_id: str) -> None:
        """See that a link that was refused does not come after all, unless it has
        already begun."""
        while True:
            with contextlib.suppress(OutOfReach):
                return await self._call("withdraw", job_id)  # type: ignore[no-any-return]
            await asyncio.sleep(self.again_s)

    async def claim(self, worker: str, lease_s: float) -> Job | None:
        """See ``Queue``. What the bot would not have taken from a member ends."""
        while row := row_in(await self._claim(worker, lease_s)):
            try:
                return self._checked(decode(row))
            except (ValueError, Refused) as error:
                is_wrong("a job, which ends,", error)
                await self._end_wrong(row, worker)
        return None

    async def _claim(
        self, worker: str, lease_s: float, slots: int | None = None
    ) -> str:
        """The row of a claimed job, if there is one; with no ``slots`` there is none."""
        settings, unanswered = self.app.settings, self._tokens[worker]
        token = unanswered.pop() if unanswered else secrets.token_hex(8)
        try:
            return str(
                await self._call(
                    "claim",
                    worker,
                    token,
                    lease_s,
                    settings.max_concurrent_downloads if slots is None else slots,
                    settings.max_concurrent_per_guild,
                    bossbot.__version__,
                )
            )
        except BaseException:
            unanswered.append(token)
            raise

    def _checked(self, job: Job) -> Job:
        """A job whose link goes where the router says, as at intake."""
        route = self.app.router.route(job.url)
        engines = self.app.plugins.registered("engines")
        job.platform = route.platform
        if engines and job.engine not in engines:
            job.engine = route.engine
        return job

    async def _end_wrong(self, row: dict[str, str], worker: str) -> None:
        failed = JobFailed(Cause.INTERNAL, "its row in Redis is wrong")
        job = Job(id=row.get("id", ""), url="")
        job.status, job.cause, job.error = Status.FAILED, failed.cause, str(failed)
        job.detail, job.finished_at = failed.detail, now()
        number = row.get("claim_number", "")
        await self._call("finish", job.id, number, worker, fields(job, HELD))

    async def save(self, job: Job, lease_s: float) -> bool:
        """See ``Queue``."""
        return await self._store("save", job, lease_s, fields(job, HELD))

    async def keep(self, job: Job, lease_s: float) -> bool:
        """See ``Queue``."""
        return await self._store("keep", job, lease_s)

    async def _store(self, verb: str, job: Job, lease_s: float, *row: str) -> bool:
        claim = (job.id, job.claim_number, job.worker)
        until_s = await self._call(verb, *claim, lease_s, *row)
        job.lease_until = float(until_s or job.lease_until)
        return bool(until_s)

    async def release(self, job: Job, delay_s: float = 0) -> bool:
        """See ``Queue``."""
        job.status, job.position, job.lease_until = Status.QUEUED, 0, 0
        claim = (job.id, job.claim_number, job.worker)
        delay_s = min(delay_s, MAX_DELAY_S)
        due = await self._call("release", *claim, delay_s, fields(job, HELD))
        job.not_before = float(due or 0)
        return bool(due)

    async def finish(self, job: Job) -> bool:
        """See ``Queue``."""
        job.lease_until = 0
        job.finished_at = job.finished_at or now()
        claim = (job.id, job.claim_number, job.worker)
        return bool(await self._call("finish", *claim, fields(job, (*HELD, "joins"))))

    async def recover(self, worker: str, lease_s: float) -> Sequence[Job]:
        """See ``Queue``."""
        rows = await self._call("recover", worker, lease_s)
        return jobs_of(map(row_in, rows))

    # What others see and set

    async def find(self, job_ids: Sequence[str]) -> dict[str, Job]:
        """See ``Queue``."""
        return {job.id: job for job in jobs_of(await self.redis.rows(job_ids))}

    async def list(
        self,
        guild_id: int | None = None,
        statuses: Sequence[Status] = (),
        since: float = 0,
        limit: int = 0,
    ) -> list[Job]:
        """See ``Queue``."""
        wanted = set(statuses or Status)
        rows: list[dict[str, str]] = []
        if others := wanted.difference(TERMINAL_STATUSES):
            ids = await self._unfinished(guild_id, others <= CLAIMED)
            rows = await self.redis.rows([*ids])
        rows = [row for row in rows if row.get("status") in wanted]
        if ended := wanted.intersection(TERMINAL_STATUSES):
            key = "ended" if guild_id is None else f"ended:{guild_id}"
            found = 0
            async for row in self._pages(key, since, last_first=bool(limit)):
                if row.get("status") in ended:
                    rows.append(row)
                    found += 1
                    if found == limit:
                        break
        if guild_id is not None:
            rows = [row for row in rows if row.get("guild_id", "0") == str(guild_id)]
        return jobs_of(sorted(rows, key=number_of))

    async def _unfinished(
        self, guild_id: int | None = None, claimed: bool = False
    ) -> dict[str, int]:
        """The ids of unfinished jobs, with their numbers; or of those ``claimed``."""
        found: dict[str, int] = {}
        if claimed and guild_id is None:
            return dict.fromkeys(await self._ask("zrange", "leases", 0, -1), 0)
        guilds = (
            [guild_id]
            if guild_id is not None
            else await self._ask("smembers", "guilds")
        )
        lines = [
            f"{line}:{one}" for one in guilds for line in ("wait", "later", "busy")
        ]
        ranges = [
            ("zrange", self.redis.key(name), 0, -1, False, True) for name in lines
        ]
        for answer in await self.redis.ask_all(ranges):
            found.update((job_id, int(score) % STEP) for job_id, score in answer)
        return found

    async def _pages(
        self, name: str, since: float = 0, last_first: bool = False
    ) -> AsyncIterator[dict[str, str]]:
        """The rows of jobs in a set by the time of their end, a page at a time."""
        client, key = self.redis.client, self.redis.key(name)
        last, skip = (float("inf") if last_first else since), set[str]()
        while True:
            first, end = (last, since) if last_first else (last, "+inf")
            page = await self.redis.ask(
                partial(
                    client.zrange,
                    key,
                    first,
                    end,
                    desc=last_first,
                    byscore=True,
                    offset=0,
                    num=PAGE + len(skip),
                    withscores=True,
                )
            )
            new = [(job_id, at) for job_id, at in page if job_id not in skip]
            if not new:
                return
            for row in await self.redis.rows([job_id for job_id, _at in new]):
                if row:
                    yield row
            # Those that ended at the very time of the last one come again.
            if new[-1][1] != last:
                skip = set()
            last = new[-1][1]
            skip |= {job_id for job_id, at in new if at == last}

    def ended(self, since: float = 0) -> AsyncIterator[Job]:
        """See ``Queue``."""
        return self._jobs("ended", since)

    async def _jobs(self, name: str, since: float = 0) -> AsyncIterator[Job]:
        async for row in self._pages(name, since):
            for job in jobs_of([row]):
                yield job

    async def untold(self) -> AsyncIterator[Job]:
        """See ``Queue``."""
        numbers = await self._unfinished()
        ids = sorted(numbers, key=lambda job_id: numbers[job_id])
        for start in range(0, len(ids), PAGE):
            rows = await self.redis.rows(ids[start : start + PAGE])
            for job in jobs_of(row for row in rows if "told" not in row):
                if job.status not in TERMINAL_STATUSES:  # it comes below
                    yield job
        async for job in self._jobs("untold"):
            yield job

    async def set_told(self, job_ids: Sequence[str]) -> None:
        """See ``Queue``."""
        for start in range(0, len(job_ids), PAGE):
            await self._call("told", *job_ids[start : start + PAGE])

    async def position(self, job_id: str) -> int:
        """See ``Queue``."""
        return int(await self._call("position", job_id))

    async def move(self, job_id: str, priority: Priority) -> bool:
        """See ``Queue``."""
        return bool(await self._call("move", job_id, int(priority)))

    async def cancel(self, job_id: str, waiting_only: bool = False) -> Job | None:
        """See ``Queue``."""
        only = "1" if waiting_only else ""
        row = row_in(await self._call("cancel", job_id, self.clock or now(), only))
        return next(iter(jobs_of([row])), None)

    async def workers(self) -> Sequence[AtWork]:
        """See ``Queue``."""
        found = list[AtWork]()
        for row in await self._call("workers"):
            with contextlib.suppress(ValueError):  # anybody may have written it
                name, version, slots, running, seen = row
                counts = int(slots[:4] or 0), int(running), float(seen)
                found.append(
                    AtWork(one_line(name[:100]), one_line(version[:20]), *counts)
                )
        return found

    def may_lag(self, job: Job) -> bool:
        """See ``SharedQueue``."""
        return job.created_at < self.redis.met_at + CLOCKS_S

    async def take_turn(self, urgent: bool) -> None:
        """See ``Queue``. Without Redis there is no budget."""
        loop = asyncio.get_running_loop()
        hurry_at, again = loop.time() + self.edit_s, True
        while again and loop.time() >= self._no_turns_until:
            first = "1" if urgent or loop.time() >= hurry_at else ""
            try:
                async with asyncio.timeout(self.turn_s):
                    wait_s, again = await self._call(
                        "turn", self.config.requests_per_s, first
                    )
            except (OutOfReach, TimeoutError):
                self._no_turns_until = loop.time() + self.no_turns_s
                return
            await asyncio.sleep(float(wait_s))

    async def set_status_message(self, job_id: str, message_id: int) -> None:
        """See ``Queue``."""
        await self._call("set", job_id, "status_message_id", message_id or "")

    async def forget_files(self, job_id: str) -> None:
        """See ``Queue``."""
        await self._call("set", job_id, "folder", "")

    async def count(
        self, guild_id: int | None = None, user_id: int | None = None
    ) -> tuple[int, int]:
        """See ``Queue``."""
        count = size = 0
        async for row in self._of(guild_id, user_id):
            count += 1
            size += int(row.get("total_bytes", 0)) if row.get("folder") else 0
        return count, size

    async def forget(
        self, guild_id: int | None = None, user_id: int | None = None
    ) -> Sequence[Job]:
        """See ``Queue``."""
        ids: list[str] = []
        async for row in self._of(guild_id, user_id):
            if row.get("status") in TERMINAL_STATUSES:
                ids.append(row.get("id", ""))
            if len(ids) == PAGE:
                break
        rows = await self._call("remove", "1", *ids) if ids else []
        if ids:
            await self._forget_changes({*ids})
        return jobs_of(map(row_in, rows))

    async def _forget_changes(self, ids: set[str]) -> None:
        """Remove what the streams still say of jobs."""
        for name in ("changes", "progress"):
            first = "-"
            while page := await self._ask("xrange", name, min=first, count=PAGE):
                gone = [number for number, row in page if row.get("id") in ids]
                if gone:
                    await self._ask("xdel", name, *gone)
                first = f"({page[-1][0]}"

    async def _of(
        self, guild_id: int | None, user_id: int | None
    ) -> AsyncIterator[dict[str, str]]:
        """The rows of a guild, a member, or a member in a guild."""
        ids: list[str] = []
        if user_id is None:
            ids = [*await self._unfinished(guild_id)]
            key = "ended" if guild_id is None else f"ended:{guild_id}"
            ids += await self._ask("zrange", key, 0, -1)
        else:
            for name in ("waits", "member"):
                ids += await self._ask("zrange", f"{name}:{user_id}", 0, -1)
        for start in range(0, len(ids), PAGE):
            for row in await self.redis.rows(ids[start : start + PAGE]):
                guild = str(guild_id) if guild_id is not None else None
                if row and guild in (None, row.get("guild_id", "0")):
                    yield row

    async def _sweep(self) -> None:
        """Remove rows that are old, now and every hour, in one process of all."""
        while True:
            with logger.catch(message="old rows of the queue could not be removed"):
                mine = True
                with contextlib.suppress(OutOfReach):  # it is full, and needs it most
                    mine = await self._ask(
                        "set", "sweep", "1", nx=True, ex=int(SWEEP_S / 2)
                    )
                if mine:
                    await self._remove_old(now() - self.config.keep_s)
            await asyncio.sleep(SWEEP_S)

    async def _remove_old(self, before: float) -> None:
        kept = 0  # those before it have files
        while True:
            ids = await self._ask(
                "zrange", "ended", 0, before, byscore=True, offset=kept, num=PAGE
            )
            if not ids:
                return
            kept += len(ids) - len(await self._call("remove", "", *ids))


def runs(worker: AtWork) -> bool:
    """Whether it runs, as far as is known."""
    return worker.slots > 0 and worker.seen_s < PLACE_S


def number_of(row: Mapping[str, str]) -> int:
    """A job's number in the order in which they came."""
    seq = row.get("seq", "")
    return int(seq) if seq.isdecimal() else 0
