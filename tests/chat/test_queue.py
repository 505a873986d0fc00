"""/queue list, clear, cancel, retry, move and purge."""

import asyncio
import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from conftest import SUPPORT_PLUGINS, make_job
from discord_support import BotProcess, Stage, job_at, job_id, job_ids, link, until
from fake_discord import Message, User

from bossbot import BossBot, Job, Priority, Status

pytest_plugins = ("discord_fixtures",)

NOT_FOUND = "There is no download"


@pytest.fixture
def stage(stage: Stage) -> Stage:
    for name in ("queue", "history"):
        stage.add_plugin(name)
    return stage


async def use(stage: Stage, words: str, user: User | None = None, **o: Any) -> str:
    """What a slash command answers."""
    asked = await stage.fake.slash(stage.channel_id, words, o, user and user.id)
    answer = await stage.fake.answered(asked)
    assert answer.only_for is (user or stage.fake.member)
    return answer.text


async def waiting(stage: Stage, bot: BossBot, count: int, **fields: Any) -> list[Job]:
    """Jobs of the member that stay where they are, since none is claimed."""
    defaults = {
        "guild_id": stage.fake.guild.id,
        "channel_id": stage.channel_id,
        "user_id": stage.fake.member.id,
    }
    jobs = [make_job(**{**defaults, **fields}) for _ in range(count)]
    for job in jobs:
        await bot.app.queue.add(job)
    return jobs


def nothing_runs(stage: Stage) -> None:
    shutil.copy(SUPPORT_PLUGINS / "holds.py", stage.plugins)


# The list


async def test_list_shows_what_runs_and_what_waits(stage: Stage) -> None:
    async with stage.bot(max_concurrent_per_guild=1, max_concurrent_downloads=1):
        await stage.says(f"$dl {link('wait=gate', stage.image())}")
        running = job_id(await stage.hears("Downloading"))
        await stage.says(f"$dl {link(stage.image(2))}")
        second = job_id(await stage.hears("Position in queue: 1"))
        text = await use(stage, "queue list")
        lines = text.split("\n")
        assert lines[0] == "1 running, 1 waiting"
        assert lines[1].startswith(f"`{running}` downloading, ")
        assert "%" in lines[1] and f"<@{stage.fake.member.id}>" in lines[1]
        assert lines[2].startswith(f"1. `{second}` waiting · <https://toy.example/")
        for words in ("$queue", "$Queue List", "$dlq"):
            asked = await stage.says(words)
            answer = await stage.hears("1 running, 1 waiting", after=asked.id)
            assert answer.replied_to is asked
        await stage.says("$queue lsit")
        await stage.hears("lsit is not one of these: cancel, clear, list", "mean list?")
        stage.open_gate("gate")
        await stage.fake.wait_for(
            lambda: sum("Done in" in m.content for m in stage.said()) == 2
        )
        assert "Nothing is waiting or running." in await use(stage, "queue list")


async def test_200_jobs_are_shown_in_pages(stage: Stage) -> None:
    nothing_runs(stage)
    stage.remove_plugin("progress")  # a message for each job
    async with stage.bot(max_queue_size=500) as bot:
        url = "https://toy.example/" + "x" * 129
        jobs = await waiting(stage, bot, 200, url=url, platform="x")
        fake = stage.fake
        asked = await fake.slash(stage.channel_id, "queue list")
        page = await fake.answered(asked)
        seen: list[str] = []
        for number in range(1, 21):
            assert f"Page {number} of 20" in page.text
            seen += [job.id for job in jobs if f"`{job.id}`" in page.text]
            assert len(page.embeds[0]["description"]) <= 4096
            if number < 20:
                await fake.answered(await fake.click(page.id, "Next"))
        assert seen == [job.id for job in jobs]
        assert page.buttons == ["Previous", "Refresh"]
        for job in jobs[5:]:
            await bot.app.queue.cancel(job.id)
        await fake.answered(await fake.click(page.id, "Previous"))
        assert "0 running, 5 waiting" in page.text and page.buttons == ["Refresh"]


async def test_who_may_not_use_the_bot_any_more_turns_no_page(stage: Stage) -> None:
    fake = stage.fake
    async with stage.bot():
        asked = await fake.slash(stage.channel_id, "queue list")
        page = await fake.answered(asked)
        stage.guild_settings(f"[permissions]\ndenied_users = [{fake.member.id}]\n")
        clicked = await fake.click(page.id, "Refresh")
        assert "may not use this bot" in (await fake.answered(clicked)).text


async def test_links_of_closed_channels_are_not_shown_to_all(stage: Stage) -> None:
    nothing_runs(stage)
    fake = stage.fake
    closed = fake._new_channel("closed", guild=fake.guild)
    closed.denied = {"view_channel"}
    moderator = await fake.add_moderator("mona", "administrator")
    async with stage.bot() as bot:
        [job] = await waiting(stage, bot, 1, channel_id=closed.id)
        text = await use(stage, "queue list")
        assert job.id in text and job.url not in text
        assert job.url in await use(stage, "queue list", moderator)
        asked = await fake.member_says(stage.channel_id, "$queue", moderator.id)
        answer = await stage.hears("1 waiting", after=asked.id)
        assert job.url not in answer.text
        [choice] = await fake.autocomplete(stage.channel_id, "queue cancel", "id")
        assert job.url not in choice["name"]


# Other servers


async def test_other_servers_jobs_are_not_there(stage: Stage) -> None:
    nothing_runs(stage)
    fake = stage.fake
    async with stage.bot() as bot:
        await waiting(stage, bot, 1)
        [job] = await waiting(stage, bot, 1)
        other = await fake.add_guild("Away")
        moderator = await fake.add_moderator("mona", guild=other.guild)
        for person in (moderator, fake.owner):  # who owns the bot, too
            for words in ("queue cancel", "queue retry", "queue move"):
                answers = []
                for wanted in (job.id, "0123456789"):
                    options = {"id": wanted}
                    if words == "queue move":
                        options["priority"] = "high"
                    asked = await fake.slash(other.id, words, options, person.id)
                    answer = await fake.answered(asked)
                    assert NOT_FOUND in answer.text
                    answers.append(answer.text.replace(wanted, "ID"))
                assert answers[0] == answers[1]
            asked = await fake.slash(other.id, "queue list", None, person.id)
            assert "0 running, 0 waiting" in (await fake.answered(asked)).text
            found = await fake.autocomplete(
                other.id, "queue cancel", "id", user_id=person.id
            )
            assert found == []
        stored = await bot.app.queue.list(statuses=[Status.QUEUED])
        assert len(stored) == 2


async def test_direct_messages_show_each_member_only_own_jobs(stage: Stage) -> None:
    nothing_runs(stage)
    fake = stage.fake
    other = fake.add_member("otto")
    place = fake.open_dm(other.id).id
    async with stage.bot() as bot:
        [job] = await waiting(stage, bot, 1, guild_id=0, channel_id=place)
        [own] = await waiting(
            stage, bot, 1, guild_id=0, channel_id=place, user_id=other.id
        )
        await fake.member_says(place, "$queue", other.id)
        answer = await stage.hears("1 waiting", channel_id=place)
        assert own.id in answer.text and job.id not in answer.text
        await fake.member_says(place, f"$dlc {job.id}", other.id)
        await stage.hears(NOT_FOUND, channel_id=place)


# Cancel


async def has_no_task(bot: BossBot, job: Job) -> bool:
    return job.id not in bot.app.worker.running  # type: ignore[attr-defined]


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


async def test_cancel_kills_the_group_and_a_page_can_be_turned_after_a_restart(
    stage: Stage, process: BotProcess
) -> None:
    await process.start(max_concurrent_downloads="1")
    before = set(process.family())
    await stage.says(f"$dl {link(stage.image(1), 'wait=never')}")
    status = await stage.hears("Downloading")
    pids = [pid for pid in process.family() if pid not in before]
    number = job_id(status)
    await stage.says(f"$dlc {number}")
    await stage.hears(f"`{number}` is cancelled.")
    await stage.fake.wait_for(lambda: "Cancelled" in status.content)
    groups = [pid for pid in alive(pids) if os.getpgid(pid) == pid]
    # One waits ahead for the next download.
    await until(lambda: asyncio.sleep(0, len(alive(groups)) < 2))
    data = stage.folder / "data"
    left = [p for p in (*data.glob("temp/*/*"), *data.glob("downloads/*/*/*"))]
    assert left == []

    links = [link(f"hang={n}", stage.image(n)) for n in range(1, 13)]
    after = (await stage.says(f"$dl {' '.join(links)}")).id
    status = await stage.hears("Download started", after=after)
    await stage.fake.wait_for(lambda: len(job_ids(status)) == 12)
    asked = await stage.fake.slash(stage.channel_id, "queue list")
    page = await stage.fake.answered(asked)
    await process.kill()
    await process.start(max_concurrent_downloads="1")
    await stage.fake.answered(await stage.fake.click(page.id, "Next"))
    assert "Page 2 of 2" in page.text


async def test_cancel_while_files_are_kept_leaves_none(stage: Stage) -> None:
    stage.copy_plugin(SUPPORT_PLUGINS / "slow.py", HOOK="process_files", FOR_S=0.2)
    async with stage.bot() as bot:
        storage, queue = bot.app.storage, bot.app.queue
        keep = storage.keep

        async def keep_and_cancel(job: Job, files: Any) -> Any:
            kept = await keep(job, files)
            await queue.cancel(job.id)
            return kept

        storage.keep = keep_and_cancel  # type: ignore[method-assign]
        await stage.says(f"$dl {link(stage.image())}")
        status = await stage.hears("Cancelled")
        folders = stage.folder / "data" / "downloads"
        [job] = await queue.list()
        await until(partial(has_no_task, bot, job))
        assert list(folders.glob("*/*/*")) == []
        assert stage.posted() == [] and status.buttons == ["Try again"]


async def test_cancel_that_the_worker_hears_of_late_leaves_no_files(
    stage: Stage,
) -> None:
    async with stage.bot() as bot:
        storage, worker = bot.app.storage, cast(Any, bot.app.worker)
        keep, forget_attempt = storage.keep, storage.forget_attempt

        async def keep_and_cancel(job: Job, files: Any) -> Any:
            kept = await keep(job, files)
            await bot.app.database.all(  # and tells nobody yet
                "UPDATE jobs SET status = 'cancelled', finished_at = 1, "
                "claim_number = claim_number + 1"
            )
            return kept

        async def hear_of_it(job: Job) -> None:
            storage.forget_attempt = forget_attempt  # type: ignore[method-assign]
            worker.running[job.id].cancel()
            await forget_attempt(job)

        storage.keep = keep_and_cancel  # type: ignore[method-assign]
        storage.forget_attempt = hear_of_it  # type: ignore[method-assign]
        await stage.says(f"$dl {link(stage.image())}")
        await stage.hears("Download started")
        [job] = await bot.app.queue.list()
        await until(partial(has_no_task, bot, job))
    data = stage.folder / "data"
    assert [*data.glob("downloads/*/*/*")] == [] == [*data.glob("temp/*/*")]
    assert not stage.requested("upload")


async def test_cancel_under_load(stage: Stage) -> None:
    links = [link(f"hang=never{n}", stage.image(n)) for n in range(1, 6)]
    async with stage.bot(
        max_concurrent_downloads=5,
        max_concurrent_per_guild=5,
        max_concurrent_per_user=5,
        max_queue_size=50,
    ) as bot:
        await stage.says(f"$dl {' '.join(links)}")
        status = await stage.hears("Download")
        await stage.fake.wait_for(lambda: status.content.count("Downloading") == 5)
        for _ in range(2):
            await stage.says(
                "$dl " + " ".join([link(stage.image(n)) for n in range(20)])
            )
        jobs = await bot.app.queue.list(statuses=[Status.DOWNLOADING])
        await stage.says(f"$dlc {jobs[2].id}")
        await stage.hears(f"`{jobs[2].id}` is cancelled.")
        await job_at(bot, jobs[2].id, Status.CANCELLED)
        await until(partial(has_no_task, bot, jobs[2]))
        await stage.gets(1)  # the place is free again


async def test_only_who_asked_or_a_moderator_cancels(stage: Stage) -> None:
    nothing_runs(stage)
    fake = stage.fake
    stranger = fake.add_member("otto")
    moderator = await fake.add_moderator("mona")
    helper = fake.add_member("hedy")
    role = await fake.add_role("helpers")
    fake.give_role(helper, role)
    stage.guild_settings(f"[permissions]\nqueue_roles = [{role.id}]\n")
    async with stage.bot() as bot:
        mine, theirs, last = await waiting(stage, bot, 3)
        refused = await use(stage, "queue cancel", stranger, id=mine.id)
        assert refused == "You may not do that here. You need Manage Messages."
        assert "is cancelled" in await use(stage, "queue cancel", id=f"“#{mine.id}”.")
        assert "is cancelled" in await use(
            stage, "queue cancel", moderator, id=theirs.id
        )
        assert "is cancelled" in await use(stage, "queue cancel", helper, id=last.id)
        assert "has ended already" in await use(stage, "queue cancel", id=mine.id)


async def test_what_is_being_posted_is_not_cancelled(stage: Stage) -> None:
    fault = stage.fake.fault("upload", "hang")
    async with stage.bot():
        await stage.says(f"$dl {link(stage.image())}")
        await stage.fake.wait_for(lambda: fault.hits)
        status = await stage.hears("Uploading")
        answer = await use(stage, "queue cancel", id=job_id(status))
        assert "is being posted" in answer
        assert status.buttons == []
        fault.release()
        await stage.gets(1)


# Retry and move


async def test_failed_job_is_tried_again_once(stage: Stage) -> None:
    async with stage.bot() as bot:
        await stage.says(f"$dl {link('fail=gone')}")
        status = await stage.hears("(gone)")
        first = job_id(status)
        answer = await use(stage, "queue retry", id=first)
        assert answer.startswith(f"Trying `{first}` again, as `")
        await stage.fake.wait_for(
            lambda: job_id(status) != first and "(gone)" in status.content
        )
        second = await bot.app.queue.get(job_id(status))
        assert second and second.status is Status.FAILED
        assert "tried again already" in await use(stage, "queue retry", id=first)
        assert "Trying" in await use(stage, "queue retry", id=second.id)
        await stage.fake.wait_for(lambda: job_id(status) != second.id)
    assert len(stage.fake.messages(stage.channel_id, bot_only=True)) == 1


async def test_only_what_failed_or_was_cancelled_is_tried_again(stage: Stage) -> None:
    async with stage.bot(max_concurrent_downloads=1):
        await stage.says(f"$dl {link(stage.image())}")
        done = job_id(await stage.hears("Done in"))
        answer = await use(stage, "queue retry", id=done)
        assert "neither failed nor been cancelled" in answer


async def test_choices_are_what_the_member_may_choose(stage: Stage) -> None:
    nothing_runs(stage)
    stage.remove_plugin("progress")  # a message for each job
    fake = stage.fake
    moderator = await fake.add_moderator("mona")
    async with stage.bot() as bot:
        jobs = await waiting(stage, bot, 30)
        for job in jobs[:3]:
            await bot.app.queue.cancel(job.id)
        [other] = await waiting(stage, bot, 1, user_id=moderator.id)

        async def choices(name: str, typed: str = "", user: User = fake.member) -> Any:
            found = await fake.autocomplete(
                stage.channel_id, name, "id", typed, {}, user.id
            )
            return [choice["value"] for choice in found]

        newest = [job.id for job in reversed(jobs)]
        assert await choices("queue cancel") == newest[:25]
        assert await choices("queue cancel", user=moderator) == [other.id, *newest[:24]]
        assert await choices("queue cancel", jobs[7].id[:8]) == [jobs[7].id]
        assert await choices("queue retry") == newest[-3:]
        assert await choices("queue move", user=moderator) == [other.id, *newest[:24]]


async def test_waiting_job_is_moved_by_a_moderator(stage: Stage) -> None:
    nothing_runs(stage)
    moderator = await stage.fake.add_moderator("mona")
    async with stage.bot() as bot:
        first, second, third = await waiting(stage, bot, 3)
        options = {"id": third.id, "priority": "high"}
        refused = await use(stage, "queue move", **options)
        assert refused == "You may not do that here. You need Manage Messages."
        answer = await use(stage, "queue move", moderator, **options)
        assert answer == f"`{third.id}` is now number 1 in the queue of this server."
        options = {"id": first.id, "priority": "low"}
        assert "is now number 3" in await use(stage, "queue move", moderator, **options)
        text = await use(stage, "queue list")
        places = [text.index(job.id) for job in (third, second, first)]
        assert places == sorted(places)
        assert text.count("· high") == text.count("· low") == 1
        stored = await bot.app.queue.get(third.id)
        assert stored and stored.priority is Priority.HIGH
        await bot.app.queue.cancel(second.id)
        options = {"id": second.id, "priority": "low"}
        assert "is not waiting" in await use(stage, "queue move", moderator, **options)


# Clear and purge


async def asked_twice(stage: Stage, words: str, user: User, **o: Any) -> Message:
    asked = await stage.fake.slash(stage.channel_id, words, o, user.id)
    return await stage.fake.answered(asked)


async def test_clear_asks_and_says_how_many_it_removed(stage: Stage) -> None:
    fake = stage.fake
    moderator = await fake.add_moderator("mona")
    async with stage.bot(max_concurrent_downloads=1, max_queue_size=100) as bot:
        await stage.says(f"$dl {link('hang=never')}")
        running = job_id(await stage.hears("Download"))
        await job_at(bot, running, Status.DOWNLOADING)
        await waiting(stage, bot, 40)
        other = await fake.add_guild("Away")
        assert other.guild
        [theirs] = await waiting(stage, bot, 1, guild_id=other.guild.id)
        assert "Manage Messages" in await use(stage, "queue clear")
        question = await asked_twice(stage, "queue clear", moderator)
        assert question.content == "Remove 40 links from the queue?"
        await fake.click(question.id, "Remove", moderator.id)
        await fake.wait_for(lambda: question.content == "40 links removed.")
        assert question.buttons == []
        left = await bot.app.queue.list(statuses=[Status.QUEUED, Status.DOWNLOADING])
        assert [job.id for job in left] == [running, theirs.id]
        answer = await use(stage, "queue clear", moderator)
        assert "There is nothing to remove." in answer
        asked = await fake.member_says(
            stage.channel_id, "$queue clear running", moderator.id
        )
        question = await stage.hears("Remove 1 link from", after=asked.id)
        await fake.click(question.id, "Remove")
        await stage.hears("You need Manage Messages")
        clicked = await fake.click(question.id, "Remove", fake.owner.id)
        assert "Only the member who asked" in (await fake.answered(clicked)).text
        await fake.click(question.id, "Remove", moderator.id)
        await fake.wait_for(lambda: question.content == "1 link removed.")
        await job_at(bot, running, Status.CANCELLED)


async def test_who_is_no_moderator_any_more_clears_nothing(stage: Stage) -> None:
    nothing_runs(stage)
    fake = stage.fake
    moderator = await fake.add_moderator("mona")
    async with stage.bot() as bot:
        await waiting(stage, bot, 2)
        question = await asked_twice(stage, "queue clear", moderator)
        fake.guild.roles_of[moderator.id].clear()
        clicked = await fake.click(question.id, "Remove", moderator.id)
        assert "Manage Messages" in (await fake.answered(clicked)).text
        assert len(await bot.app.queue.list(statuses=[Status.QUEUED])) == 2


async def test_an_old_question_clears_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_runs(stage)
    fake = stage.fake
    moderator = await fake.add_moderator("mona")
    async with stage.bot() as bot:
        await waiting(stage, bot, 1)
        question = await asked_twice(stage, "queue clear", moderator)
        monkeypatch.setattr("bossbot_plugins.queue.CONFIRM_WITHIN_S", -60)
        clicked = await fake.click(question.id, "Remove", moderator.id)
        assert "too long ago" in (await fake.answered(clicked)).text
        assert len(await bot.app.queue.list(statuses=[Status.QUEUED])) == 1


async def test_purge_forgets_what_has_ended_and_its_files(stage: Stage) -> None:
    fake = stage.fake
    moderator = await fake.add_moderator("mona")
    other = fake.add_member("otto")
    async with stage.bot() as bot:
        queue, database = bot.app.queue, bot.app.database
        for person in (fake.member, other):
            for number in (1, 2):
                url = link(stage.image(number))
                await fake.member_says(stage.channel_id, f"$dl {url}", person.id)
        await stage.gets(4)
        await fake.wait_for(
            lambda: sum("Done in" in m.content for m in stage.said()) == 4
        )
        await waiting(stage, bot, 1, url=link("hang=never"))
        question = await asked_twice(
            stage, "queue purge", moderator, member=fake.member.id
        )
        await fake.click(question.id, "Forget", moderator.id)
        await fake.wait_for(lambda: "2 downloads forgotten" in question.content)
        left = await queue.list()
        assert [job.user_id for job in left] == [other.id, other.id, fake.member.id]
        rows = await database.all("SELECT user_id FROM history")
        assert [row[0] for row in rows] == [other.id, other.id]
        folders = stage.folder / "data" / "downloads"
        kept = {path.name for path in folders.glob("*/*/*")}
        assert kept == {job.id for job in left[:2]}
        await fake.member_says(stage.channel_id, "$queue purge @mray", moderator.id)
        await stage.hears("There is no \\@mray.")
        asked = await fake.member_says(stage.channel_id, "$queue purge", moderator.id)
        question = await stage.hears("Forget all downloads that", after=asked.id)
        await fake.click(question.id, "Forget", moderator.id)
        await fake.wait_for(lambda: "2 downloads forgotten" in question.content)
        assert len(await queue.list()) == 1
        assert list(folders.glob("*/*/*")) == []
        audit = (stage.folder / "data" / "logs" / "audit.jsonl").read_text()
        lines = [json.loads(line) for line in audit.splitlines()]
        told = [(one["who"], one["what"], one["downloads"]) for one in lines]
        assert told == [(moderator.id, "queue purge", 2)] * 2
