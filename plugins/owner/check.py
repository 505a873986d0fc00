"""``check``: what this machine lacks, what that costs, and how to get it; ``--login``:
which platforms' cookies still open what they should."""

import argparse
import asyncio
import dataclasses
import re
import secrets
import shutil

from pydantic import ByteSize
from rich.console import Console

from bossbot import (
    Cause,
    Finding,
    Job,
    JobFailed,
    Pipeline,
    Platform,
    Settings,
    Subcommand,
    hookimpl,
    one_line,
)

# A probe that ends so has seen the page: it was empty, or its file large.
OPENED = (Cause.NO_MEDIA, Cause.TOO_LARGE)
# A login's own page is never gone; to a stranger some sites say that it is.
SHUT = (Cause.LOGIN, Cause.AGE, Cause.PRIVATE, Cause.GONE)
# Of what is probed, one small file is enough.
PROBE = {
    "max_items": 1,
    "max_download_size": ByteSize(2**24),
    "max_file_size": ByteSize(2**24),
}


@hookimpl
def register_subcommands() -> list[Subcommand]:
    return [Subcommand("check", "say what this machine lacks", check, arguments)]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--login", action="store_true", help="try each platform's cookies instead"
    )


async def check(pipeline: Pipeline, args: argparse.Namespace) -> int:
    """Print every plugin's findings; returns 1 if the bot cannot run, or a login is
    dead."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if args.login:
        return await check_logins(pipeline, console)
    try:
        versions = await pipeline.runner.versions()
    finally:
        await pipeline.stop()
    for engine, (version, _) in versions.items():
        console.print(f"ok       {engine} {version}")
    found = [f for some in await pipeline.plugins.call("check_host") for f in some]
    for platform in pipeline.plugins.registered("platforms").values():
        if platform.cookies_file and not platform.cookies_file.is_file():
            what, cost = f"no file {platform.cookies_file}", "there is no login"
            remedy = f"Correct cookies_file in [plugins.{platform.name}]."
            found.append(Finding(what, f"{platform.name}: {cost}", remedy))
    for plugin in pipeline.plugins.all.values():
        if plugin.off and plugin.stem not in pipeline.settings.disabled_plugins:
            what = f"the plugin {plugin.stem} is off"
            found.append(Finding(what, one_line(plugin.off), "Correct it."))
    for finding in found:
        label = "missing" if finding.fatal else "advice"
        console.print(f"{label:<8} {finding.what}: {finding.cost}.")
        console.print(f"         {finding.remedy}")
    if not found:
        console.print("ok       nothing is missing")
    return int(any(finding.fatal for finding in found))


async def check_logins(pipeline: Pipeline, console: Console) -> int:
    """Print of each platform with cookies whether they work; returns 1 if any do not."""
    settings = pipeline.settings.model_copy(update=PROBE)
    prober = Pipeline(settings, pipeline.plugins)
    platforms = [
        platform
        for platform in pipeline.plugins.registered("platforms").values()
        if platform.cookies_file or any(platform.cookies.values())
    ]
    for plugin in pipeline.plugins.all.values():  # yt-dlp: name a list's videos only
        plugin.platforms[:] = [
            dataclasses.replace(p, options={**p.options, "extract_flat": True})
            for p in plugin.platforms
        ]
    try:
        found = await asyncio.gather(*(try_login(prober, one) for one in platforms))
    finally:
        await prober.stop()
    for platform, (state, why) in zip(platforms, found, strict=True):
        console.print(f"{state:<8} {platform.name}{': ' if why else ''}{why}")
        if state == "dead":
            console.print(f"         Set new cookies in [plugins.{platform.name}].")
    if not found:
        console.print("unknown  no platform has cookies: see Logins in the README")
    return int(any(state == "dead" for state, _ in found))


async def try_login(pipeline: Pipeline, platform: Platform) -> tuple[str, str]:
    """Open the platform's probe; returns "alive", "dead" or "unknown", and why."""
    file = platform.cookies_file
    if file and not file.is_file():
        return "dead", f"there is no file {file}"
    if not platform.login_probe:
        return "unknown", "no page is known that opens with a login alone"
    url = platform.login_probe
    routed = (e for p, e in platform.routes if re.match(p, url, re.IGNORECASE))
    engine = next(routed, platform.engine)
    job = Job(secrets.token_hex(5), url, platform.name, engine)
    try:
        await pipeline.runner.fetch(job, lambda progress: None)
    except JobFailed as error:
        if error.cause not in OPENED:
            state = "dead" if error.cause in SHUT else "unknown"
            return state, f"{error} ({one_line(error.detail)[:300]})"
    finally:
        await asyncio.to_thread(pipeline.storage.forget_attempt, job)
    return "alive", ""


@hookimpl
def check_host(settings: Settings) -> list[Finding]:
    findings = []
    if not settings.discord_token:
        findings.append(
            Finding(
                "no Discord token",
                "the bot cannot connect",
                "Start `python bossbot.py` on a terminal, or set "
                "BOSS_BOT_DISCORD_TOKEN in .env.",
                fatal=True,
            )
        )
    if not settings.message_content:
        findings.append(
            Finding(
                "message_content is false",
                f"{settings.command_prefix} commands work only where the bot is "
                "mentioned",
                "Switch on the intent at https://discord.com/developers/applications "
                "under Bot, and set message_content = true.",
            )
        )
    free = shutil.disk_usage(settings.data_dir).free
    if free < 2 * settings.max_job_size:
        findings.append(
            Finding(
                f"only {free // 2**20} MiB free in {settings.data_dir}",
                "downloads may fail",
                "Make room, or set data_dir to a larger disk.",
            )
        )
    return findings
