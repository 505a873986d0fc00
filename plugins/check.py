"""``check``: what this machine lacks, what that costs, and how to get it."""

import argparse
import shutil
import sys

from rich.console import Console

from bossbot import Finding, Pipeline, Settings, Subcommand, find_programs, hookimpl


@hookimpl
def register_subcommands() -> list[Subcommand]:
    return [Subcommand("check", "say what this machine lacks", check)]


async def check(pipeline: Pipeline, args: argparse.Namespace) -> int:
    """Print every plugin's findings; returns 1 if the bot cannot run."""
    console = Console(highlight=False, markup=False)
    pipeline.children.start()
    try:
        files = pipeline.children.engine_files()
        versions = await pipeline.children.ask("versions", plugins=files)
    finally:
        await pipeline.children.stop()
    for engine, version in versions.items():
        console.print(f"ok       {engine} {version}")
    found = [f for some in await pipeline.plugins.call("check_host") for f in some]
    for finding in found:
        label = "missing" if finding.fatal else "advice"
        console.print(f"{label:<8} {finding.what}: {finding.cost}.")
        console.print(f"         {finding.remedy}")
    if not found:
        console.print("ok       nothing is missing")
    return int(any(finding.fatal for finding in found))


@hookimpl
def check_host(settings: Settings) -> list[Finding]:
    programs = find_programs()
    findings = []
    if settings.discord_token is None:
        findings.append(
            Finding(
                "no Discord token",
                "the bot cannot connect",
                "Start `python bossbot.py` on a terminal, or set "
                "BOSS_BOT_DISCORD_TOKEN in .env.",
                fatal=True,
            )
        )
    if "ffmpeg" not in programs or "ffprobe" not in programs:
        findings.append(
            Finding(
                "no ffmpeg",
                "videos whose sound comes apart are fetched in a lower quality",
                "Debian: apt install ffmpeg. macOS: brew install ffmpeg.",
            )
        )
    if not programs.keys() & {"deno", "node", "bun", "qjs"}:
        findings.append(
            Finding(
                "no JavaScript runtime",
                "most of YouTube does not work",
                f"{sys.executable} -m pip install deno, or install Node.js.",
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
