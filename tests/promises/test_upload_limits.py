"""What a channel takes: by boosts, by settings, and by what Discord has refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from bossbot_plugins.discord_courier import split_files
from discord_support import Stage, link

from bossbot import BossBot, Job, MediaFile, now

pytest_plugins = ("discord_fixtures",)

MIB = 2**20
DAY_S = 86400.0
LIMITS = [50_000, 50_000, 100_000, 100_000]  # by boost tier
SHRINK = Path(__file__).parent / "plugins" / "shrink.py"


async def learnt(bot: BossBot) -> list[str]:
    rows = await bot.app.database.all(
        "SELECT value FROM facts WHERE key LIKE 'limit:%'"
    )
    return [row[0].partition(" ")[0] for row in rows]


@pytest.mark.parametrize(("before", "after", "size"), [(2, 0, 50_000), (0, 2, 60_000)])
async def test_limit_follows_the_boosts_while_a_link_is_downloaded(
    stage: Stage, before: int, after: int, size: int
) -> None:
    shutil.copy(SHRINK, stage.plugins)
    stage.fake.guild.premium_tier = before
    async with stage.bot(discord_courier__upload_limits=LIMITS) as bot:
        await stage.says(f"$download {link('wait=gate', stage.padded(60_000))}")
        await stage.hears("Downloading")
        await stage.fake.set_premium_tier(after)
        await stage.fake.settle()
        stage.open_gate("gate")
        [message] = await stage.gets(1)
        assert len(message.files[0].data) == size
        assert stage.requested("upload") == 1 and await learnt(bot) == []


async def test_boosts_that_end_before_the_upload_teach_nothing(stage: Stage) -> None:
    stage.fake.guild.premium_tier = 2
    fault = stage.fake.fault("upload", "hang")
    async with stage.bot(discord_courier__upload_limits=LIMITS) as bot:
        await stage.says(f"$download {link(stage.padded(60_000))}")
        await stage.fake.wait_for(lambda: fault.hits)
        await stage.fake.set_premium_tier(0)
        await stage.fake.settle()
        stage.fake.guild.upload_limit_bytes = 50_000
        fault.release()
        await stage.hears("(too_large)", "the limit is 48.8 KiB")
        assert await learnt(bot) == []
    assert stage.requested("upload") == 1


async def test_file_that_discord_refuses_is_made_smaller_and_posted(
    stage: Stage,
) -> None:
    shutil.copy(SHRINK, stage.plugins)
    stage.fake.guild.upload_limit_bytes = 9 * MIB
    async with stage.bot() as bot:
        for number, uploads in ((1, 3), (2, 4)):  # 20 MiB, 10 MiB; then 8 MiB at once
            await stage.says(f"$download {link(stage.padded(12 * MIB, number))}")
            await stage.gets(number)
            assert stage.requested("upload") == uploads
            assert await learnt(bot) == [f"{8 * MIB}"]
    assert [len(m.files[0].data) for m in stage.posted()] == [8 * MIB, 8 * MIB]


async def test_refusal_of_several_files_and_of_other_places_teaches_nothing(
    stage: Stage,
) -> None:
    fake = stage.fake
    fake.request_limit_bytes = 2 * MIB
    steps = [stage.padded(MIB + 1, number) for number in (1, 2, 3)]
    away = await fake.add_guild("Away")
    assert away.guild
    async with stage.bot(download__direct_messages=True) as bot:
        await stage.says(f"$download {link(*steps)}")
        await stage.gets(3)
        assert await learnt(bot) == []
        away.guild.upload_limit_bytes = MIB
        await stage.says(f"$download {link(steps[0])}", away.id)
        await stage.hears("the limit is 1 MiB", channel_id=away.id)
        assert await learnt(bot) == [f"{MIB}"]
        await stage.says(f"$download {link(steps[0])}")
        await stage.gets(4)
        direct = fake.open_dm(fake.member.id)
        await stage.says(f"$download {link(steps[0])}", direct.id)
        await stage.gets(1, direct.id)


async def test_limit_is_the_lowest_of_all(stage: Stage) -> None:
    guild_id = stage.fake.guild.id
    stage.add_plugin("quota")
    async with stage.bot(max_file_size=30 * MIB) as bot:
        courier: Any = bot.app.courier

        async def limit(guild_mib: int = 0, guild: int = guild_id, **known: int) -> int:
            table = {"max_file_size": guild_mib * MIB} if guild_mib else {}
            job = Job(
                id="0123456789",
                url="",
                guild_id=guild,
                channel_id=stage.channel_id,
                guild_settings={"quota": table},
                **known,
            )
            return await courier.limit_bytes(job) // MIB

        # What was learnt counts for a week, whatever the clock says or said.
        key = f"limit:{guild_id}:{20 * MIB}"
        for days_ago, limit_mib in (
            *((0, 8), (6.9, 8), (7.1, 20), (9000, 20)),
            *((-1, 8), (-9000, 8), (None, 8)),  # from the future; or without a time
        ):
            at = "" if days_ago is None else f" {now() - days_ago * DAY_S}"
            await bot.app.facts.set(key, f"{8 * MIB}{at}")
            assert await limit() == limit_mib, days_ago
            if limit_mib == 8:  # never for longer than a week from now
                _, _, written = (await bot.app.facts.get(key)).partition(" ")
                assert float(written) <= now()
        await bot.app.facts.set(key, "")
        assert await limit() == 20
        assert await limit(15) == 15
        assert await limit(25) == 20
        await stage.fake.set_premium_tier(3)
        await stage.fake.settle()
        await bot.app.facts.set(key, f"{8 * MIB} {now()}")  # of other boosts
        assert await limit() == 30  # the owner's
        assert await limit(25) == 25
        assert await limit(guild=0) == 20
        # A server that is not known, as without the gateway: what was found at intake.
        assert await limit(guild=1, limit_bytes=30 * MIB) == 30
        assert await limit(guild=1, limit_bytes=10 * MIB) == 10
        assert await limit(guild=1) == 20


def test_files_keep_their_order_and_a_large_one_goes_alone() -> None:
    def sizes(*sizes_mib: float) -> list[list[float]]:
        path = Path("x")
        files = [MediaFile(path, int(size * MIB), "", "") for size in sizes_mib]
        return [[file.size / MIB for file in group] for group in split_files(files)]

    assert sizes(1, 2, 26, 3, 4) == [[1, 2], [26], [3, 4]]
    assert sizes(26, 26, 1) == [[26], [26], [1]]
    assert sizes(25, 1, 24, 1) == [[25], [1, 24], [1]]
    assert sizes(*[1] * 11, 26, 1) == [[1] * 10, [1], [26], [1]]
    assert sizes() == []
