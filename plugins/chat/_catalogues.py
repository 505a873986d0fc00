"""The translations of all texts: the languages, and the names and descriptions of
commands for Discord."""

from collections.abc import Iterable
from gettext import GNUTranslations, NullTranslations
from pathlib import Path

from discord import Locale, app_commands
from discord.app_commands import TranslationContextLocation as Where

FOLDER = Path(__file__).with_name("_locale")
NAMES = (Where.command_name, Where.group_name)


def load(folder: Path = FOLDER) -> dict[str, NullTranslations]:
    """The catalogues by language: {"de": ...}. Raises OSError."""
    found: dict[str, NullTranslations] = {}
    for path in sorted(folder.glob("*.mo")):
        with path.open("rb") as file:
            found[path.stem] = GNUTranslations(file)
    return found


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
