"""``archive``: the archive on the command line, for the owner."""

import argparse
import sqlite3
from typing import TYPE_CHECKING

from bossbot_plugins._archive import Query

from bossbot import App, Refused, Subcommand, format_size, one_line

if TYPE_CHECKING:
    from .store import SQLiteArchive


def subcommand() -> Subcommand:
    what = "see, search and rebuild the archive of posts"
    return Subcommand("archive", what, run, arguments)


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser(
        "status", help="show the number of posts and the state of search"
    )
    actions.add_parser("rebuild", help="rebuild the index from the texts")
    search = actions.add_parser("search", help="search the posts of a server")
    search.add_argument("text", nargs="+", metavar="TEXT", help="words to search for")
    search.add_argument(
        "--guild", type=id_of, required=True, metavar="ID", help="the server's id"
    )


def id_of(text: str) -> int:
    """A number as Discord's ids are. Raises ArgumentTypeError."""
    if not (text.isascii() and text.isdigit() and int(text[:30]) < 2**63):
        raise argparse.ArgumentTypeError("that is not an id")
    return int(text)


async def run(app: App, args: argparse.Namespace) -> int:
    """Run one of the actions; returns 1 if there is no archive."""
    from ._file import Newer
    from .store import own_archive

    archive = own_archive(app)
    if not archive or not archive.path.is_file():
        print(
            "There is no archive yet. The bot makes it when it first posts something."
        )
        return 1
    try:
        if args.action == "rebuild":
            await archive.rebuild()
            print(
                "The words have been indexed again. The bot adds the missing vectors."
            )
        elif args.action == "search":
            return await print_hits(archive, " ".join(args.text), args.guild)
        else:
            await print_status(archive)
    except Refused as error:
        print(error)
        return 1
    except (sqlite3.Error, Newer) as error:
        print(f"The archive cannot be used: {error}")
        return 1
    return 0


async def print_status(archive: "SQLiteArchive") -> None:
    known = await archive.status()
    print(f"{archive.path}: {format_size(archive.path.stat().st_size)}")
    print(
        f"{known['posts']} posts, {known['pieces']} texts, {known['vectors']} of them "
        f"with a vector, {known['work']} posts whose files are not read yet"
    )
    print(archive.meaning.status())


async def print_hits(archive: "SQLiteArchive", text: str, guild_id: int) -> int:
    channels = await archive.channels_of(guild_id)
    query = Query(text=text, guild_id=guild_id, channels=channels)
    hits = await archive.search(query, limit=10)
    for hit in hits:
        place = f"{hit.guild_id or '@me'}/{hit.channel_id}/{hit.message_id}"
        print(f"{hit.score:.2f}  {one_line(hit.title or hit.sentence)[:70]}")
        print(f"      https://discord.com/channels/{place}")
    if not channels:
        print(f"The archive has no posts of the server {guild_id}.")
    elif not hits:
        print("No posts match.")
    return 0
