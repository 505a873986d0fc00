"""The set-up dialogue and the invite link, on a terminal, with a small Discord."""

import asyncio
import os
import pty
import re
import select
import signal
import stat
from collections.abc import AsyncIterator, Callable, Iterator

import discord
import pytest
import warm_python
from conftest import Home
from discord_support import REDIRECTED
from fake_discord import FakeDiscord

PROMPT = "(it is not shown): "
KEY = "BOSS_BOT_DISCORD_TOKEN"


class Terminal:
    """A program on a terminal of its own, and what it shows."""

    def __init__(self, script: list[str], home: Home, **variables: str) -> None:
        self.shown, self.seen = "", 0
        self.file, theirs = pty.openpty()
        self.process = warm_python.start(
            script,
            home.environment(OWN_TERMINAL="yes", **variables),
            home.path,
            **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        )
        self.theirs = theirs

    async def shows(self, text: str) -> None:
        """Returns once this text is there, after the one asked for before."""
        while text not in self.shown[self.seen :]:
            assert await asyncio.to_thread(self._read, 30), self.shown
        self.seen = self.shown.index(text, self.seen) + len(text)

    def _read(self, timeout_s: float) -> bool:
        ready, _, _ = select.select([self.file], [], [], timeout_s)
        if ready:
            self.shown += os.read(self.file, 4096).decode()
        return bool(ready)

    def types(self, line: str) -> None:
        os.write(self.file, f"{line}\n".encode())

    async def ended(self) -> int:
        """The exit code."""
        code = await asyncio.to_thread(self.process.wait, 30)
        while self._read(0):
            pass
        return code

    def close(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self.file)
        os.close(self.theirs)


Start = Callable[..., Terminal]


@pytest.fixture
def home(home_without_engines: Home) -> Home:
    return home_without_engines


@pytest.fixture
async def fake() -> AsyncIterator[FakeDiscord]:
    async with FakeDiscord() as fake:
        yield fake


@pytest.fixture
def start(fake: FakeDiscord, home: Home) -> Iterator[Start]:
    started: list[Terminal] = []

    def run(*words: str, **variables: str) -> Terminal:
        terminal = Terminal(
            [str(REDIRECTED), str(home.path / "bossbot.py"), *words],
            home,
            FAKE_DISCORD_URL=fake.url,
            BOSS_BOT_PLUGINS__RETENTION__MIN_FREE_SPACE="0",
            **variables,
        )
        started.append(terminal)
        return terminal

    yield run
    for terminal in started:
        terminal.close()


async def test_first_start_asks_until_the_token_works_and_goes_on(
    start: Start, fake: FakeDiscord, home: Home
) -> None:
    (home.path / ".env").write_text("BOSS_BOT_MAX_ITEMS=7\n")
    terminal = start()
    await terminal.shows(PROMPT)
    terminal.types("not-a-token")
    await terminal.shows("That is not a bot token")
    await terminal.shows(PROMPT)
    terminal.types("unknown.to.discord")
    await terminal.shows("Discord does not accept this token")
    await terminal.shows(PROMPT)
    terminal.types(f"  Bot {fake.token} ")
    await terminal.shows("connected as")
    terminal.process.send_signal(signal.SIGTERM)
    assert await terminal.ended() == 0
    assert f"client_id={fake.bot.id}" in terminal.shown
    assert "discord.com/oauth2/authorize" in terminal.shown
    assert fake.token not in terminal.shown
    env = home.path / ".env"
    assert env.read_text() == f"BOSS_BOT_MAX_ITEMS=7\n{KEY}={fake.token}\n"
    assert stat.S_IMODE(env.stat().st_mode) == 0o600


@pytest.mark.parametrize("key", ["\x03", "\x04"], ids=["Ctrl-C", "Ctrl-D"])
async def test_dialogue_can_be_given_up(start: Start, home: Home, key: str) -> None:
    terminal = start()
    await terminal.shows(PROMPT)
    for _time in range(6):  # Python may miss one that comes just before it reads
        os.write(terminal.file, key.encode())
        if await asyncio.to_thread(terminal.process.poll, 5) is not None:
            break
    assert await terminal.ended() == 2
    assert "discord.com/developers" in terminal.shown
    assert "Nothing was changed" in terminal.shown
    assert "Traceback" not in terminal.shown
    assert not (home.path / ".env").exists()


def test_dialogue_without_a_terminal_takes_the_token_from_a_pipe(home: Home) -> None:
    done = home.run("setup", text_in="not-a-token\n")
    assert done.returncode == 2
    assert "That is not a bot token" in done.stdout
    assert "Nothing was changed" in done.stdout
    assert done.stderr == ""


async def test_other_token_in_the_environment_is_told_of(
    start: Start, fake: FakeDiscord
) -> None:
    terminal = start("setup", **{KEY: "an.other.token"})
    await terminal.shows(PROMPT)
    terminal.types(fake.token)
    assert await terminal.ended() == 0
    assert f"another {KEY}, which takes precedence. Unset it." in terminal.shown


async def test_env_file_that_cannot_be_written_is_named_with_a_remedy(
    start: Start, fake: FakeDiscord, home: Home
) -> None:
    terminal = start("setup")
    await terminal.shows(PROMPT)
    (home.path / ".env").mkdir()
    terminal.types(fake.token)
    assert await terminal.ended() == 2
    assert f"Make it writable, or set {KEY}" in terminal.shown
    assert "Traceback" not in terminal.shown


# The invite link, without the dialogue


async def test_invite_prints_the_link_and_its_permissions_in_words(
    start: Start, fake: FakeDiscord
) -> None:
    terminal = start("invite", **{KEY: fake.token})
    assert await terminal.ended() == 0
    assert f"client_id={fake.bot.id}" in terminal.shown
    assert "scope=bot+applications.commands" in terminal.shown
    [permissions] = re.findall(r"permissions=(\d+)", terminal.shown)
    asked = [name for name, on in discord.Permissions(int(permissions)) if on]
    [words] = re.findall(r"It asks for: (.+)\.", terminal.shown)
    assert len(words.split(", ")) == len(asked)
    assert "Attach Files" in words and "attach_files" in asked
    assert "Manage Messages (delete_request" in terminal.shown  # where it is needed
    assert fake.token not in terminal.shown


@pytest.mark.parametrize("token", ["", "unknown.to.discord"])
async def test_invite_without_a_token_that_works_says_what_to_run(
    start: Start, token: str
) -> None:
    terminal = start("invite", **{KEY: token})
    assert await terminal.ended() == 2
    assert "Run: python bossbot.py setup" in terminal.shown
    assert "Traceback" not in terminal.shown
