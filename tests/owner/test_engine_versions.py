"""The engines' versions and ages."""

import asyncio
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import gallery_dl
import pytest
from bossbot_plugins._child import age_days
from discord_support import Stage
from platform_support import listening

pytest_plugins = ("discord_fixtures",)


def days_ago(days: int, form: str = "%Y.%m.%d") -> str:
    return (datetime.now(UTC) - timedelta(days=days)).strftime(form)


@pytest.mark.parametrize("days", [0, 1, 59, 61, 400])
def test_dated_version_is_as_old_as_its_date(days: int) -> None:
    assert age_days("yt-dlp", days_ago(days)) == days
    assert age_days("yt-dlp", days_ago(days) + ".123456") == days  # a nightly


def test_other_version_is_as_old_as_its_installation() -> None:
    folder = Path(gallery_dl.__file__).parent.parent
    [info] = folder.glob("gallery_dl-*.dist-info")
    since = datetime.fromtimestamp(info.stat().st_mtime, UTC).date()
    days = (datetime.now(UTC).date() - since).days
    # Days begin at other times in other zones.
    assert abs(age_days("gallery-dl", gallery_dl.__version__) - days) <= 1


def test_engine_that_is_no_package_has_no_age() -> None:
    assert age_days("an-engine-of-the-owners", "1") is None
    assert age_days("an-engine-of-the-owners", "2025.99.99") is None, "no such day"


async def test_start_names_the_engines_and_how_to_update_the_old_one(
    stage: Stage, logged: list[str]
) -> None:
    stage.add_plugin("engine_versions")
    shutil.copy(Path(__file__).parent / "plugins" / "dated.py", stage.plugins)
    with listening("toy 1") as heard:
        async with stage.bot(), asyncio.timeout(60):
            await heard.wait()
    lines = [line for line in logged if line.split()[1] in ("old", "new", "toy")]
    new, old, toy = lines
    assert new == f"INFO new {days_ago(60)}, 60 days old"
    assert old.startswith(f"WARNING old {days_ago(61)} is 61 days old")
    assert "pip install -U -r requirements.txt" in old
    assert toy == "INFO toy 1"
    assert not any("failed in" in line for line in logged)
