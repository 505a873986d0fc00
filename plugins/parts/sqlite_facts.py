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
    """The ``Facts`` in the table ``facts``."""

    async def get(self, key: str) -> str:
        """See ``Facts``."""
        row = await self.app.database.one("SELECT value FROM facts WHERE key = ?", key)
        return str(row[0]) if row else ""

    async def set(self, key: str, value: str) -> None:
        """See ``Facts``."""
        if value:
            sql = "INSERT OR REPLACE INTO facts VALUES (?, ?)"
            await self.app.database.all(sql, key, value)
        else:
            await self.app.database.all("DELETE FROM facts WHERE key = ?", key)
