"""Registers what its settings name, answers links with that, and fails at some."""

from typing import Any

from bossbot import Engine, Job, Platform, PluginConfig, Subcommand, hookimpl

calls: list[str] = []


class Config(PluginConfig):
    platforms: tuple[Any, ...] = ("x",)
    engines: tuple[str, ...] = ()
    subcommands: tuple[str, ...] = ()
    fails: bool = False


class GuildConfig(PluginConfig):
    size: int = 1


@hookimpl
def register_platforms(config: Config) -> list[Platform]:
    url = "https://{}.example/"
    names = config.platforms
    return [Platform(name, url.format(name), url.format(name), "e") for name in names]


@hookimpl
def register_engines(config: Config) -> list[Engine]:
    if config.fails:
        raise ZeroDivisionError
    return [Engine(name, str, list, bool, print) for name in config.engines]


@hookimpl
def register_subcommands(config: Config) -> list[Subcommand]:
    return [Subcommand(name, "help", print) for name in config.subcommands]


@hookimpl
async def answer_job(job: Job, config: Config) -> str:
    calls.append(job.url)
    if job.url == "fail":
        raise RuntimeError("again")
    return ", ".join(config.platforms)
