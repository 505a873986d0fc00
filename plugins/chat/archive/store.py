"""The archive's file."""

from bossbot import Archive


class SQLiteArchive(Archive):
    """The ``Archive`` in an SQLite file of its own."""
