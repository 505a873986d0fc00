"""The status message that the links of one request share."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from bossbot_plugins._jobs import UNFINISHED
from bossbot_plugins._shared import AtWork
from bossbot_plugins.progress import (
    MAX_CONTENT,
    Group,
    Tracker,
    buttons_of,
    group_key,
    render,
    render_all,
    stuck_in,
)
from conftest import SUPPORT_PLUGINS, make_job
from discord_support import (
    Stage,
    job_at,
    job_ids,
    link,
    module,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from bossbot import SENTENCES, Cause, Job, OutOfReach, Progress, Status

pytest_plugins = ("discord_fixtures",)

DOORS = pytest.mark.parametrize("door", ["$", "/"])


async def ask(stage: Stage, door: str, *links: str) -> int:
    words = " ".join(links)
    if door == "$":
        return (await stage.says(f"$download {words}")).id
    return await stage.fake.slash(stage.channel_id, "download", {"url": words})


@DOORS
async def test_links_of_a_request_share_one_message(stage: Stage, door: str) -> None:
    links = [
        link("wait=gate", stage.image(1)),
        link("fail=gone"),
        link("fail=private"),
        link(stage.image(2)),
    ]
    async with stage.bot() as bot:
        await ask(stage, door, *links)
        status = await stage.hears("Download", "(gone)", "(private)", "Done in")
        lines = status.content.split("\n")
        stored = await bot.app.queue.list()
        assert job_ids(status) == [job.id for job in stored]
        assert lines[0].startswith(("Downloading", "Download started"))
        assert f"<{links[0]}>" in lines[0]
        assert lines[1].startswith("**Download failed** (gone) · `")
        assert lines[2] == SENTENCES[Cause.GONE]
        assert lines[3].startswith("**Download failed** (private) · `")
        assert lines[4] == SENTENCES[Cause.PRIVATE]
        assert lines[5].startswith("Done in ") and ": 1 file · `" in lines[5]
        stage.open_gate("gate")
        await stage.fake.wait_for(lambda: status.content.count("Done in") == 2)
        stored = await bot.app.queue.list()
        assert {job.status_message_id for job in stored} == {status.id}
    assert len(stage.said()) == 3  # and two pictures
    if door == "/":  # nothing to reply to that stays
        assert all(m.replied_to is None for m in stage.posted())


async def test_message_of_several_links_is_edited_once_in_its_interval(
    stage: Stage,
) -> None:
    links = [link(f"wait={n}", stage.image(n)) for n in range(1, 6)]
    async with stage.bot(edit_interval_s=3, max_concurrent_downloads=5):
        await ask(stage, "$", *links)
        status = await stage.hears("Download started")
        stage.open_gate("1")
        await stage.fake.wait_for(lambda: status.content.count("Done in") == 1)
        for number in range(2, 6):
            stage.open_gate(str(number))
            await stage.gets(number)
        await stage.fake.wait_for(lambda: status.content.count("Done in") == 5)
    times = [r.at for r in stage.fake.requests if r.kind in ("edit", "send")]
    gaps = [b - a for a, b in pairwise(times)]
    assert min(gaps) > 1.5 and len(gaps) <= 3, gaps
    assert len(stage.said()) == 6


@DOORS
async def test_quick_links_end_at_once_and_with_one_edit(
    stage: Stage, door: str
) -> None:
    async with stage.bot(edit_interval_s=60):
        await ask(stage, door, link(stage.image(1)), link("fail=gone"))
        status = await stage.hears("Done in", "(gone)")
    assert len(status.versions) == 2
    assert [r.kind for r in stage.fake.requests].count("edit") == 1


async def test_progress_gives_way_while_discord_holds_the_bot_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = asyncio.get_running_loop().time
    async with stage.bot(edit_interval_s=1):
        progress = module("progress")
        room_at_s = progress.tracker.room_at_s = clock() + 2
        await ask(stage, "$", link(stage.image(1), "wait=gate"))
        await stage.hears("Downloading")
        monkeypatch.setattr(progress, "HELD_BACK_S", 0)  # as if each write were
        stage.open_gate("gate")
        await stage.hears("Done in")  # the end does not wait
        assert progress.tracker.room_at_s > clock() + 1
    assert next(r.at for r in stage.fake.requests if r.kind == "edit") >= room_at_s


async def test_message_that_discord_has_refused_is_not_looked_for(stage: Stage) -> None:
    stage.fake.fault("send", 429, times=6, retry_after_s=0.01)  # more than are tried
    async with stage.bot(edit_interval_s=0.1):
        await ask(stage, "$", link("fail=gone"))
        await stage.hears("(gone)")
    assert "history" not in [r.kind for r in stage.fake.requests]


async def test_end_of_a_late_link_waits_for_its_time(stage: Stage) -> None:
    stage.copy_plugin(SUPPORT_PLUGINS / "slow.py", PART="image-2")
    async with stage.bot(edit_interval_s=3):
        await ask(stage, "$", link(stage.image(1)), link(stage.image(2)))
        status = await stage.hears("Done in")
        module("slow").may_go_on.set()
        await stage.fake.wait_for(lambda: status.content.count("Done in") == 2)
    first, second = [r.at for r in stage.fake.requests if r.kind == "edit"]
    assert second - first > 1.5


async def test_late_link_comes_into_the_message_of_its_request(stage: Stage) -> None:
    """The others have ended before it is taken in."""
    stage.copy_plugin(SUPPORT_PLUGINS / "slow.py", PART="image-2")
    async with stage.bot():
        await ask(stage, "$", link(stage.image(1)), link(stage.image(2)))
        status = await stage.hears("Done in")
        module("slow").may_go_on.set()
        await stage.fake.wait_for(lambda: status.content.count("Done in") == 2)
        await stage.gets(2)
    assert len(stage.said()) == 3


async def test_link_that_comes_while_the_end_is_being_stored_is_shown(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storing, go = asyncio.Event(), asyncio.Event()
    async with stage.bot(edit_interval_s=0.1) as bot:
        set_told = bot.app.queue.set_told

        async def slow(ids: list[str]) -> None:
            storing.set()
            await go.wait()
            await set_told(ids)

        monkeypatch.setattr(bot.app.queue, "set_told", slow)
        await ask(stage, "$", link("fail=gone"))
        status = await stage.hears("(gone)")
        await storing.wait()
        tracker = module("progress").tracker
        [group] = tracker.ended.values()
        late = replace(group.first, id="late000000", status=Status.QUEUED)
        late.request_key = group.first.request_key.replace(":0", ":1")
        tracker.show(bot.app, tracker.add(late), 0.1)
        await stage.fake.wait_for(lambda: "late000000" in status.content)
        go.set()


async def test_requests_do_not_share_a_message(stage: Stage) -> None:
    async with stage.bot():
        for number in (1, 2):
            await ask(stage, "$", link(stage.image(number)))
        await stage.gets(2)
        await stage.fake.wait_for(
            lambda: sum("Done in" in m.content for m in stage.said()) == 2
        )
    assert len(stage.said()) == 4


async def test_failures_are_told_though_the_message_is_gone(stage: Stage) -> None:
    async with stage.bot() as bot:
        await ask(stage, "$", link("wait=gate", "fail=gone"), link(stage.image()))
        status = await stage.hears("Done in")
        [job, _] = await bot.app.queue.list()
        await stage.fake.delete_message(status.id)
        stage.open_gate("gate")
        await job_at(bot, job.id, Status.FAILED)
        again = await stage.hears("(gone)", "Check the link.", after=status.id)
    assert again.content.count("\n") == 2 and "Done in" in again.content


# The text


def some(count: int, **fields: Any) -> list[Job]:
    return [
        make_job(url=f"https://www.youtube.com/watch?v={n:011}", platform="x", **fields)
        for n in range(count)
    ]


def test_single_link_looks_as_ever() -> None:
    (job,) = some(1, status=Status.FAILED, cause="gone", error="Gone.")
    assert render_all([job], {}) == render(job, None)
    assert "<" not in render(job, None)


@pytest.mark.parametrize("cause", Cause)
def test_25_failures_of_a_kind_keep_their_sentence(cause: Cause) -> None:
    error = SENTENCES[cause]
    jobs = some(25, status=Status.FAILED, cause=cause, error=error)
    text = render_all(jobs, {})
    assert len(text) <= MAX_CONTENT
    assert error in text and text.count(f"({cause})") == 25
    assert job_list(text) == [job.id for job in jobs]


def test_25_failures_of_all_kinds_keep_their_causes() -> None:
    jobs = [
        make_job(status=Status.FAILED, cause=cause, error=SENTENCES[cause])
        for cause in [*Cause, *Cause][:25]
    ]
    text = render_all(jobs, {})
    assert len(text) <= MAX_CONTENT
    assert job_list(text) == [job.id for job in jobs]
    for cause in Cause:
        assert f"\n{cause}: {SENTENCES[cause][:10]}" in text


def test_line_says_how_far_each_is() -> None:
    loading, fitting, waiting = some(3)
    loading.status, fitting.status = Status.DOWNLOADING, Status.PROCESSING
    waiting.position = 3
    progress = {
        loading.id: Progress("a.mp4", 45, 100),
        fitting.id: Progress("Making it fit", share=0.5),
    }
    lines = render_all([loading, fitting, waiting], progress).split("\n")
    link = "<https://www.youtube.com/watch?v=0000000000{}>"
    assert lines == [
        f"Downloading a.mp4, 45% · `{loading.id}` {link.format(0)}",
        f"Making it fit, 50% · `{fitting.id}` {link.format(1)}",
        f"Download queued. Position in queue: 3 · `{waiting.id}` {link.format(2)}",
    ]


STUCK = [
    ([], {*UNFINISHED}),
    ([(5, 0.5)], set()),
    ([(0, 0.5)], {*UNFINISHED}),  # it has stopped
    ([(5, 90), (5, 3)], set()),
    ([(5, 90), (5, 6)], {Status.QUEUED}),
    ([(5, 90)], {*UNFINISHED}),
]


@pytest.mark.parametrize(("workers", "waiting"), STUCK)
async def test_link_on_which_nobody_works_says_so(
    workers: list[tuple[int, float]], waiting: set[Status]
) -> None:
    async def seen() -> list[AtWork]:
        return [AtWork("x", "1.0", slots, 0, seen_s) for slots, seen_s in workers]

    app: Any = SimpleNamespace(queue=SimpleNamespace(shared=True, workers=seen))
    app.works = False
    stuck = await stuck_in(app)
    assert {*stuck} == waiting
    for status in Status:
        texts = [
            render_all(jobs, {}, stuck)
            for jobs in (some(1, status=status), some(2, status=status))
        ]
        said = [text.startswith("No worker is running now. ") for text in texts]
        assert said == [status in waiting] * 2
    app.works = True
    assert not await stuck_in(app)


async def test_one_late_look_at_the_workers_says_nothing_yet() -> None:
    seen_s = [99.0, 0, 5, 5, 0]

    async def seen() -> list[AtWork]:
        return [AtWork("x", "1.0", 5, 0, seen_s.pop(0))]

    queue = SimpleNamespace(shared=True, workers=seen)
    app: Any = SimpleNamespace(queue=queue, works=False)
    tracker, told = Tracker(), []
    while seen_s:
        await tracker.look(app, 1)
        told.append(Status.QUEUED in tracker.stuck)
    assert told == [True, False, False, True, False]


async def test_link_that_the_queue_has_lost_is_told_as_lost() -> None:
    kept: dict[str, Job] = {}

    async def find(job_ids: Sequence[str]) -> dict[str, Job]:
        return {one: kept[one] for one in job_ids if one in kept}

    app: Any = SimpleNamespace(queue=SimpleNamespace(shared=True, find=find))
    app.works = True
    tracker, written = Tracker(), list[Group]()
    tracker.show = lambda app, group, *about, **more: written.append(group)  # type: ignore
    jobs = some(40)
    for number, job in enumerate(jobs):
        job.status, job.request_key = Status.DOWNLOADING, f"{number + 1}:0"
        kept[job.id] = job
        tracker.add(job)
    jobs[1].status = Status.COMPLETED  # whose row has gone since
    del kept[jobs[1].id]
    await tracker.look(app, 1)
    away = kept.pop(jobs[5].id)  # for one look
    lost = kept.pop(jobs[30].id)
    for look in range(20):
        await tracker.look(app, 1)
        assert look or not written
        if away.id in tracker._missed:
            kept[away.id] = away
    [group] = written
    assert [*group.jobs] == [lost.id] and group.ended and not buttons_of(group)
    text = render_all(group.jobs.values(), {})
    assert text.endswith(f"`{lost.id}`\nThe queue has lost this link. Send it again.")


async def test_place_in_the_line_is_followed_after_a_restart(stage: Stage) -> None:
    async with stage.bot(max_concurrent_downloads=1):
        await stage.says(f"$download {link('wait=gate', stage.image(1))}")
        await stage.hears("Downloading")
        for number in (2, 3):
            await stage.says(f"$download {link('wait=never', stage.image(number))}")
            status = await stage.hears(f"Position in queue: {number - 1} · `")
        stored = "SELECT count(*) FROM jobs WHERE status_message_id > 0"
        while stage.database(stored) != [(3,)]:
            await asyncio.sleep(0.01)
    async with stage.bot(max_concurrent_downloads=1):
        stage.open_gate("gate")
        await stage.fake.wait_for(lambda: "Position in queue: 1" in status.content)


async def test_message_that_could_not_be_noted_is_noted_later() -> None:
    noted = list[tuple[str, int]]()

    async def note(job_id: str, message_id: int) -> None:
        noted.append((job_id, message_id))
        if len(noted) == 1:
            raise OutOfReach("away")

    app: Any = SimpleNamespace(queue=SimpleNamespace(set_status_message=note))
    group, tracker = Group("x", message_id=5), Tracker()
    group.add(job := make_job())
    for _ in range(3):
        await tracker.note(app, group)
    assert noted == [(job.id, 5)] * 2


def job_list(text: str) -> list[str]:
    return re.findall(r"`([0-9a-f]{10})`", text)


CHARACTERS = st.characters(exclude_categories=["Cs"])  # much faster than a codec
JOBS = st.lists(
    st.builds(
        make_job,
        status=st.sampled_from(Status),
        cause=st.sampled_from(Cause),
        error=st.text(CHARACTERS, max_size=1500),
        url=st.text(CHARACTERS, max_size=300).map("https://a.example/".__add__),
        position=st.integers(0, 100),
        file_count=st.integers(0, 50),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(JOBS)
def test_any_list_is_within_the_limit_and_says_what_is_left_out(
    jobs: list[Job],
) -> None:
    text = render_all(jobs, {})
    assert 0 < len(text) <= MAX_CONTENT
    told = job_list(text)
    more = re.search(r"… and (\d+) more$", text)
    if len(jobs) <= 25:
        assert set(told) >= {job.id for job in jobs}
    else:
        assert len(told) + int(more[1] if more else 0) >= len(jobs)


def test_jobs_without_a_request_stand_alone() -> None:
    one, other = make_job(), make_job()
    assert group_key(one) != group_key(other)
    keys = {
        group_key(make_job(request_key=f"123:{n}", channel_id=place))
        for n in (0, 1)
        for place in (5, 6)
    }
    assert len(keys) == 2
