"""The settings that each server has of its own, in ``data/guilds/{guild_id}.toml``."""

import asyncio
import contextlib
import copy
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tomli_w
from bossbot_plugins._files import write_atomically
from loguru import logger
from pydantic import SecretStr, ValidationError
from pydantic_core import to_jsonable_python

from bossbot import (
    BROKEN_GUILD,
    App,
    Guilds,
    Part,
    PluginConfig,
    Refused,
    _,
    explain,
    hookimpl,
    parse_toml,
)


@hookimpl
def register_parts() -> dict[str, Callable[[App], Part]]:
    return {"guilds": TomlGuilds}


class TomlGuilds(Guilds):
    """The ``Guilds`` in files, read again when they were edited by hand, of whose last
    good state ``last_good`` has copies."""

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self.folder = app.settings.data_dir / "guilds"
        self._known: dict[int, tuple[Any, dict[str, Any]]] = {}
        self._turn = asyncio.Lock()

    def _paths(self, guild_id: int) -> tuple[Path, Path]:
        name = f"{guild_id}.toml"
        return self.folder / name, self.folder / "last_good" / name

    def tables(self, guild_id: int) -> dict[str, Any]:
        """See ``Guilds``."""
        try:
            status = os.stat(f"{self.folder}/{guild_id}.toml")
            file = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            file = None
        stamp = (file, self.app.plugins.changes)  # what is wrong, plugins say
        known = self._known.get(guild_id)
        if not known or known[0] != stamp:
            tables = self._read(guild_id, known and known[1])
            known = self._known[guild_id] = (stamp, tables)
        return copy.deepcopy(known[1])

    def _read(self, guild_id: int, before: dict[str, Any] | None) -> dict[str, Any]:
        """The tables of a file, or those of its last good state."""
        path, good = self._paths(guild_id)
        text, tables = "", None
        try:
            with contextlib.suppress(FileNotFoundError):
                text = path.read_text("utf-8-sig")
            tables = parse_toml(text)
            wrong = "; ".join(self._mistakes(tables))
        except (OSError, ValueError) as error:
            wrong = str(error) or repr(error)
        if not wrong and tables is not None:
            self.broken.pop(guild_id, None)
            with contextlib.suppress(OSError):  # only a copy, which the next read makes
                if (good.read_bytes() if good.exists() else b"") != text.encode():
                    write_atomically(good, text.encode())
            return tables
        if self.broken.get(guild_id) != wrong:
            self.broken[guild_id] = wrong
            logger.warning("{}: {}", path, wrong)
            self.on_broken(guild_id, wrong)
        if before is None:
            with contextlib.suppress(OSError, ValueError):
                before = parse_toml(good.read_text("utf-8"))
        before = tables if before is None else before
        if before is None:
            raise Refused(_(BROKEN_GUILD))
        return before

    def _mistakes(self, tables: dict[str, Any]) -> list[str]:
        """What is wrong in a guild's settings, a line each; tables of plugins that have
        no hooks on or are not there are not looked at."""
        wrong = []
        for plugin in self.app.plugins.all.values():
            table = tables.get(plugin.stem, {}) if plugin.impls else {}
            try:
                plugin.guild_config.model_validate(table)
            except ValidationError as error:
                lines = explain(error, plugin.guild_config.model_fields)
                wrong += [f"[{plugin.stem}] {line}" for line in lines]
        return wrong

    async def set(
        self, guild_id: int, stem: str, model: type[PluginConfig], key: str, value: Any
    ) -> PluginConfig:
        """See ``Guilds``."""

        def change(table: dict[str, Any]) -> PluginConfig:
            try:
                config = model(**{**table, key: value})
            except ValidationError as error:
                wrong = "; ".join(explain(error, known=model.model_fields))
                raise Refused(wrong) from None
            table[key] = _to_toml(config.model_dump(include={key})[key])
            if table[key] is None:  # which TOML cannot say
                del table[key]
                if getattr(model(**table), key) is not None:
                    raise Refused(_("{key}: this cannot be stored").format(key=key))
            return config

        return await self._change(guild_id, stem, change)

    async def reset(
        self, guild_id: int, stem: str, model: type[PluginConfig], key: str
    ) -> PluginConfig:
        """See ``Guilds``."""

        def change(table: dict[str, Any]) -> PluginConfig:
            table.pop(key, None)
            return model.model_validate(table)

        return await self._change(guild_id, stem, change)

    async def _change(
        self, guild_id: int, stem: str, change: Callable[[dict[str, Any]], PluginConfig]
    ) -> PluginConfig:
        async with self._turn:
            tables = self.tables(guild_id)
            if guild_id in self.broken:  # it may be half edited
                raise Refused(_(BROKEN_GUILD))
            if not isinstance(tables.get(stem), dict):
                tables[stem] = {}
            config = change(tables[stem])
            await asyncio.to_thread(self._write, guild_id, tables)
        return config

    def _write(self, guild_id: int, tables: dict[str, Any]) -> None:
        data = tomli_w.dumps(tables).encode()
        path, good = self._paths(guild_id)
        write_atomically(path, data)
        with contextlib.suppress(OSError):  # the next read makes it
            write_atomically(good, data)


def _to_toml(value: Any) -> Any:
    """A value of a model in what TOML can hold, secrets in plain text; None for None."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Mapping):
        return {str(_to_toml(k)): _to_toml(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_to_toml(one) for one in value]
    return to_jsonable_python(value)
