"""``get``: download links from the command line, with no Discord."""

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bossbot_plugins._links import find_links, known_by
from pydantic import ByteSize, TypeAdapter

from bossbot import (
    App,
    BossbotError,
    Cause,
    Job,
    JobFailed,
    Progress,
    StartError,
    Subcommand,
    format_size,
    hookimpl,
    one_line,
)


@hookimpl
def register_subcommands() -> list[Subcommand]:
    return [Subcommand("get", "download links, without Discord", get, arguments)]


def size(text: str) -> int:
    """Bytes of "20MiB"."""
    try:
        return TypeAdapter(ByteSize).validate_python(text)
    except ValueError as error:
        wrong = f"{text!r} is not a size; write one such as 20MiB"
        raise argparse.ArgumentTypeError(wrong) from error


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("urls", nargs="+", metavar="URL")
    parser.add_argument(
        "--to",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="folder for the files; default: the current one",
    )
    parser.add_argument(
        "--limit",
        type=size,
        metavar="20MiB",
        help="make larger files fit, or skip them",
    )


async def get(app: App, args: argparse.Namespace) -> int:
    """Download every link into a folder; returns 1 if any failed."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bars

    # Typed by a person here: relative to where they are.
    folder = Path.cwd() / args.to
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        wrong = f"--to {folder}: {error.strerror}. Choose another folder."
        raise BossbotError(wrong) from error
    interrupt = signal.getsignal(signal.SIGINT)  # everything is tidied up after it
    if interrupt is signal.SIG_IGN:  # by a shell's "&"
        interrupt = signal.default_int_handler
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    await app.runner.start()
    bars = Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(),
        disable=not sys.stdout.isatty(),
        transient=True,
    )
    slots = asyncio.Semaphore(app.settings.max_concurrent_downloads)

    async def one(url: str) -> bool:
        async with slots:
            task = bars.add_task(one_line(url)[:60], total=None)

            def show(progress: Progress) -> None:
                bars.update(
                    task,
                    description=one_line(progress.name)[:60],
                    completed=progress.done_bytes,
                    total=progress.total_bytes,
                )

            try:
                for line in await download(app, url, folder, args.limit, show):
                    bars.console.print(
                        line, markup=False, highlight=False, soft_wrap=True
                    )
                return True
            except StartError:  # a part is missing, whatever the link
                raise
            except BossbotError as error:
                detail = error.detail if isinstance(error, JobFailed) else ""
                words = [url, str(error), f"({detail.strip()})" if detail else ""]
                print(*filter(None, map(one_line, words)), file=sys.stderr)
                return False
            finally:
                bars.remove_task(task)

    known = known_by(app.plugins.registered("platforms").values())
    urls = [link for url in args.urls for link in find_links(url, known) or [url]]
    with bars:
        results = await asyncio.gather(*map(one, dict.fromkeys(urls)))
    return 0 if all(results) else 1


async def download(
    app: App,
    url: str,
    folder: Path,
    limit: int | None,
    show: Callable[[Progress], None],
) -> list[str]:
    """Download one link; returns a line for each file.

    Raises:
        BossbotError: nothing arrived, or it could not be placed.
    """
    url, platform, engine = app.router.route(url)
    job = Job(url=url, platform=platform, engine=engine)
    job.limit_bytes = limit or 0
    try:
        fetched = await app.worker.complete(job, show)
        files = fetched.files
        lines = []
        fitting = [
            file
            for file in files
            if not file.failure and (limit is None or file.size <= limit)
        ]
        for number, file in enumerate(files, 1):
            which = f"file {number} of {len(files)}"
            if file.failure:
                lines.append(one_line(f"{which}: {file.failure}"))
            elif file not in fitting:
                size, most = format_size(file.size), format_size(limit or 0)
                lines.append(f"too large: {which} is {size}, --limit is {most}")
        if files and not fitting:
            failure = files[0].failure or JobFailed(Cause.TOO_LARGE)
            raise JobFailed(failure.cause, failure.detail, "; ".join(lines))
        try:
            placed = await app.storage.place(job, fitting, folder)
        except OSError as error:
            raise BossbotError(f"--to {folder}: {error.strerror}.") from error
        for file in placed:
            about = ", ".join(filter(None, [format_size(file.size), file.note]))
            lines.append(f"{file.path} ({one_line(about)})")
        if fetched.facts.get("mute"):
            lines.append("without sound: adding it to the picture needs ffmpeg")
        lines += [one_line(f"not fetched: {f} ({f.detail})") for f in fetched.failures]
        if not files:
            lines.append(one_line(str(fetched.facts.get("text", ""))))
        return lines
    finally:
        await app.storage.forget_attempt(job)
