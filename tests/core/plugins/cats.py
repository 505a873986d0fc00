"""Misses something on every machine."""

from bossbot import Finding, PluginConfig, hookimpl


class Config(PluginConfig):
    fatal: bool


@hookimpl
def check_machine(config: Config) -> list[Finding]:
    return [Finding("no cat", "no purr", "Get one.", fatal=config.fatal)]
