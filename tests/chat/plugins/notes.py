"""A plugin of somebody else's, with rows about members."""

from bossbot import hookimpl


@hookimpl
def register_tables():
    return [
        "CREATE TABLE notes (guild_id INTEGER, user_id INTEGER, text TEXT)",
        "CREATE TABLE notes_of_all (user_id INTEGER, text TEXT)",
        "CREATE TABLE notes_totals (guild_id INTEGER, count INTEGER)",
    ]
