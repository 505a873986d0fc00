"""Looks once a day for newer releases of the engines and of the bot, and sends the owner
a message about each."""

import asyncio
import contextlib
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from importlib import metadata

import aiohttp
from bossbot_plugins._discord import tell_once_a_day
from bossbot_plugins._update import commands
from loguru import logger
from pydantic import Field, field_validator

import bossbot
from bossbot import HERE, App, PluginConfig, hookimpl, now

FIRST_S, LOOK_S = 300.0, 3600.0  # after the start, and between two looks at the clock
ANSWER_S = 30.0
MAX_BYTES = 2**21  # of an answer: the index names each file of each release
# What is released for everybody: no candidate, and nothing that is not a version.
VERSION = r"(\d{1,8}(?:\.\d{1,8}){0,4})"
IN_INDEX = re.compile(rf'"version": ?"{VERSION}"'.encode())
IN_TAGS = re.compile(rf"\trefs/tags/v?{VERSION}$".encode(), re.MULTILINE)
# Nobody is there to answer questions, and a redirect could lead anywhere.
GIT = (
    *("git", "-c", "http.followRedirects=false"),
    *("ls-remote", "--tags", "--refs"),
)
SILENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS": "",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
}


class Config(PluginConfig):
    """[plugins.releases] in config.toml."""

    check_interval_s: float = Field(
        86400, ge=0, description="time between two checks for new releases; 0: none"
    )
    index: str = Field(
        "https://pypi.org/pypi/{name}/json",
        description="a package's entry in the package index; {name} is its name",
    )

    @field_validator("index")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if not re.match(r"https?://[^/\s]+/\S*\{name\}", value):
            raise ValueError("expected https://, a host, and {name} for the package")
        return value


@hookimpl
async def run(app: App, config: Config) -> None:
    if not config.check_interval_s or not app.has_gateway:
        return
    await asyncio.sleep(FIRST_S)
    while True:
        with logger.catch(
            level="WARNING", message="new releases could not be looked up"
        ):
            await look(app, config)
        await asyncio.sleep(LOOK_S)


async def look(app: App, config: Config) -> None:
    """Look for new releases, unless that was done less than the interval ago, even before
    a restart; send the owner a message about those that are new."""
    asked, told = "releases:asked", "releases:told"
    ago_s = now() - float(await app.facts.get(asked) or 0)
    if 0 <= ago_s < config.check_interval_s:
        return
    await app.facts.set(asked, str(int(now())))  # also if there is no answer
    found = [one async for one in news(app, config)]
    newest = {name: new for name, _, new in found}
    known = json.loads(await app.facts.get(told) or "{}")
    if not newest.items() - known.items():
        return
    said = ", ".join(f"{name} {new} ({runs} runs)" for name, runs, new in found)
    logger.info("new releases: {}", said)
    text = (
        f"New releases: {said}. Sites change, and the engines follow. Update in the "
        f"bot's folder, then start the bot again (docs/install.md):\n`{commands()}`\n"
        "Each release is announced once; `check_interval_s = 0` in "
        "`[plugins.releases]` switches this off."
    )
    if await tell_once_a_day(app, "problem:releases", text):
        await app.facts.set(told, json.dumps({**known, **newest}))


async def news(app: App, config: Config) -> AsyncIterator[tuple[str, str, str]]:
    """Programs with a newer release: the name, the running version, and the new one."""
    for name, (runs, _) in (await app.runner.versions()).items():
        with contextlib.suppress(metadata.PackageNotFoundError):
            metadata.version(name)  # an engine of the owner's own is on no index
            new = await newest_in_index(config.index.replace("{name}", name))
            if numbers(new) > numbers(runs):
                yield name, runs, new
    new = await newest_tag()
    if numbers(new) > numbers(bossbot.__version__):
        yield "Boss-Bot", bossbot.__version__, new


def numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with, () for none; as tuples compare."""
    found = re.match(VERSION, version)
    return tuple(map(int, found[1].split("."))) if found else ()


async def newest_in_index(url: str) -> str:
    """The newest version of a package, "" if its index does not say. Follows no
    redirect, and reads no more than it takes to find the version."""
    try:
        async with (
            asyncio.timeout(ANSWER_S),
            aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # a small answer could become a large one
                trust_env=True,  # the owner's proxy, as pip uses it
            ) as session,
            session.get(
                url, headers={"Accept-Encoding": "identity"}, allow_redirects=False
            ) as answer,
        ):
            if answer.status != 200:
                raise ValueError(f"the answer is {answer.status}")
            read, end = 0, b""
            async for chunk in answer.content.iter_chunked(2**16):
                read, end = read + len(chunk), end[-100:] + chunk
                if found := IN_INDEX.search(end):
                    return found[1].decode()
                if read > MAX_BYTES:
                    break
            raise ValueError("the answer has no version")
    except (aiohttp.ClientError, OSError, ValueError) as error:  # or a timeout
        logger.debug("no version in the index: {!r}", error)
        return ""


async def newest_tag() -> str:
    """The newest version among the tags of the repository that the bot was cloned from,
    "" if there is none that answers."""
    if not (HERE / ".git").exists():
        return ""
    kept = {n: v for n, v in os.environ.items() if not n.startswith("BOSS_BOT_")}
    start = asyncio.create_task(
        asyncio.create_subprocess_exec(
            *GIT,
            cwd=HERE,
            env={**kept, **SILENT},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
    )
    said = b""
    try:
        git = await asyncio.shield(start)  # cancelled half way, its children would stay
        assert git.stdout
        async with asyncio.timeout(ANSWER_S):
            said = await git.stdout.readexactly(MAX_BYTES)
    except asyncio.IncompleteReadError as error:
        said = error.partial
    except OSError as error:
        logger.debug("no tags from the repository: {!r}", error)
    finally:
        with contextlib.suppress(OSError):  # git is missing
            git = await start
            with contextlib.suppress(ProcessLookupError):
                os.killpg(git.pid, signal.SIGKILL)
            await git.wait()
    found = [match[1].decode() for match in IN_TAGS.finditer(said)]
    return max(found, key=numbers, default="")
