"""A command that says words, and perhaps a fault where it is registered. A test sets
others at the end of its copy."""

from typing import Any

from discord.ext import commands

from bossbot import BossBot, hookimpl

NAME = WORDS = "hello"
FAULT = ""


def fail(*arguments: Any) -> None:
    raise ZeroDivisionError


@hookimpl
def register_commands(bot: BossBot) -> Any:
    @commands.hybrid_command(name=NAME, description=f"Say {WORDS}.")
    async def say(ctx: commands.Context[Any]) -> None:
        await ctx.send(WORDS)

    match FAULT:
        case "to_dict":
            say.app_command.to_dict = fail
        case "fail":
            fail()
        case "raise":
            raise KeyError
        case "exit":
            raise SystemExit
        case "return":
            return 5
    return [say]
