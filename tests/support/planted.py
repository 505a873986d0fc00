"""The secrets that tests plant, and the search for them in all that a run has left.

A planted secret begins with "planted-", one in a link's query with "planted-link-";
what needs another form is listed here. At the end of every run its temporary folders,
and what its tests printed, are searched; a secret where none belongs fails the run.
"""

import os
import re
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

OTHERS = {
    "FakeDiscord.token": "fake.discord.token",
    "Twitter.auth_token": "0123456789abcdef0123456789abcdef01234567",
    "Instagram.session_id": "1234567890%3Acanned%3A1",
    "TOKEN": "GsEcRe.very-secret-token",
    "COOKIE": "cookie-0123456789abcdef",
    "one of test_logging's": "another-secret-",
    "an interaction's token": "NDU2Nzg5_long-and-secret",
    "a variable of the environment": "hush-key",
    "planted-link-of-test_file_storage": "token=hush",
}
OWNERS = {".env", "config.toml", "cookies.txt", "cookies.owner"}
FOUND = pytest.StashKey[list[str]]()
printed: dict[str, str] = {}  # by each test
searched: dict[str, list[str]] = {}  # what each of xdist's workers found in its folder


def secrets_in(content: bytes) -> set[str]:
    """Their names."""
    names = {name for name, secret in OTHERS.items() if secret.encode() in content}
    if b"planted-" in content:
        # SQLite puts nothing between two values.
        found = re.findall(rb"planted-(?:(?!planted-)[\w-])*", content)
        names |= {name.decode() for name in found}
    return names


def belongs(secret: str, path: Path) -> bool:
    """Whether it may be in a file: where the owner or a test put it, and, as the queue
    needs a link whole, a link's in the database. The rest of a bot's data has none."""
    if "data" not in path.parts[:-1]:
        return path.name in OWNERS or path.suffix == ".py"
    if path.name.startswith("bossbot."):
        return secret.startswith("planted-link-")
    return path.parts[-2:] == ("data", "config.toml")


def leaks(folder: Path, without: Collection[str] = ()) -> Iterator[str]:
    """What is where it does not belong: "planted-cookie in data/logs/a.log"; ``without``
    has the folders in it that are left out."""
    known: dict[tuple[int, int], set[str]] = {}  # many files are copies
    for parent, folders, names in os.walk(folder):
        if Path(parent) == folder:
            folders[:] = [name for name in folders if name not in without]
        # Most files are the bot's own code, in its copies.
        code = "data" not in Path(parent).relative_to(folder).parts
        for name in names:
            if code and name.endswith(".py"):
                continue  # it may have any
            place = f"{parent}/{name}"
            try:
                # Not every one is a file: reading a pipe would never end.
                if not stat.S_ISREG(os.lstat(place).st_mode):
                    continue
                with open(place, "rb") as file:
                    content = file.read()
            except FileNotFoundError:  # a process of the last test was still ending
                continue
            same = len(content), hash(content)
            if same not in known:
                known[same] = secrets_in(content)
            where = Path(place).relative_to(folder)
            for secret in sorted(known[same]):
                if not belongs(secret, where):
                    yield f"{secret} in {where}"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    printed[report.nodeid] = report.capstdout + report.capstderr + report.caplog


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """One of xdist's workers has ended; one that crashed has searched nothing."""
    searched.update(getattr(node, "workeroutput", {}).get("leaks", {}))


@pytest.hookimpl(trylast=True)  # the fixtures, or the workers, have ended
def pytest_sessionfinish(session: pytest.Session) -> None:
    config: Any = session.config
    folder: Path = config._tmp_path_factory.getbasetemp()
    if hasattr(config, "workerinput"):  # its folder is in the controller's
        found = [f"{leak}, a file of {folder}" for leak in leaks(folder)]
        config.workeroutput["leaks"] = {folder.name: found}
        return
    found = [f"{leak}, a file of {folder}" for leak in leaks(folder, searched)]
    found += [leak for leaks_of_one in searched.values() for leak in leaks_of_one]
    for test, text in printed.items():
        names = secrets_in(text.encode(errors="replace"))
        found += [f"{name} in what {test} printed" for name in sorted(names)]
    session.config.stash[FOUND] = found
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if found := config.stash.get(FOUND, []):
        terminalreporter.section("Secrets where none belongs", red=True)
        for line in found:
            terminalreporter.line(line)
