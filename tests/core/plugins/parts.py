"""Makes the part that is set, of a class with the plugin's name, unless it has a fault."""

from collections.abc import Callable
from functools import partial
from typing import Any

from bossbot import PARTS, App, PluginConfig, StartError, hookimpl


class Config(PluginConfig):
    part: str = ""
    fault: str = ""


def fail(app: App) -> None:
    raise ZeroDivisionError("division by zero")


def leave(app: App) -> None:
    raise SystemExit(3)


def make_nothing(app: App) -> str:
    return "no part"


def ask_for_nothing() -> None: ...


def cannot_start(app: App) -> None:
    raise StartError("Start Redis first.")


@hookimpl
def register_parts(config: Config) -> dict[str, Callable[..., Any]]:
    if not config.part:
        return {}
    contract = PARTS[config.part]
    methods = {"get"} if "half" in config.fault else contract.__abstractmethods__
    name = __name__.rpartition(".")[2]
    made = type(name, (contract,), dict.fromkeys(methods))
    faults = {"": made, "half": made, "half, by a partial": partial(made)}
    for fault in (fail, leave, make_nothing, ask_for_nothing, cannot_start):
        faults[fault.__name__] = fault
    return {config.part: faults[config.fault]}
