"""The queue in Redis and the one in SQLite, side by side: every step is done in both, and
what they say, keep and tell must be the same. Also what must hold in Redis at any time."""

import asyncio
import copy
import dataclasses
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from conftest import make_job
from discord_support import module

import bossbot
from bossbot import ATTEMPT_STATUSES, TERMINAL_STATUSES, Cause, Job, Priority, Status

STEP = 2**45
LEASE_S = 1e6  # none ends while they are compared
CLAIMED = (*ATTEMPT_STATUSES, Status.UPLOADING)
CAUSES = (Cause.GONE, Cause.PERMISSION, Cause.CANCELLED, Cause.NETWORK)
LINES = ("wait", "later", "busy", "waits", "member", "joined", "held", "ended")
COUNTS = ("running", "slots", "downloading", "processing")
SETS = ("untold", "ended", "leases", "delayed")


class TwoQueues:
    """Both, empty; ``do`` does one step in both."""

    def __init__(self, app: bossbot.App, prefix: str) -> None:
        self.app = app
        self.redis: Any = app.queue
        self.redis.redis.prefix = f"{{{prefix}}}:"
        self.sqlite: Any = app.plugins.all["sqlite_queue"].parts["queue"](app)
        self.time_s = 1000.0
        self.jobs: list[Job] = []  # that were added
        self.claims: list[tuple[Job, Job]] = []  # all that there were, old ones too
        self.told: list[Any] = []
        self.last = "0-0"
        self.sqlite._pass_on = lambda change, lossy=False: self.told.extend(
            told
            for told in [change()]
            if told  # else it only wakes a listener
        )
        self.calls: list[tuple[Any, ...]] = []  # of the script, with its answers
        ask = type(self.redis.redis).call

        async def call(*values: Any) -> Any:
            answer = await ask(self.redis.redis, *values)
            self.calls.append((values, plain(answer)))
            return answer

        self.redis.redis.call = call
        for name in ("sqlite_queue", "redis_queue"):
            module(name).now = lambda: self.time_s

    async def empty(self) -> None:
        await self.app.database.all("DELETE FROM jobs")

    async def both(self, ask: Callable[[Any, int], Any]) -> tuple[Any, Any]:
        """What both say to a question: the queue, and which it is."""
        self.redis.clock = repr(self.time_s)
        answers = []
        for number, queue in enumerate((self.sqlite, self.redis)):
            try:
                answers.append(await ask(queue, number))
            except bossbot.QueueFull as error:
                answers.append(str(error))
        return answers[0], answers[1]

    async def do(self, name: str, *numbers: int) -> None:
        """A step by its name and numbers that say with what.

        Raises:
            AssertionError: they do not agree.
        """
        self.time_s += 0.5
        step = getattr(self, name)
        sqlite, redis = await step(*numbers)
        assert sqlite == redis, (name, numbers, sqlite, redis)
        await self.compare(in_order=name != "recover")

    # The steps

    async def add(self, a: int, b: int, c: int) -> tuple[Any, Any]:
        job = make_job(
            guild_id=a % 3,
            user_id=b % 3,
            channel_id=c % 2,
            priority=Priority((a + c) % 3),
            same=("", "", "x", "y")[(b + c) % 4],
            created_at=self.time_s,
        )
        self.jobs.append(job)
        return await self._add(job)

    async def _add(self, job: Job) -> tuple[Any, Any]:
        jobs = copy.deepcopy(job), copy.deepcopy(job)
        places = await self.both(lambda queue, n: queue.add(jobs[n]))
        if isinstance(places[0], str):  # refused
            jobs = job, job
        return (places[0], jobs[0]), (places[1], jobs[1])

    async def add_again(self, a: int, b: int, c: int) -> tuple[Any, Any]:
        if not self.jobs:
            return None, None
        job = self.jobs[a % len(self.jobs)]
        if b % 2:  # the same request by another job
            job = dataclasses.replace(job, id=make_job().id)
        places, _ = zip(*await self._add(job), strict=True)
        return places

    async def claim(self, a: int, b: int, c: int) -> tuple[Any, Any]:
        first, second = await self.both(lambda queue, n: queue.claim("me", LEASE_S))
        if first and second:
            self.claims.append((first, second))
        return copy.deepcopy(first), copy.deepcopy(second)

    async def _held(self, a: int, act: Callable[[Any, Job], Any]) -> tuple[Any, Any]:
        """What the holder of a claim does, of the last ones rather than of old ones."""
        if not self.claims:
            return None, None
        pair = self.claims[-1 - a % len(self.claims)]
        answers = await self.both(lambda queue, n: act(queue, pair[n]))
        jobs = copy.deepcopy(pair) if answers[0] else (None, None)  # it was lost
        return (answers[0], jobs[0]), (answers[1], jobs[1])

    async def save(self, a: int, b: int, c: int) -> tuple[Any, Any]:
        async def act(queue: Any, job: Job) -> Any:
            job.status, job.facts = CLAIMED[b % 3], {"title": str(c)}
            return await queue.save(job, LEASE_S + c)

        return await self._held(a, act)

    async def keep(self, a: int, b: int, c: int) -> tuple[Any, Any]:
        return await self._held(a, lambda queue, job: queue.keep(job, LEASE_S + b))

    async def release(self, a: int, b: int, c: int) -> tuple[Any, Any]:
        delay_s = (0, 3, 30)[b % 3]
        return await self._held(a, lambda queue, job: queue.release(job, delay_s))

    async def finish(self, a: int, b: int, c: int) -> tuple[Any, Any]:
        async def act(queue: Any, job: Job) -> Any:
            job.status = TERMINAL_STATUSES[b % 3]
            job.cause = CAUSES[c % 4] if job.status is not Status.COMPLETED else None
            job.error, job.finished_at, job.total_bytes = f"error {c}", 0, c
            job.folder = f"some/{job.id}" if c % 2 else ""
            return await queue.finish(job)

        return await self._held(a, act)

    async def _of_one(self, a: int, act: Callable[[Any, str], Any]) -> tuple[Any, Any]:
        if not self.jobs:
            return None, None
        job_id = self.jobs[a % len(self.jobs)].id
        return await self.both(lambda queue, n: act(queue, job_id))

    async def cancel(self, a: int, b: int, c: int) -> tuple[Any, Any]:
        return await self._of_one(a, lambda queue, one: queue.cancel(one, b % 2 == 1))

    async def move(self, a: int, b: int, c: int) -> tuple[Any, Any]:
        return await self._of_one(
            a, lambda queue, one: queue.move(one, Priority(b % 3))
        )

    async def mark(self, a: int, b: int, c: int) -> tuple[Any, Any]:
        async def act(queue: Any, one: str) -> None:
            await queue.set_status_message(one, b)
            if c % 2:
                await queue.forget_files(one)
            else:
                await queue.set_told([one, "nobody"])

        return await self._of_one(a, act)

    async def recover(self, a: int, b: int, c: int) -> tuple[Any, Any]:
        pair = await self.both(lambda queue, n: queue.recover("me", LEASE_S))
        first, second = (sorted(jobs, key=lambda job: job.id) for jobs in pair)
        self.claims += zip(first, second, strict=True)
        return copy.deepcopy(first), copy.deepcopy(second)

    async def forget(self, a: int, b: int, c: int) -> tuple[Any, Any]:
        guild, user = (None, a % 3), (b % 3, None)
        which = [(guild[1], None), (None, user[0]), (a % 3, b % 3)][c % 3]

        async def act(queue: Any, n: int) -> Any:
            counted = await queue.count(*which)
            return counted, sorted(job.id for job in await queue.forget(*which))

        return await self.both(act)

    async def wait(self, a: int, b: int, c: int) -> tuple[Any, Any]:
        self.time_s += (1, 5, 40)[a % 3]
        return None, None

    # The comparison

    async def compare(self, in_order: bool = True) -> None:
        sqlite, redis = await self.both(lambda queue, n: queue.list())
        assert sqlite == redis
        waiting = [job for job in redis if job.status is Status.QUEUED]
        first, second = await self.both(partial(positions_of, waiting))
        assert first == second, waiting
        first, second = await self.both(untold_of)
        assert first == second
        entries = await self.redis.redis.client.xrange(
            self.redis.redis.key("changes"), min=f"({self.last}"
        )
        new = [
            (row.get("previous") or None, module("redis_queue").decode(row))
            for _, row in entries
        ]
        old = [(change.previous, change.job) for change in self.told]
        if not in_order:
            new, old = (sorted(some, key=lambda one: one[1].id) for some in (new, old))
        assert [tuple(one) for one in old] == new
        self.told.clear()
        self.last = entries[-1][0] if entries else self.last
        await check_structure(self.redis)


async def positions_of(jobs: list[Job], queue: Any, number: int) -> list[int]:
    return await asyncio.gather(*(queue.position(job.id) for job in jobs))


async def untold_of(queue: Any, number: int) -> set[str]:
    return {job.id async for job in queue.untold()}


def plain(answer: Any) -> Any:
    """A script's answer, with rows as tables."""
    if isinstance(answer, str) and answer[:1] == "{":
        return json.loads(answer)
    return [plain(one) for one in answer] if isinstance(answer, list) else answer


async def check_structure(queue: Any) -> None:
    """Every key follows from the jobs, and there is no other one."""
    client, prefix = queue.redis.client, queue.redis.prefix
    keys = [
        key.removeprefix(prefix) async for key in client.scan_iter(f"{prefix}*", 1000)
    ]
    wanted: dict[str, dict[str, float]] = defaultdict(dict)
    counts: dict[str, Counter[str]] = {name: Counter() for name in COUNTS}
    requests, same, waiting = {}, defaultdict(list), 0
    ids = [key.removeprefix("job:") for key in keys if key.startswith("job:")]
    rows = await queue.redis.rows(ids)
    now_s = float(queue.clock)
    delayed = await client.zrange(f"{prefix}delayed", 0, -1)
    for row in sorted(rows, key=lambda row: int(row["seq"])):
        job_id, status, seq = row["id"], row["status"], float(row["seq"])
        guild, user = row.get("guild_id", "0"), row.get("user_id", "0")
        joins, worker = row.get("joins", ""), row.get("worker", "")
        requests[row["request_key"]] = job_id
        if status in TERMINAL_STATUSES:
            at = float(row["finished_at"])
            wanted[f"member:{user}"][job_id] = seq
            wanted["ended"][job_id] = wanted[f"ended:{guild}"][job_id] = at
            if "told" not in row:
                wanted["untold"][job_id] = at
            continue
        if joins:
            wanted[f"joined:{joins}"][job_id] = seq
        elif row.get("same"):
            same[row["same"]].append(job_id)
        if status == "queued" and not joins:
            waiting += 1
            score = (2 - int(row["priority"])) * STEP + seq
            due = float(row.get("not_before", 0))
            late = job_id in delayed
            assert late or due < now_s
            wanted[f"{'later' if late else 'wait'}:{guild}"][job_id] = score
            if late:
                wanted["delayed"][job_id] = due
            wanted[f"waits:{user}"][job_id] = seq
        else:
            wanted[f"busy:{guild}"][job_id] = seq
            wanted[f"member:{user}"][job_id] = seq
        if status in CLAIMED:
            wanted[f"held:{worker}"][job_id] = seq
            wanted["leases"][job_id] = float(row.get("lease_until", 0))
        if status == "downloading":
            counts["running"][guild] += 1
            counts["slots"][worker] += 1
            counts["downloading"][user] += 1
        elif status == "processing":
            counts["processing"][user] += 1
    per_user = queue.app.settings.max_concurrent_per_user
    users = {row["id"]: row.get("user_id", "0") for row in rows}
    of = {row["id"]: row for row in rows}
    for key in [key for key in wanted if key.startswith("wait:")]:
        guild = key.removeprefix("wait:")
        for job_id, score in sorted(wanted[key].items(), key=lambda item: item[1]):
            busy = [counts[name][users[job_id]] for name in COUNTS[2:]]
            if max(busy) < per_user:
                running = counts["running"][guild]
                ready = f"ready:{of[job_id]['priority']}"
                wanted[ready][guild] = running * STEP + score % STEP
                break
    kinds = (*LINES, "ready", *SETS)
    sets = [key for key in keys if key.partition(":")[0] in kinds]
    async with client.pipeline(transaction=False) as pipeline:
        for key in sets:
            pipeline.zrange(prefix + key, 0, -1, withscores=True)
        for name in (*COUNTS, "requests", "same"):
            pipeline.hgetall(prefix + name)
        pipeline.get(f"{prefix}waiting")
        pipeline.smembers(f"{prefix}guilds")
        *answers, told_waiting, told_guilds = await pipeline.execute()
    found = {key: dict(scores) for key, scores in zip(sets, answers, strict=False)}
    *told_counts, told_requests, told_same = answers[len(sets) :]
    wrong = {
        key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)
    }
    assert not wrong, [(key, found.get(key), wanted.get(key)) for key in wrong]
    for name, held in zip(COUNTS, told_counts, strict=True):
        assert held == {k: str(v) for k, v in counts[name].items()}, name
    assert told_requests == requests
    leaders = {name: ",".join(some) for name, some in same.items()}
    assert told_same == leaders
    assert int(told_waiting or 0) == waiting
    guilds = {
        r.get("guild_id", "0") for r in rows if r["status"] not in TERMINAL_STATUSES
    }
    assert set(told_guilds) == guilds


STEPS: Sequence[str] = (
    *("add", "add", "add", "claim", "claim", "save", "save", "finish", "finish"),
    *("release", "cancel", "move", "keep", "wait", "add_again", "mark", "recover"),
    "forget",
)


# What is known of a script, played again to another one


class Record:
    """Calls of the script, with what the right one answers and what it leaves."""

    def __init__(self, url: str, script: str) -> None:
        import redis

        self.client: Any = redis.Redis.from_url(url, db=1, decode_responses=True)
        self.script = script
        self.calls: list[tuple[tuple[Any, ...], Any]] = []
        self.left: Any = None

    def play(self, calls: Sequence[tuple[Any, ...]], script: str = "") -> list[Any]:
        """What a script answers, from an empty Redis; errors are answers, too."""
        self.client.flushdb()
        sha = self.client.script_load(f"#!lua flags=allow-oom\n{script or self.script}")
        answers: list[Any] = []
        with self.client.pipeline(transaction=False) as pipeline:
            for call in calls:
                pipeline.evalsha(sha, 1, "{x}:", *call)
            answers = pipeline.execute(raise_on_error=False)
        return [
            str(one)[:20] if isinstance(one, Exception) else plain(one)
            for one in answers
        ]

    def keep(self, calls: Sequence[tuple[Any, ...]]) -> None:
        """Remember calls by what they say and leave now."""
        self.calls = list(zip(calls, self.play(calls), strict=True))
        self.left = self.rest()

    def walk(self, seed: int, steps: int) -> None:
        """Remember a long way that is crowded with old claims."""
        chance, claims, calls = random.Random(seed), [], list[tuple[Any, ...]]()
        self.client.flushdb()
        sha = self.client.script_load(f"#!lua flags=allow-oom\n{self.script}")
        for at in range(1, steps):
            one, two = f"{at // 5 - chance.randrange(10)}", chance.randrange(12)
            verbs = "add add claim claim save save finish release cancel move position"
            verb = chance.choice([*verbs.split(), "told", "remove", "recover", "keep"])
            call: tuple[Any, ...] = ()
            claim = (
                claims[-1 - min(chance.randrange(8), len(claims) - 1)] if claims else ()
            )
            if verb == "add":
                fields = {"id": one, "status": "queued", "request_key": one}
                fields |= {"guild_id": f"{two % 3}", "user_id": f"{two % 4}"}
                fields |= {"priority": f"{chance.randrange(3)}", "created_at": f"{at}"}
                fields |= {"channel_id": f"{two % 2}", "same": "xy"[two % 2]}
                if chance.random() < 0.6:
                    del fields["same"]
                call = (one + "+" * (two == 5), 4, 2, 4, json.dumps(fields))
            elif verb == "claim":
                call = ("me", f"token {at}", 1e6, 4, 2, "1")
            elif verb in ("cancel", "move"):
                call = (
                    (one, at, "1" * (two % 2)) if verb == "cancel" else (one, two % 3)
                )
            elif verb in ("position", "told", "remove"):
                call = ("1" * (two % 2), one) if verb == "remove" else (one,)
            elif verb == "recover":
                call = ("me", 1e6) if two == 1 else ()
            elif claim and verb == "keep":
                call = (*claim, 1e6)
            elif claim and verb == "save":
                status = ("processing", "uploading", "downloading")[two % 3]
                fields = {"status": status, "facts": f"{at}"}
                call = (*claim, 1e6, json.dumps(fields))
            elif claim and verb == "release":
                call = (*claim, (0, 3, 30)[two % 3], json.dumps({"facts": f"{at}"}))
            elif claim:
                how = [("completed", ""), ("failed", "gone"), ("failed", "quota")][
                    two % 3
                ]
                fields = {"status": how[0], "cause": how[1], "finished_at": f"{at}"}
                fields |= {"folder": "kept" * (two % 2), "facts": f"{at}"}
                call = (*claim, json.dumps(fields))
            if call:
                calls.append((verb, at, 2, *call))
                answer = self.client.evalsha(sha, 1, "{x}:", *calls[-1])
                if verb == "claim" and answer:
                    row = json.loads(answer)
                    claims.append((row["id"], row["claim_number"], "me"))
        self.keep(calls)

    def rest(self) -> Any:
        """The jobs, and what was told."""
        keys = sorted(self.client.scan_iter("{x}:job:*"))
        told = self.client.xrange("{x}:changes")
        untold = self.client.zrange("{x}:untold", 0, -1)
        jobs = [self.client.hgetall(key) for key in keys]
        return jobs, [row for _, row in told], untold

    def catches(self, script: str) -> bool:
        """Whether another script is found out."""
        for start in sorted({min(200, len(self.calls)), len(self.calls)}):  # most, soon
            some = self.calls[:start]
            if self.play([call for call, _ in some], script) != [a for _, a in some]:
                return True
        return bool(self.rest() != self.left)
