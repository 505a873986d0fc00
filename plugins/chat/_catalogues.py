"""The translations of all texts: the languages, and the names and descriptions of
commands for Discord."""

import hashlib
import struct
from collections.abc import Iterable, Mapping
from functools import cached_property
from gettext import GNUTranslations, NullTranslations
from pathlib import Path

from discord import Locale, app_commands
from discord.app_commands import TranslationContextLocation as Where
from loguru import logger

FOLDER = Path(__file__).with_name("_locale")
NAMES = (Where.command_name, Where.group_name)


class Catalogue(NullTranslations):
    """The texts of a language, read when the first one is needed; English if they cannot
    be read."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    @cached_property
    def _texts(self) -> NullTranslations:
        try:
            with self.path.open("rb") as file:
                return GNUTranslations(file)
        except (OSError, ValueError, struct.error) as error:  # cut off, or no catalogue
            logger.error("{} cannot be read: {!r}. Restore it.", self.path, error)
            return NullTranslations()

    def gettext(self, message: str) -> str:
        return self._texts.gettext(message)

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return self._texts.ngettext(msgid1, msgid2, n)

    def pgettext(self, context: str, message: str) -> str:
        return self._texts.pgettext(context, message)


def load(folder: Path = FOLDER) -> dict[str, NullTranslations]:
    """The catalogues by language: {"de": ...}."""
    return {path.stem: Catalogue(path) for path in sorted(folder.glob("*.mo"))}


def fingerprint(catalogues: Mapping[str, NullTranslations]) -> list[str]:
    """What changes with the texts of catalogues, which are not read for it."""
    paths = (getattr(one, "path", None) for one in catalogues.values())
    return [
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
        if path and path.is_file()
    ]


def closest(locale: str, known: Iterable[str]) -> str:
    """The language that we have for one of Discord's: "es" for "es-419"."""
    short = locale.partition("-")[0]
    names = {name.partition("-")[0]: name for name in known} | {n: n for n in known}
    return names.get(locale) or names.get(short) or "en"


class CommandTexts(app_commands.Translator):
    """The texts of slash commands and menu entries for Discord."""

    def __init__(self, catalogues: dict[str, NullTranslations]) -> None:
        self.catalogues = {
            one: catalogues.get(closest(one.value, catalogues)) for one in Locale
        }

    async def translate(
        self,
        string: app_commands.locale_str,
        locale: Locale,
        context: app_commands.TranslationContextTypes,
    ) -> str | None:
        """See ``Translator``; None for what stays English."""
        catalogue = self.catalogues[locale]
        if catalogue is None or context.location is Where.parameter_name:
            return None
        text = string.message
        menu = isinstance(context.data, app_commands.ContextMenu)
        if context.location in NAMES and not menu:
            found = catalogue.pgettext("name", text)
        elif context.location is Where.choice_name:
            found = catalogue.pgettext("choice", text)
        else:
            found = catalogue.gettext(text)
        return found if found != text else None
