"""``which``: show which platform and engine a link would go to."""

import argparse
import json
import sys
from collections.abc import Sequence

from bossbot_plugins._links import find_links, known_by

from bossbot import App, Refused, Route, Subcommand, hookimpl


@hookimpl
def register_subcommands() -> list[Subcommand]:
    return [
        Subcommand(
            "which", "show which platform and engine a link would use", which, arguments
        )
    ]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("urls", nargs="+", metavar="URL", help="- for lines of stdin")


async def which(app: App, args: argparse.Namespace) -> int:
    """Print a JSON line for each link; returns 1 if any has no engine."""
    lines = sys.stdin if args.urls == ["-"] else args.urls
    known = known_by(app.plugins.registered("platforms").values())
    words = [line.strip() for line in lines if line.strip()]
    links = [link for word in words for link in find_links(word, known) or [word]]
    routes = await route_all(app, links)
    for link, route in zip(links, routes, strict=True):
        answer = {"url": link, "platform": route.platform or None, "engine": None}
        if isinstance(route, Refused):
            answer["error"] = str(route)
        else:
            answer["engine"] = route.engine or None
        print(json.dumps(answer))
    return 0 if all(getattr(route, "engine", None) for route in routes) else 1


async def route_all(app: App, links: Sequence[str]) -> list[Route | Refused]:
    """The route of each link, without an engine if nothing can fetch it; or the reason
    for a refusal."""
    routes: list[Route | Refused] = []
    for link in links:
        try:
            routes.append(app.router.route(link))
        except Refused as error:
            routes.append(error)
    others = [r.url for r in routes if isinstance(r, Route) and not r.engine]
    found = await app.runner.supports(others) if others else []
    engines = dict(zip(others, found, strict=True))
    return [
        r._replace(engine=r.engine or engines[r.url]) if isinstance(r, Route) else r
        for r in routes
    ]
