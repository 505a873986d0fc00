"""Small facts that belong to the bot, in its SQLite file."""

import sqlite3
from collections.abc import Callable

from bossbot import App, Facts, Part, hookimpl

FIND = "SELECT value FROM facts WHERE key = ?"


@hookimpl
def register_parts() -> dict[str, Callable[[App], Part]]:
    return {"facts": SQLiteFacts}


@hookimpl
def register_tables() -> list[str]:
    return ["CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL)"]


class SQLiteFacts(Facts):
    """The ``Facts`` in the table ``facts``, which no other process writes to."""

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self._known: dict[str, str] = {}  # facts read or written recently
        self._sets = 0  # how many have begun

    async def get(self, key: str) -> str:
        """See ``Facts``."""
        if key not in self._known:
            sets = self._sets
            row = await self.app.database.one(FIND, key)
            value = str(row[0]) if row else ""
            if self._sets != sets:  # it may be an old one
                return value
            self._known[key] = value
        return self._known[key]

    async def set(self, key: str, value: str) -> None:
        """See ``Facts``."""
        await self._store(key, value)

    async def swap(self, key: str, old: str, new: str) -> bool:
        """See ``Facts``."""
        return await self._store(key, new, old)

    async def _store(self, key: str, value: str, old: str | None = None) -> bool:
        """Store a value, or only in place of an old one; whether it is there now."""
        value = str(value or "")

        def store(database: sqlite3.Connection) -> bool:
            if old is not None:
                row = database.execute(FIND, (key,)).fetchone()
                if (row[0] if row else "") != old:
                    return False
            if value:
                sql = "INSERT OR REPLACE INTO facts VALUES (?, ?)"
                database.execute(sql, (key, value))
            else:
                database.execute("DELETE FROM facts WHERE key = ?", (key,))
            return True

        self._sets = number = self._sets + 1
        self._known.pop(key, None)  # even a cancelled one may be there
        stored = await self.app.database.run(store)
        if stored and self._sets == number:  # none may have come later
            self._known[key] = value
        return stored
