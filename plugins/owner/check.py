"""``check``: checks this machine for missing tools; with ``--login``, tries whether the
platforms' cookies still work."""

import argparse
import asyncio
import shutil
from typing import Any

from bossbot_plugins._walls import standing
from pydantic import ByteSize

from bossbot import (
    App,
    Cause,
    Finding,
    Job,
    JobFailed,
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
# One small file is enough for a probe.
PROBE = {
    "max_items": 1,
    "max_download_size": ByteSize(2**24),
    "max_file_size": ByteSize(2**24),
}


@hookimpl
def register_subcommands() -> list[Subcommand]:
    return [
        Subcommand("check", "check this machine for missing tools", check, arguments)
    ]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--login", action="store_true", help="try each platform's cookies instead"
    )


async def check(app: App, args: argparse.Namespace) -> int:
    """Print every plugin's findings; returns 1 if the bot cannot run, or a login is
    dead."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    if args.login:
        return await check_logins(app, console)
    versions = await app.runner.versions()
    for engine, (version, _) in versions.items():
        console.print(f"ok       {engine} {version}")
    for wall, stands in standing().items():
        if stands:
            console.print(f"ok       a wall around {wall}")
    found = [f for some in await app.plugins.call("check_machine") for f in some]
    for platform in app.plugins.registered("platforms").values():
        if platform.cookies_file and not platform.cookies_file.is_file():
            what, cost = f"{platform.cookies_file} is missing", "there is no login"
            remedy = f"Correct cookies_file in [plugins.{platform.name}]."
            found.append(Finding(what, f"{platform.name}: {cost}", remedy))
    for plugin in app.plugins.all.values():
        if plugin.off and plugin.stem not in app.settings.disabled_plugins:
            what = f"the plugin {plugin.stem} is off"
            found.append(Finding(what, one_line(plugin.off), "Correct it."))
    for finding in found:
        label = "missing" if finding.fatal else "advice"
        console.print(f"{label:<8} {finding.what}: {finding.cost}.")
        console.print(f"         {finding.remedy}")
    if not found:
        console.print("ok       nothing is missing")
    return int(any(finding.fatal for finding in found))


async def check_logins(app: App, console: Any) -> int:
    """Try the cookies of each platform that has some; returns 1 if any are dead."""
    app.settings = app.settings.model_copy(update=PROBE)
    platforms = [
        platform
        for platform in app.plugins.registered("platforms").values()
        if platform.cookies_file or any(platform.cookies.values())
    ]
    for platform in app.plugins.registered("platforms").values():
        platform.options["extract_flat"] = True  # yt-dlp: name a list's videos only
    found = await asyncio.gather(*(try_login(app, one) for one in platforms))
    for platform, (state, why) in zip(platforms, found, strict=True):
        console.print(f"{state:<8} {platform.name}{': ' if why else ''}{why}")
        if state == "dead":
            console.print(f"         Set new cookies in [plugins.{platform.name}].")
    if not found:
        console.print("unknown  no platform has cookies: see docs/logins.md")
    return int(any(state == "dead" for state, _ in found))


async def try_login(app: App, platform: Platform) -> tuple[str, str]:
    """Open the platform's probe; returns "alive", "dead" or "unknown", and why."""
    file = platform.cookies_file
    if file and not file.is_file():
        return "dead", f"{file} is missing"
    if not platform.login_probe:
        return "unknown", "there is no page to test this login with"
    url = platform.login_probe
    engine = platform.engine_for(url)
    job = Job(url=url, platform=platform.name, engine=engine)
    try:
        await app.worker.fetch(job, lambda progress: None)
    except JobFailed as error:
        if error.cause not in OPENED:
            state = "dead" if error.cause in SHUT else "unknown"
            return state, f"{error} ({one_line(error.detail)[:300]})"
    finally:
        await app.storage.forget_attempt(job)
    return "alive", ""


@hookimpl
def check_machine(settings: Settings) -> list[Finding]:
    findings = []
    if not settings.discord_token:
        findings.append(
            Finding(
                "the Discord token is missing",
                "the bot cannot connect",
                "Start `python bossbot.py` on a terminal, or set "
                "BOSS_BOT_DISCORD_TOKEN in .env.",
                fatal=True,
            )
        )
    free = shutil.disk_usage(settings.data_dir).free
    if free < 2 * settings.max_job_size:
        findings.append(
            Finding(
                f"only {free // 2**20} MiB are free in {settings.data_dir}",
                "downloads may fail",
                "Make room, or set data_dir to a larger disk.",
            )
        )
    return findings
