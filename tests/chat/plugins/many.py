"""Many commands, with a help of their own or of the settings."""

from discord.ext import commands

from bossbot import PluginConfig, hookimpl


class Config(PluginConfig):
    help: str = ""


@hookimpl
def register_commands(bot, config):
    def make(number):
        @commands.hybrid_command(name=f"many{number:02}")
        async def many(ctx):
            pass

        many.help = config.help or f"Do number {number}."
        return many

    return [make(number) for number in range(29)]
