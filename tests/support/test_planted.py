"""The search for planted secrets at the end of a run finds them, whatever file they
are in. It is tried outside of the folders that it searches."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import planted
import pytest
from conftest import ROOT
from fake_discord import FakeDiscord
from sites_canned.instagram import Instagram
from sites_canned.twitter import Twitter


@pytest.fixture
def outside() -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        yield Path(folder)


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def test_planted_secret_is_found_in_every_kind_of_file(outside: Path) -> None:
    put(outside / "t0/data/logs/a.log", "INFO cookie=planted-log; ok")
    put(outside / "t0/data/downloads/1/metadata.json", '{"url": "a?t=planted-link-1"}')
    put(outside / "t0/data/temp/x/home/cookies.txt", "\tplanted-left-behind\n")
    put(outside / "t1/output.txt", f"Bot {FakeDiscord().token}")
    os.mkfifo(outside / "t1" / "pipe")
    path = outside / "t1" / "data" / "bossbot.db"
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE jobs (url, detail)")
        database.execute("INSERT INTO jobs VALUES ('?a=planted-link-2', 'planted-row')")
        in_the_log = set(planted.leaks(outside))
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        in_the_file = set(planted.leaks(outside))
    others = {
        "planted-log in t0/data/logs/a.log",
        "planted-link-1 in t0/data/downloads/1/metadata.json",
        "planted-left-behind in t0/data/temp/x/home/cookies.txt",
        "FakeDiscord.token in t1/output.txt",
    }
    assert in_the_log == {"planted-row in t1/data/bossbot.db-wal", *others}
    assert in_the_file == {"planted-row in t1/data/bossbot.db", *others}


def test_planted_secret_may_be_where_the_owner_put_it(outside: Path) -> None:
    names = (".env", "config.toml", "data/config.toml", "cookies.txt", "plugins/a.py")
    for name in names:
        put(outside / name, "planted-by-the-owner")
    assert not list(planted.leaks(outside))


def test_secrets_of_another_form_are_known() -> None:
    used = {FakeDiscord().token, Twitter.auth_token, Instagram.session_id}
    assert used <= set(planted.OTHERS.values())
    for name in ("test_command_line", "test_logging", "test_settings"):
        code = (ROOT / "tests" / "core" / f"{name}.py").read_bytes()
        assert "TOKEN" in planted.secrets_in(code)


LEAKY = """
def test_that_writes(tmp_path):
    (tmp_path / "log").write_text("planted-" + "secret")


def test_that_prints():
    print("planted-" + "word")
"""


@pytest.mark.parametrize("workers", ["0", "1"])
def test_run_that_leaves_a_secret_fails_and_names_it(
    outside: Path, workers: str
) -> None:
    put(outside / "test_it.py", LEAKY)
    command = f"-m pytest -p planted -p no:cacheprovider --basetemp run -n {workers}"
    done = subprocess.run(
        [sys.executable, *command.split()],
        cwd=outside,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests" / "support")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and "2 passed" in done.stdout, done.stdout
    assert "planted-secret in" in done.stdout
    assert "test_that_writes0/log, a file of" in done.stdout
    assert "planted-word in what test_it.py::test_that_prints printed" in done.stdout


def test_folders_of_a_run_are_kept_for_the_search(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.getini("tmp_path_retention_policy") == "all"
