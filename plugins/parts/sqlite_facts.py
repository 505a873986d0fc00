"""Small facts that belong to the bot, in its SQLite file."""

from collections.abc import Callable

from bossbot import App, Facts, Part, hookimpl


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
            sql = "SELECT value FROM facts WHERE key = ?"
            sets = self._sets
            row = await self.app.database.one(sql, key)
            value = str(row[0]) if row else ""
            if self._sets != sets:  # it may be an old one
                return value
            self._known[key] = value
        return self._known[key]

    async def set(self, key: str, value: str) -> None:
        """See ``Facts``."""
        self._sets = number = self._sets + 1
        self._known.pop(key, None)  # even a cancelled one may be there
        if value:
            sql = "INSERT OR REPLACE INTO facts VALUES (?, ?)"
            await self.app.database.all(sql, key, value)
        else:
            await self.app.database.all("DELETE FROM facts WHERE key = ?", key)
        if self._sets == number:  # none that may have come later, of the same fact
            self._known[key] = str(value or "")
