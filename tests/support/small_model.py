"""Every state that two jobs and two workers can come to, in Redis and as a few lines say
that it must be. By hand, as deep as one has patience:

    PYTHONPATH=.:tests:tests/support python tests/support/small_model.py 8
"""

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

SCRIPT = Path(__file__).parents[2] / "plugins/parts/_redis_queue.lua"
WORKERS = ("v", "w")
LEASE_S = 100
BATCH = 100  # ways that are gone at once
CLAIMED = ("downloading", "processing", "uploading")


class One(NamedTuple):
    """A job."""

    name: str
    status: str = "queued"
    worker: str = ""
    number: int = 0
    attempts: int = 0
    joins: bool = False  # the other one
    late: bool = False  # its lease has ended


class State(NamedTuple):
    jobs: tuple[One, ...] = ()  # in the order in which they came
    # The last claim of each worker, whether it still holds or not: job and number.
    claims: tuple[tuple[str, int], ...] = (("", 0), ("", 0))
    asked: tuple[tuple[str, int], ...] = (("", 0), ("", 0))  # without "recover"


def after(state: State, verb: str, which: str, same: bool) -> tuple[State, Any]:
    """What a step makes of a state, and what the queue must answer."""
    jobs = {job.name: job for job in state.jobs}
    claims = dict(zip(WORKERS, state.claims, strict=True))
    asked = dict(zip(WORKERS, state.asked, strict=True))
    answer: Any = None

    def end(job: One, status: str) -> None:
        jobs[job.name] = job._replace(status=status, late=False)
        for other in jobs.values():
            if other.joins and other.status == "queued":
                if status == "completed":
                    jobs[other.name] = other._replace(status=status)
                else:
                    jobs[other.name] = other._replace(joins=False)

    def give_back(job: One) -> None:
        jobs[job.name] = job._replace(status="queued", worker="", late=False)

    def held(of: dict[str, tuple[str, int]]) -> One | None:
        name, number = of[which]
        job = jobs.get(name)
        mine = job and (job.worker, job.number) == (which, number)
        return job if job and mine and job.status in CLAIMED else None

    if verb == "add":
        leads = same and any(j.status in ("queued", *CLAIMED) for j in jobs.values())
        jobs.setdefault(which, One(which, joins=leads))
        answer = 1
    elif verb == "late":
        for job in [*jobs.values()]:
            if job.status in CLAIMED:
                jobs[job.name] = job._replace(late=True)
    elif verb == "again" and (job := held(asked)):
        answer = job.name, job.number
    elif verb in ("claim", "again"):
        for job in [*jobs.values()]:
            if job.late:
                give_back(job)
        full = any(j.worker == which and j.status == CLAIMED[0] for j in jobs.values())
        waiting = [j for j in jobs.values() if j.status == "queued" and not j.joins]
        asked[which] = "", 0
        if waiting and not full:
            job, number = waiting[0], waiting[0].number + 1
            jobs[job.name] = One(job.name, CLAIMED[0], which, number, job.attempts + 1)
            claims[which] = asked[which] = answer = job.name, number
    elif verb == "cancel":
        job = jobs.get(which)
        answer = bool(job and job.status in ("queued", *CLAIMED[:2]))
        if job and answer:
            end(job._replace(number=job.number + 1), "cancelled")
    elif verb == "recover":
        answer = []
        for job in [*jobs.values()]:
            if job.worker == which and job.status == "uploading":
                jobs[job.name] = job._replace(number=job.number + 1, late=False)
                answer.append(job.name)
                claims[which] = job.name, job.number + 1
            elif job.worker == which and job.status in CLAIMED:
                give_back(job)
    else:  # of a claim's holder
        job = held(claims)
        answer = bool(job)
        if job and verb == "release":
            jobs[job.name] = job._replace(status="queued", late=False)
        elif job and verb == "finish":
            end(job, "completed")
        elif job and verb == "keep":
            jobs[job.name] = job._replace(late=False)
        elif job:
            jobs[job.name] = job._replace(status=verb, late=False)
    last = (tuple(of[w] for w in WORKERS) for of in (claims, asked))
    return State((*jobs.values(),), *last), answer


def steps(state: State) -> Iterator[tuple[str, str]]:
    """What may be done in a state."""
    yield from itertools.product(("add", "cancel"), "ab")
    yield from itertools.product(("claim", "recover"), WORKERS)
    yield "late", ""
    for worker, claim in zip(WORKERS, state.claims, strict=True):
        if claim[0]:
            verbs = ("again", "keep", "processing", "uploading", "release", "finish")
            yield from ((verb, worker) for verb in verbs)


class Way(NamedTuple):
    """How a state is come to."""

    state: State = State()
    calls: tuple[tuple[Any, ...], ...] = ()
    time_s: int = 1
    tokens: tuple[int, ...] = (0, 0)  # of each worker's last claim

    def call(self, verb: str, which: str, same: bool) -> tuple[Any, ...]:
        """The step as the script's arguments."""
        start = (self.time_s, 9)
        if verb == "add":
            row = {"id": which, "status": "queued", "priority": "1"}
            row |= {"request_key": which, **({"same": "x"} if same else {})}
            return ("add", *start, which, 9, 9, 9, json.dumps(row))
        if verb == "cancel":
            return ("cancel", *start, which, self.time_s, "")
        if verb == "recover":
            return ("recover", *start, which, LEASE_S)
        place = WORKERS.index(which)
        if verb in ("claim", "again"):
            token = self.tokens[place] if verb == "again" else self.time_s
            return ("claim", *start, which, token, LEASE_S, 1, 9, "")
        claim = (*self.state.claims[place], which)
        if verb == "finish":
            return ("finish", *start, *claim, '{"status": "completed"}')
        if verb == "release":
            return ("release", *start, *claim, 0, "{}")
        fields = () if verb == "keep" else (json.dumps({"status": verb}),)
        name = "keep" if verb == "keep" else "save"
        return (name, *start, *claim, LEASE_S, *fields)

    def go(self, verb: str, which: str, same: bool, state: State) -> "Way":
        if verb == "late":
            return self._replace(state=state, time_s=self.time_s + LEASE_S + 1)
        tokens = [*self.tokens]
        if verb == "claim":
            tokens[WORKERS.index(which)] = self.time_s
        call = self.call(verb, which, same)
        return Way(state, (*self.calls, call), self.time_s + 1, (*tokens,))


def said(verb: str, answer: Any) -> Any:
    """The script's answer in the words above."""
    if verb == "add":
        return answer[0]
    if verb in ("claim", "again"):
        row = json.loads(answer or "{}")
        return (row["id"], int(row["claim_number"])) if row else None
    if verb == "recover":
        return [json.loads(row)["id"] for row in answer]
    return bool(answer)


FIELDS = ("status", "worker", "claim_number", "attempts")


def explore(client: Any, depth: int, same: bool, script: str = "") -> int:
    """Go every way of so many steps; returns how many steps were compared.

    Raises:
        AssertionError: Redis is not in the state that it should be in.
    """
    sha = client.script_load(script or f"#!lua flags=allow-oom\n{SCRIPT.read_text()}")
    known, front, compared = {State()}, [Way()], 0
    for _ in range(depth):
        client.flushdb()
        new: list[Way] = []
        tried = [
            (w, v, k, *after(w.state, v, k, same))
            for w in front
            for v, k in steps(w.state)
        ]
        for start in range(0, len(tried), BATCH):
            with client.pipeline(transaction=False) as pipeline:
                for number, (way, verb, which, state, _) in enumerate(
                    tried[start:][:BATCH]
                ):
                    prefix, calls = (
                        f"{{{start + number}}}:",
                        way.go(verb, which, same, state).calls,
                    )
                    for call in calls:
                        pipeline.evalsha(sha, 1, prefix, *call)
                    for job in state.jobs:
                        pipeline.hmget(f"{prefix}job:{job.name}", FIELDS)
                answers = iter(pipeline.execute())
            for way, verb, which, state, answer in tried[start:][:BATCH]:
                calls = way.go(verb, which, same, state).calls
                *_, last = [next(answers) for _ in calls] or [None]
                if verb != "late":
                    assert said(verb, last) == answer, (calls, last, answer)
                for job in state.jobs:
                    status, worker, number, attempts = next(answers)
                    found = (status, worker or "", int(number or 0), int(attempts or 0))
                    assert found == job[1:5], (calls, found, job)
                compared += 1
                if state not in known:
                    known.add(state)
                    new.append(way.go(verb, which, same, state))
        front = new
    return compared


if __name__ == "__main__":
    import redis
    from redis_support import own_redis

    for same in (False, True):
        with own_redis() as server:
            client = redis.Redis.from_url(server.url, decode_responses=True)
            print(explore(client, int(sys.argv[1]), same), "steps, no disagreement")
