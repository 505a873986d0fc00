"""The image's files: what goes in, who runs it, and how Docker asks for its health. That
it builds and runs, deploy/try-image finds out."""

import asyncio
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CORE, ROOT
from discord_support import Stage
from test_health import address, watched

from bossbot import SHELVES, STOP_WITHIN_S

pytest_plugins = ("discord_fixtures",)

DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text("utf-8")
COMPOSE = (DEPLOY / "compose.yaml").read_text("utf-8")


def copied() -> set[str]:
    """What the Dockerfile takes from the repository."""
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    return {name for line in lines for name in line.split()}


def let_in() -> set[str]:
    """What .dockerignore lets in."""
    text = (ROOT / ".dockerignore").read_text("utf-8")
    return set(re.findall(r"^!(.+)$", text, re.MULTILINE))


def test_image_gets_the_bot_and_nothing_of_the_owners() -> None:
    assert all((ROOT / name).exists() for name in copied() | let_in())
    assert {name.partition("/")[0] for name in copied()} <= let_in()
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in lines and "plugins/*" in lines
    plugins = {name for name in let_in() if name.startswith("plugins/")}
    assert plugins == {f"plugins/{shelf}" for shelf in SHELVES}
    used = (*CORE, "requirements.txt", "config.toml", "plugins")
    assert set(used) <= copied()
    for secret in (".env", "data", "."):
        assert secret not in copied() | let_in()


def test_image_runs_as_nobody_special_and_keeps_its_data_in_one_volume() -> None:
    runs = DOCKERFILE.rpartition("FROM ")[2]
    assert re.search(r"^USER 1000:1000$", runs, re.MULTILINE)
    assert re.findall(r"^VOLUME (.+)$", runs, re.MULTILINE) == ["/data"]
    assert "BOSS_BOT_DATA_DIR=/data " in runs
    assert "BOSS_BOT_PLUGINS_DIR=/data/plugins " in runs
    assert '"tini", "-g"' in runs and "HEALTHCHECK" in runs
    copies = re.findall(r"^COPY .+$", runs, re.MULTILINE)
    assert copies and not [line for line in copies if "--chown" in line]
    if tool := shutil.which("hadolint"):
        subprocess.run(
            [tool, "--ignore", "DL3008", "--ignore", "DL3042", DEPLOY / "Dockerfile"],
            check=True,
        )


def test_compose_shuts_the_container_in_and_lets_uploads_end() -> None:
    bot, _, redis = COMPOSE.partition("\n  redis:")
    for line in (
        "read_only: true",
        "cap_drop: [ALL]",
        "- no-new-privileges:true",
        "env_file: ../.env",
        "- data:/data",
    ):
        assert line in bot, line
    assert {"pids_limit", "mem_limit", "tmpfs"} <= set(re.findall(r"\w+", bot))
    [grace] = re.findall(r"stop_grace_period: (\d+)s", bot)
    assert int(grace) > STOP_WITHIN_S
    assert "profiles: [redis, workers]" in redis and "ports:" not in COMPOSE
    worker = redis.partition("\n  worker:")[2]
    assert "<<: *bot" in worker and "command: [worker]" in worker
    assert "- data:/data" not in worker  # each has its own


def test_worker_of_systemd_is_as_walled_as_the_bot() -> None:
    bot = (DEPLOY / "bossbot.service").read_text("utf-8").splitlines()
    worker = (DEPLOY / "bossbot-worker@.service").read_text("utf-8").splitlines()
    names = {line.partition("=")[0] for line in {*bot} ^ {*worker} if "=" in line}
    assert names == {
        *("Description", "Documentation", "Environment", "ExecStart"),
        "ReadWritePaths",
    }
    assert "Environment=BOSS_BOT_DATA_DIR=/home/bossbot/boss-bot/data-%i" in worker


@pytest.mark.parametrize("name", ["start", "try-image"])
def test_scripts_have_no_mistake_that_shells_find(name: str) -> None:
    script = DEPLOY / name
    assert script.stat().st_mode & 0o111
    shell = script.read_text("utf-8").partition("\n")[0].split("/")[-1].split()[-1]
    subprocess.run([shell, "-n", script], check=True)


async def healthy(listen: str) -> tuple[int, str]:
    """What Docker does every minute."""
    done = await asyncio.to_thread(
        lambda: subprocess.run(
            [sys.executable, "-IS", DEPLOY / "healthy.py"],
            env={"BOSS_BOT_PLUGINS__METRICS__LISTEN": listen},
            capture_output=True,
            text=True,
            timeout=20,
        )
    )
    return done.returncode, done.stdout + done.stderr


async def test_docker_learns_whether_the_bot_is_well(
    stage: Stage, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watched(stage) as bot:
        listen = (await address(logged)).removeprefix("http://")
        code, said = await healthy(listen)
        assert code == 0 and '"status": "ok"' in said
        assert (await healthy(listen.replace("127.0.0.1", "0.0.0.0")))[0] == 0

        async def ill() -> str:
            return "it is ill"

        monkeypatch.setattr(bot.app.database, "health", ill)
        code, said = await healthy(listen)
        assert code == 1 and '"failed": ["database"]' in said
    code, said = await healthy(listen)
    assert code == 1 and "refused" in said
    assert (await healthy("nonsense"))[0] == 1
    assert await healthy("") == (0, "")


def test_docs_say_how_to_run_it() -> None:
    page = (ROOT / "docs" / "install.md").read_text("utf-8")
    assert "docker compose -f deploy/compose.yaml up -d" in page
    assert Path(DEPLOY / "compose.yaml").exists()
