"""``which``: say which platform and engine a link would go to."""

import argparse
import json
import sys

from bossbot import Pipeline, Refused, Subcommand, check_link, hookimpl


@hookimpl
def register_subcommands() -> list[Subcommand]:
    return [Subcommand("which", "say who would fetch a link", which, arguments)]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("urls", nargs="+", metavar="URL", help="- for lines of stdin")


async def which(pipeline: Pipeline, args: argparse.Namespace) -> int:
    """Print a JSON line for each link; returns 1 if any has no engine."""
    lines = sys.stdin if args.urls == ["-"] else args.urls
    links = [line.strip() for line in lines if line.strip()]
    pipeline.children.start()
    try:
        answers = [await answer(pipeline, link) for link in links]
    finally:
        await pipeline.children.stop()
    for one in answers:
        print(json.dumps(one))
    return 0 if all(one["engine"] for one in answers) else 1


async def answer(pipeline: Pipeline, link: str) -> dict[str, str | None]:
    """What is printed for one link; ``error`` is there when it was refused."""
    try:
        _, name, engine = await pipeline.route(check_link(link))
    except Refused as error:
        platform = error.platform or None
        return {"url": link, "platform": platform, "engine": None, "error": str(error)}
    return {"url": link, "platform": name or None, "engine": engine or None}
