"""/stats: numbers and a picture, kept as totals of days."""

import asyncio
import io
import re
import sqlite3
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import warm_python
from bossbot_plugins._stats_picture import COLOURS, Picture, draw, grid
from bossbot_plugins.stats import DAY_S, bin_of, median
from conftest import ROOT, make_job
from discord_support import Stage, link, module
from PIL import Image

from bossbot import App, Job, Status, now

pytest_plugins = ("discord_fixtures",)

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def stage(stage: Stage) -> Stage:
    stage.add_plugin("stats")
    return stage


@pytest.fixture
async def unseen(stage: Stage) -> None:
    """No right to attach files: a picture that the test does not look at takes longer
    to be drawn than all the rest."""
    await stage.fake.deny_member(stage.channel_id, stage.fake.bot.id, "attach_files")


def ended(
    stage: Stage,
    days_ago: float = 0,
    *,
    status: Status = Status.COMPLETED,
    wait_s: float = 1,
    took_s: float = 2,
    **fields: Any,
) -> Job:
    """A job of the stage's server and member."""
    # Not before the day began, as seen a moment later.
    end = now() // DAY_S * DAY_S - days_ago * DAY_S + 0.5
    return make_job(
        **{
            "guild_id": stage.fake.guild.id,
            "user_id": stage.fake.member.id,
            "platform": "youtube",
            "status": status,
            "created_at": end - wait_s - took_s,
            "started_at": end - took_s,
            "finished_at": end,
            "total_bytes": 2**20,
            **fields,
        }
    )


async def tell(app: App, jobs: Iterable[Job]) -> None:
    for job in jobs:
        await app.plugins.call("job_changed", job=job, previous=Status.UPLOADING)


async def read(stage: Stage, words: str = "$stats", user_id: int = 0) -> Any:
    """The answer to a command."""
    asked = await stage.fake.member_says(stage.channel_id, words, user_id or None)
    return await stage.hears("", after=asked.id)


def fields(message: Any) -> dict[str, str]:
    [embed] = message.embeds
    return {one["name"]: one["value"] for one in embed["fields"]}


@pytest.mark.usefixtures("unseen")
async def test_numbers_of_today_a_week_and_all_time(stage: Stage) -> None:
    async with stage.bot() as bot:
        failed = {"status": Status.FAILED, "total_bytes": 0}
        jobs = [
            *(ended(stage, wait_s=4, took_s=10) for _ in range(3)),
            ended(stage, **failed),
            *(ended(stage, 6, platform="reddit", wait_s=1, took_s=3) for _ in range(6)),
            ended(stage, 7, platform="", **failed),
            *(ended(stage, 400, platform="", wait_s=60, took_s=90) for _ in range(20)),
            ended(stage, status=Status.CANCELLED),
            ended(stage, guild_id=77, total_bytes=2**30),
        ]
        await tell(bot.app, jobs)
        found = fields(await read(stage))
    names = ("Today", "7 days", "All time")
    counts = [re.search(r"Downloads: \*\*(\d+)\*\*", found[name]) for name in names]
    assert [one and int(one[1]) for one in counts] == [3, 9, 29]
    for name, share, size in zip(
        names, ("75%", "90%", "94%"), ("3 MiB", "9 MiB", "29 MiB"), strict=True
    ):
        assert f"Succeeded: {share}\nPosted: {size}\n" in found[name]
    for name, wait_s, took_s in zip(names, (4, 1, 60), (10, 3, 90), strict=True):
        told = re.search(r"Wait: (.+)\nTook: (.+)", found[name])
        assert told
        for text, expected in zip(told.groups(), (wait_s, took_s), strict=True):
            assert seconds(text) == pytest.approx(expected, rel=0.12)
    assert found["By site"] == (
        "other: 20 (20 MiB)\nreddit: 6 (6 MiB)\nyoutube: 3 (3 MiB)"
    )
    assert found["Most requests"] == f"<@{stage.fake.member.id}>: 29"
    assert found["Queue now"] == "0 running, 0 waiting"


def seconds(text: str) -> float:
    units = {"s": 1, "min": 60, "h": 3600}
    return sum(float(n) * units[u] for n, u in re.findall(r"([\d.]+) (\w+)", text))


@pytest.mark.parametrize("times", [[0.3], [1, 2, 3], [5] * 9, [0.1, 10, 1000], [90000]])
def test_median_of_bins_is_close(times: list[float]) -> None:
    bins = [(bin_of(one), 1) for one in times]
    expected = min(sorted(times)[len(times) // 2], DAY_S)
    assert median(bins) == pytest.approx(expected, rel=0.12)
    assert median([]) is None


async def test_job_that_is_told_twice_or_was_missed_is_counted_once(
    stage: Stage,
) -> None:
    async with stage.bot() as bot:
        await tell(bot.app, [ended(stage, id="0" * 10)] * 3)
    stage.database("UPDATE stats_jobs SET ended_at = 0")
    stage.remove_plugin("stats")
    async with stage.bot():
        await stage.says(f"$download {link(stage.image())}")
        await stage.hears("Done in")
    stage.add_plugin("stats")
    for _ in range(2):
        async with stage.bot() as bot:
            await bot.app._lives["stats"]
            found = fields(await read(stage))
            assert "Downloads: **2**" in found["All time"]


async def test_download_is_counted_with_what_was_posted(stage: Stage) -> None:
    async with stage.bot() as bot:
        await stage.says(f"$download {link(*stage.images(2))}")
        await stage.hears("Done in")
        async with asyncio.timeout(60):  # it is counted while the member is told
            while not await bot.app.database.one("SELECT 1 FROM stats_jobs"):
                await asyncio.sleep(0.01)
        found = fields(await read(stage))
        assert "Downloads: **1**\nSucceeded: 100%" in found["Today"]
        waiting = await stage.says(f"$download {link('wait=gate')}")
        await stage.hears("Download", after=waiting.id)
        await stage.fake.wait_for(lambda: "gate" in stage.said()[-1].content)
        found = fields(await read(stage))
        assert found["Queue now"] == "1 running, 0 waiting"


@pytest.mark.usefixtures("unseen")
async def test_other_servers_are_the_owners_alone(stage: Stage) -> None:
    fake = stage.fake
    admin = await fake.add_moderator("ada", "administrator")
    async with stage.bot() as bot:
        await tell(bot.app, [ended(stage), ended(stage, guild_id=77, user_id=78)])
        assert "**1**" in fields(await read(stage))["All time"]
        for user in (fake.member, admin):
            answer = await read(stage, "$stats everywhere", user.id)
            assert answer.text == "Only the bot's owner may see other servers."
        options = {"where": "everywhere"}
        asked = await fake.slash(stage.channel_id, "stats", options, fake.owner.id)
        answer = await fake.answered(asked)
        assert answer.only_for is fake.owner and "on all servers" in answer.text
        found = fields(answer)
        assert "**2**" in found["All time"] and "Most requests" not in found


@pytest.mark.usefixtures("unseen")
async def test_members_are_named_by_their_downloads_unless_they_opt_out(
    stage: Stage,
) -> None:
    async with stage.bot() as bot:
        for number in range(1, 8):
            jobs = [ended(stage, user_id=number) for _ in range(number)]
            await tell(bot.app, jobs)
        await bot.app.facts.set("not in statistics 7", "1")
        await bot.app.facts.set("not in statistics 8", "1")
        await tell(bot.app, [ended(stage, user_id=8) for _ in range(9)])
        found = fields(await read(stage))
        named = [f"<@{number}>: {number}" for number in (6, 5, 4, 3, 2)]
        assert found["Most requests"].split("\n") == named
        assert "**37**" in found["All time"], "totals have no names"
    assert not stage.database("SELECT * FROM stats_members WHERE user_id = 8")


@pytest.mark.usefixtures("unseen")
async def test_rows_about_a_member_can_go_and_the_totals_stay(stage: Stage) -> None:
    async with stage.bot() as bot:
        await tell(bot.app, [ended(stage)])
        tables = await bot.app.database.all(
            "SELECT m.name FROM sqlite_master m, pragma_table_info(m.name) c "
            "WHERE m.name LIKE 'stats%' AND c.name = 'user_id'"
        )
        assert [row[0] for row in tables] == ["stats_members"]
        await bot.app.database.all("DELETE FROM stats_members")
        found = fields(await read(stage))
        assert "**1**" in found["All time"] and "Most requests" not in found


# The picture


OUTSIDE = """
import asyncio, sys
sys.path.insert(0, ".")
from bossbot import OURS, open_plugins, plugin_folders
open_plugins(plugin_folders(OURS))
import bossbot_plugins.stats
from bossbot_plugins._stats_picture import Picture
png = asyncio.run(Picture(["a"], {"b": [1]}).draw())
print(len(png) > 100, "PIL" in sys.modules)
"""


def test_picture_is_drawn_outside_the_bot(tmp_path: Path) -> None:
    script, output = tmp_path / "outside.py", tmp_path / "output"
    script.write_text(OUTSIDE)
    with output.open("wb") as file:
        how: dict[str, Any] = {"stdout": file, "stderr": file}
        warm_python.start([str(script)], {}, ROOT, **how).wait(60)
    assert output.read_text() == "True False\n"


async def test_picture_shows_the_last_two_weeks(stage: Stage) -> None:
    fake = stage.fake
    async with stage.bot() as bot:
        answer = await read(stage)
        assert not answer.files, "nothing to draw"
        await tell(bot.app, [ended(stage, day) for day in (0, 13, 14)])
        for door in ("$", "/"):
            if door == "/":
                asked = await fake.slash(stage.channel_id, "stats")
                answer = await fake.answered(asked)
                assert answer.only_for is None
            else:
                answer = await read(stage)
            [file] = answer.files
            assert file.data.startswith(PNG)
            assert answer.embeds[0]["image"]["url"] == f"attachment://{file.filename}"
        today = int(now() // DAY_S)
        stats = module("stats")
        picture = await stats.by_day(bot.app, fake.guild.id, today)
    assert picture.parts == {"youtube": [1, *([0] * 12), 1]}
    assert len(picture.labels) == 14
    assert re.fullmatch(r"\d\d-\d\d", picture.labels[0])


async def test_picture_of_many_sites_keeps_the_largest_apart(stage: Stage) -> None:
    async with stage.bot() as bot:
        for number in range(9):
            jobs = [ended(stage, platform=f"site{number}") for _ in range(number + 1)]
            await tell(bot.app, jobs)
        await tell(bot.app, [ended(stage, platform="")])
        today = int(now() // DAY_S)
        picture = await module("stats").by_day(bot.app, stage.fake.guild.id, today)
    sums = {name: sum(values) for name, values in picture.parts.items()}
    large = {f"site{number}": number + 1 for number in range(8, 2, -1)}
    assert sums == {**large, "other": 1 + 2 + 3 + 1}
    assert list(sums) == [*large, "other"] and len(sums) == len(COLOURS)


def colour(image: Image.Image, name: str) -> int:
    """How many pixels have one of the colours, about."""
    wanted = tuple(int(name[i : i + 2], 16) for i in (1, 3, 5))
    counts = image.convert("RGB").getcolors(2**24) or []
    return sum(
        n
        for n, found in counts
        if isinstance(found, tuple)
        and max(abs(a - b) for a, b in zip(found, wanted, strict=True)) < 8
    )


def test_bars_are_as_high_as_their_numbers() -> None:
    parts = {"a": [10, 0, 0], "b": [10, 5, 0]}
    image = Image.open(io.BytesIO(draw(["1", "2", "3"], parts)))
    assert image.format == "PNG" and image.size == (1100, 520)
    legend = 22 * 22
    a, b = (colour(image, COLOURS[n]) - legend for n in (0, 1))
    assert b / a == pytest.approx(1.5, rel=0.05)


def test_picture_of_anything_can_be_drawn() -> None:
    for values in ([0] * 14, [10**9] * 14, [1] + [0] * 13):
        assert draw(["x"] * 14, {"a" * 300: values, "日本": values}).startswith(PNG)
    assert draw([], {}).startswith(PNG)
    assert [grid(n) for n in (0, 1, 5, 6, 11, 26, 70, 10**6)] == [
        *(1, 1, 1, 2, 5, 10, 20, 200000)
    ]


async def test_picture_that_cannot_be_drawn_is_left_out(
    stage: Stage, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage.bot() as bot:
        await tell(bot.app, [ended(stage)])
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        answer = await read(stage)
        assert "**1**" in answer.text and not answer.files
        assert "image" not in answer.embeds[0]
    assert any("picture of /stats cannot be drawn" in line for line in logged)


async def test_drawing_says_why_it_failed() -> None:
    with pytest.raises(RuntimeError, match="ValueError"):
        await Picture(["x"], {"a": [1], "b": []}).draw()


async def test_stats_without_permissions_of_the_bot(stage: Stage) -> None:
    fake = stage.fake
    async with stage.bot() as bot:
        await tell(bot.app, [ended(stage)])
        await fake.deny_member(stage.channel_id, fake.bot.id, "attach_files")
        answer = await read(stage)
        assert "**1**" in answer.text and not answer.files
        await fake.deny_member(stage.channel_id, fake.bot.id, "embed_links")
        answer = await read(stage)
        assert "Ask an admin to give me: Embed Links." in answer.content


# What it costs


async def test_stats_scan_no_table(stage: Stage) -> None:
    statements: list[str] = []
    async with stage.bot() as bot:
        await tell(bot.app, [ended(stage)])
        app, today = bot.app, int(now() // DAY_S)
        connection = app.database.connection  # type: ignore[attr-defined]
        await connection.set_trace_callback(statements.append)
        await tell(app, [ended(stage)])
        for guild_id in (stage.fake.guild.id, -1):
            await module("stats").shown(app, guild_id, today)
            await module("stats").by_day(app, guild_id, today)
        await connection.set_trace_callback(None)
    mine = {s for s in statements if re.search(r"\bstats", s)}
    assert len(mine) > 10
    path = stage.folder / "data" / "bossbot.db"
    with sqlite3.connect(path) as database:
        for statement in mine:
            plan = database.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
            assert not [row for row in plan if "SCAN" in row[3]], statement


async def test_rows_grow_with_days_and_not_with_jobs(stage: Stage) -> None:
    async with stage.bot() as bot:
        await tell(bot.app, [ended(stage)])
        tables = ("stats", "stats_times", "stats_members")
        before = [await rows(bot.app, table) for table in tables]
        await tell(bot.app, [ended(stage) for _ in range(50)])
        assert [await rows(bot.app, table) for table in tables] == before


async def rows(app: App, table: str) -> int:
    row = await app.database.one(f"SELECT count(*) FROM {table}")
    assert row
    return int(row[0])
