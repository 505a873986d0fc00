"""A bot on the fake Discord, with an engine that does what a link says.

The path of a link to `toy.example` is a list of steps, made by `link()`:

    file=NAME     a file of the stage's media folder is downloaded
    wait=GATE     progress is told until the test calls `open_gate(GATE)`
    hang=GATE     the same, but no progress is told after the first
    sleep=0.2     nothing happens for so many seconds
    facts=NAME    what was put down with `facts(NAME, title=..., text=...)` is told
    alt=NAME      what was put down with `alt(NAME, text)` is on the next file
    lose=CAUSE    one item could not be fetched, the others go on
    fail=CAUSE    the download fails
    busy=GATE     the site asks to come again at once, until `open_gate(GATE)`
    steps=NAME    what was put down with `steps(NAME, ...)` is done in the end
"""

import asyncio
import contextlib
import importlib
import itertools
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Literal
from unittest import mock
from urllib.parse import quote

import media
import warm_python
from conftest import (
    CORE,
    PARTS,
    ROOT,
    SUPPORT_PLUGINS,
    be_quick,
    copy_bot,
    our_plugins,
    spread,
)
from fake_discord import FakeDiscord, Message

from bossbot import (
    OURS,
    PLUGIN_PACKAGE,
    App,
    BossBot,
    Job,
    Settings,
    Status,
    open_plugins,
    plugin_folders,
    prepare_data,
)

# What a bot needs to take a link and post its files; a test adds what it is about.
NEEDED = (
    *PARTS,
    "caption",
    "discord_client",
    "discord_courier",
    "download",
    "permissions",
    "progress",
    "run",
)
ENGINES = ("gallery_dl", "yt_dlp")  # those that ask the sites


class WarmServer:
    """Fork servers that know the toy site, and perhaps the real engines: the bots of all
    stages use them one after the other, since to start one takes longer than most
    jobs."""

    def __init__(self) -> None:
        # Each process, and the socket to it, by its engines and what they see of the
        # environment, of which the toy site needs no more than the programs.
        self.idle: dict[str, tuple[Any, Any]] = {}
        self.versions: dict[str, Any] = {}  # of their engines, as a child said once
        self.numbers = itertools.count(1)  # of children, whoever asks for them

    def lend_to(self, runner: Any) -> None:
        """Let a runner take a server when it starts, and leave it when it stops. One
        whose children need another server starts its own, as usual."""
        start, forget = runner._start_server, runner._forget_server
        versions = runner.versions
        runner._numbers = self.numbers
        lent = ""

        def start_server() -> None:
            nonlocal lent
            stems = {*runner.engine_plugins().values()}
            environment = module("child_runner").kept_environment()
            seen = environment.get("PATH") if stems == {"toy"} else environment
            wanted = json.dumps([sorted(stems), seen])
            if runner._server or not stems <= {"toy", *ENGINES} or lent:
                return start()
            process, control = self.idle.pop(wanted, (None, None))
            if process and process.poll() is None:
                runner._server, runner._control = process, control
                loop = asyncio.get_running_loop()
                loop.add_reader(control, runner._read_server)
            else:  # it outlives this bot, whose log it is not for
                with mock.patch.object(runner, "_log_pipe", lambda name: to_nowhere()):
                    start()
            lent = wanted

        def forget_server() -> None:
            stopping = runner.app.stopping.is_set()
            if lent and stopping and runner._control and lent not in self.idle:
                asyncio.get_running_loop().remove_reader(runner._control)
                self.idle[lent] = (runner._server, runner._control)
                runner._server = runner._control = None
            forget()

        async def known_versions() -> Any:
            answer = self.versions.get(lent) or await versions()
            if lent:
                self.versions[lent] = answer
            return answer

        async def no_spare() -> None:
            """No child waits for the next link: see test_child_runner.py for that."""

        runner._start_server, runner._forget_server = start_server, forget_server
        runner._renew_spare, runner.versions = no_spare, known_versions

    def end(self) -> None:
        for process, control in self.idle.values():
            control.close()
            process.wait()


def to_nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY)


class Stage:
    """A fake Discord, the media of the toy site, and the bot's folders."""

    def __init__(
        self,
        fake: FakeDiscord,
        media_folder: Path,
        folder: Path,
        server: WarmServer | None = None,
    ) -> None:
        self.fake = fake
        self.media = media_folder
        self.folder = folder
        self.server = server
        self.plugins = folder / "plugins"  # the owner's
        self._stems = {*NEEDED}
        self._ours: Path | None = None
        self.gates = media_folder / "gates" / f"{folder.parent.name}-{folder.name}"
        self.gates.mkdir(parents=True)
        self.plugins.mkdir()
        toy = media_folder / "toy.py"
        if not toy.exists():  # tests in other processes may look at it now
            made = shutil.copy(SUPPORT_PLUGINS / "toy.py", folder / "made")
            os.replace(made, toy)
        (self.plugins / "toy.py").symlink_to(toy)

    # The toy site

    def open_gate(self, name: str) -> None:
        """Lets every `wait=name` go on, now and later."""
        (self.gates / name).touch()

    def facts(self, name: str, **facts: Any) -> str:
        """The step at which a link tells these facts."""
        (self.gates / f"{name}.json").write_text(json.dumps(facts), "utf-8")
        return f"facts={name}"

    def alt(self, name: str, text: str) -> str:
        """The step at which a link tells what can be seen on its next file."""
        (self.gates / f"{name}.json").write_text(json.dumps(text), "utf-8")
        return f"alt={name}"

    def steps(self, name: str, *steps: str) -> str:
        """The step at which a link does these, until they are others."""
        (self.gates / f"{name}.json").write_text(json.dumps(steps), "utf-8")
        return f"steps={name}"

    def image(self, number: int = 1) -> str:
        """The step of one small picture."""
        return f"file={media.image(self.media, number).name}"

    def images(self, count: int) -> list[str]:
        return [self.image(number) for number in range(1, count + 1)]

    def padded(self, size_bytes: int, number: int = 1) -> str:
        """The step of one picture of exactly this size."""
        return f"file={media.padded_image(self.media, size_bytes, number).name}"

    def bytes_of(self, step: str) -> bytes:
        return (self.media / step.removeprefix("file=")).read_bytes()

    # The bot

    @property
    def ours(self) -> Path:
        """The repository's plugins; a folder of them is made when it is needed."""
        return self._ours or our_plugins(*self._stems)

    @ours.setter
    def ours(self, folder: Path) -> None:
        self._ours = folder

    def add_plugin(self, *names: str) -> None:
        """One of the repository's plugins, or several."""
        assert not self._ours, "their folder is a test's own"
        self._stems.update(names)

    def remove_plugin(self, name: str) -> None:
        self._stems.remove(name)

    def copy_plugin(self, source: Path, name: str = "", **values: object) -> Path:
        """A plugin of the owner's, from a file; at its end, keywords get new values."""
        path = self.plugins / f"{name or source.stem}.py"
        ends = (f"{name} = {value!r}\n" for name, value in values.items())
        path.write_text("".join([source.read_text("utf-8"), *ends]), "utf-8")
        return path

    def write_plugin(self, name: str, code: str) -> None:
        (self.plugins / f"{name}.py").write_text(code, "utf-8")

    def guild_settings(self, text: str, guild_id: int | None = None) -> None:
        """Write a server's file, of the first one or of direct messages (0)."""
        guild_id = self.fake.guild.id if guild_id is None else guild_id
        path = self.folder / "data" / "guilds" / f"{guild_id}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")

    def keep_status_messages(self, keep: bool = True) -> None:
        """Say whether they stay when the files are there, to be read by a test."""
        word = "keep" if keep else "delete"
        for guild_id in (0, self.fake.guild.id):
            text = f'[progress]\nstatus_when_done = "{word}"\n'
            self.guild_settings(text, guild_id)

    def settings(self, **values: Any) -> Settings:
        defaults = {
            "data_dir": self.folder / "data",
            "plugins_dir": self.plugins,
            "allow_writable_plugins": True,  # else each load looks at every file
            "retention__min_free_space": 0,
        }
        return Settings(**spread({**defaults, **values}))

    def app(self, edit_interval_s: float = 0.1, **values: Any) -> App:
        """An app that is not started; the keywords are settings."""
        app = App(self.settings(**values), self.ours)
        app.plugins.load()
        off = {name: one.off for name, one in app.plugins.all.items() if one.off}
        assert not off, off
        module("local_worker").LocalWorker.refused_s = 0.05
        if "problems" in app.plugins.all:  # it gathers and looks
            module("problems").GATHER_S = module("problems").LOOK_S = 0.01
        if progress := app.plugins.all.get("progress"):  # less than an owner may set
            config = module("progress").Config
            progress.config = config.model_construct(edit_interval_s=edit_interval_s)
        prepare_data(app.settings.data_dir)
        if self.server:
            self.server.lend_to(app.runner)
        return be_quick(app)

    @contextlib.asynccontextmanager
    async def bot(
        self,
        options: dict[str, Any] | None = None,
        edit_interval_s: float = 0.1,
        **values: Any,
    ) -> AsyncIterator[BossBot]:
        """A running bot, ready; the keywords are settings, `options` discord.py's."""
        app = self.app(edit_interval_s, discord_token=self.fake.token, **values)
        client = module("discord_client").DiscordClient
        client.options = {"guild_ready_timeout": 0.1, **(options or {})}

        async def at_once(shard_id: int | None, *, initial: bool = False) -> None:
            """Identify without the 5 s that discord.py waits."""

        with self.fake.redirect():
            try:
                app.bot.before_identify_hook = at_once  # type: ignore[method-assign]
                await app.start()
                running = asyncio.create_task(app.client.run())
                ready = asyncio.create_task(app.bot.wait_until_ready())
                done, _ = await asyncio.wait(
                    [running, ready], timeout=60, return_when="FIRST_COMPLETED"
                )
                if running in done:
                    ready.cancel()
                    await running
                yield app.bot
            finally:
                await app.stop()
            await running

    def database(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Runs a statement on the database of a bot that is not running."""
        connection = sqlite3.connect(self.folder / "data" / "bossbot.db")
        with contextlib.closing(connection), connection:
            return connection.execute(sql, values).fetchall()

    def posts(self, job: str = "%") -> list[dict[str, Any]]:
        """The posts of a job, or of the only one, as the database of a bot that is not
        running has them."""
        [row] = self.database("SELECT posts FROM jobs WHERE id LIKE ?", job)
        return list(json.loads(row[0]))

    def set_post(self, number: int, job: str = "%", **fields: Any) -> None:
        """Changes a post there; -1 is the last one."""
        posts = self.posts(job)
        index = number - 1 if number > 0 else number
        posts[index] |= fields
        self.database(
            "UPDATE jobs SET posts = ? WHERE id LIKE ?", json.dumps(posts), job
        )

    def requested(self, kind: str) -> int:
        """How many requests of a kind came to Discord."""
        return sum(request.kind == kind for request in self.fake.requests)

    # The conversation

    @property
    def channel_id(self) -> int:
        return self.fake.channel.id

    def said(self, channel_id: int | None = None) -> list[Message]:
        """What the bot said in a channel, in order, as the member sees it."""
        place = channel_id or self.channel_id
        return self.fake.messages(place, bot_only=True, seen_by=self.fake.member)

    def posted(self, channel_id: int | None = None) -> list[Message]:
        """The bot's messages with files."""
        return [message for message in self.said(channel_id) if message.files]

    async def says(self, text: str, channel_id: int | None = None) -> Message:
        """The member says it."""
        return await self.fake.member_says(channel_id or self.channel_id, text)

    async def hears(
        self,
        *texts: str,
        channel_id: int | None = None,
        after: int = 0,
        timeout_s: float = 60,
    ) -> Message:
        """The bot's first message, newer than `after`, that reads all of these."""

        def find() -> Message | None:
            for message in self.said(channel_id):
                if message.id > after and all(t in message.text for t in texts):
                    return message
            return None

        found: Message = await self.fake.wait_for(find, timeout_s)
        return found

    async def gets(
        self, files: int, channel_id: int | None = None, timeout_s: float = 60
    ) -> list[Message]:
        """The messages with files, once there are so many files."""

        def posted() -> list[Message] | None:
            messages = self.posted(channel_id)
            return messages if sum(len(m.files) for m in messages) >= files else None

        found: list[Message] = await self.fake.wait_for(posted, timeout_s)
        return found


REDIRECTED = ROOT / "tests" / "support" / "run_redirected.py"
Whom = Literal["bot", "bot and server", "tree"]


class BotProcess:
    """`python bossbot.py` in a process of its own, from a copy of its files."""

    def __init__(self, stage: Stage, name: str = "home") -> None:
        self.stage = stage
        self.home = stage.folder / name
        copy_bot(self.home, *CORE)  # beside the stage's plugins
        shutil.copy(SUPPORT_PLUGINS / "quick.py", stage.plugins)
        self.log = stage.folder / ("output.txt" if name == "home" else f"{name}.txt")
        self.process: warm_python.WarmProcess | subprocess.Popen[bytes]

    async def launch(self, *command: str, **variables: str) -> None:
        """Starts it, or a command, whatever becomes of it."""
        values = {
            "discord_token": self.stage.fake.token,
            "data_dir": str(self.stage.folder / "data"),
            "plugins_dir": str(self.stage.plugins),
            "plugins__retention__min_free_space": "0",
        }
        settings = {
            f"BOSS_BOT_{n.upper()}": v for n, v in {**values, **variables}.items()
        }
        plugins = self.home / "plugins"
        plugins.unlink(missing_ok=True)
        plugins.symlink_to(self.stage.ours)
        with self.log.open("ab") as log:
            self.process = warm_python.start(
                [REDIRECTED, self.home / "bossbot.py", *command],
                {
                    "PATH": os.environ["PATH"],
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "FAKE_DISCORD_URL": self.stage.fake.url,
                    **settings,
                },
                self.stage.folder,
                stdout=log,
                stderr=log,
            )

    async def start(self, *command: str, **variables: str) -> None:
        """Starts it and waits until it is connected."""
        sessions = self.stage.fake.sessions
        before = sessions["identify"]
        await self.launch(*command, **variables)
        try:
            await self.stage.fake.wait_for(lambda: sessions["identify"] > before)
        except TimeoutError:
            raise AssertionError(self.output()) from None

    def output(self) -> str:
        return self.log.read_text("utf-8", "replace")

    async def logged(self, text: str) -> None:
        """Returns once it is in the output."""
        async with asyncio.timeout(60):
            while text not in self.output():
                await asyncio.sleep(0.02)

    def family(self) -> list[int]:
        """All processes that came from this copy, the bot and its children."""
        found = [] if self.process.poll() is not None else [self.process.pid]
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # it has just ended
                if str(self.home).encode() in path.read_bytes():
                    found.append(int(path.parent.name))
        return [*{*found}]

    async def ended(self, timeout_s: float = 60) -> int:
        """The exit code."""
        async with asyncio.timeout(timeout_s):
            while (code := self.process.poll()) is None:
                await asyncio.sleep(0.01)
        return code

    async def family_ended(self, timeout_s: float = 60) -> None:
        """Returns once no process is left; fails when one is after that time."""
        async with asyncio.timeout(timeout_s):
            while self.family():
                await asyncio.sleep(0.02)

    async def kill(self, whom: Whom = "tree") -> None:
        """`kill -9`, of the bot alone, with its fork server, or of all processes."""
        pids = [pid for pid in self.family() if whom == "tree" or self._near(pid, whom)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self.ended()

    def _near(self, pid: int, whom: Whom) -> bool:
        """Whether it is the bot, or one that it has started itself."""
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            mine = int(stat[1]) == self.process.pid and whom == "bot and server"
            return pid == self.process.pid or mine
        return False

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


def link(*steps: str) -> str:
    """A link to the toy site."""
    return "https://toy.example/" + "/".join(quote(step, safe="=") for step in steps)


def job_ids(message: Message) -> list[str]:
    """The ids of jobs that a message names: "Download started · `0123456789`"."""
    return re.findall(r"`([0-9a-f]{10})`", message.content)


def job_id(message: Message) -> str:
    """The id of the job that a message names."""
    return job_ids(message)[0]


def module(plugin: str) -> Any:
    """A plugin's module, to set its figures for a test."""
    name = f"{PLUGIN_PACKAGE}.{plugin}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:  # the last app of another test had no such
        open_plugins(plugin_folders(OURS))
        return importlib.import_module(name)


async def until(is_so: Callable[[], Awaitable[Any]], timeout_s: float = 60) -> None:
    """Returns once it is so, of what no event tells: rows, files, tasks."""
    async with asyncio.timeout(timeout_s):
        while not await is_so():
            await asyncio.sleep(0.01)


async def job_when(
    bot: BossBot, job: str, is_so: Callable[[Job], bool], timeout_s: float = 60
) -> Job:
    """The stored job once it is so."""
    queue = bot.app.queue
    async with asyncio.timeout(timeout_s):
        async for _ in queue.changes():
            stored = await queue.get(job)
            if stored and is_so(stored):
                return stored
    raise AssertionError("changes() never ends")


async def job_at(bot: BossBot, job: str, status: Status) -> Job:
    return await job_when(bot, job, lambda stored: stored.status is status)
