"""Reads posts: the site's texts about them, and the texts in their files."""

import contextlib
import json
import math
import re
from functools import partial
from pathlib import Path

import discord
from bossbot_plugins._cues import cues
from bossbot_plugins._jobs import place_of
from bossbot_plugins._media import mime_of
from bossbot_plugins._shared import shared_queue
from loguru import logger

from bossbot import (
    App,
    Job,
    MediaFile,
    OutOfReach,
    Passage,
    Post,
    in_thread,
    now,
    one_line,
)

from ._file import PostRow
from ._pieces import windows

MAX_TITLE, MAX_NAME, MAX_URL = 300, 100, 2000  # characters
MAX_BYTES = 2**20  # of a text file
SUBTITLES = (".srt", ".vtt")
TOPIC = "archive"  # of questions to other machines
MAX_SOURCE = 20  # characters
ASK_S = 300.0  # for an answer: pictures are read, and speech


def sent_of(job: Job) -> list[Post]:
    """The posts of a job that are in their channels. What it joined has them itself."""
    if job.joins:
        return []
    return [post for post in job.posts if post.state == "sent" and post.message_id]


def row_of(job: Job) -> PostRow:
    """A job that has posted something, as the archive keeps it."""
    sent = sent_of(job)
    kinds = {mime_of(n).partition("/")[0] for post in sent for n in post.files}
    known = [kind for kind in ("image", "video", "audio") if kind in kinds]
    return PostRow(
        job_id=job.id,
        guild_id=job.guild_id,
        channel_id=place_of(job, sent[0]),
        user_id=job.user_id,
        posted_at=job.finished_at or now(),
        platform=job.platform,
        url=one_line(job.url)[:MAX_URL],
        kinds=" ".join(known or ["text"]),
        title=one_line(job.title[: 4 * MAX_TITLE])[:MAX_TITLE],
        uploader=one_line(str(job.facts.get("uploader") or "")[:MAX_URL])[:MAX_NAME],
        adult=bool(job.facts.get("adult")),
        hidden=bool(job.options.get("spoiler")),
    )


def messages_of(job: Job) -> list[tuple[int, int]]:
    """The messages of a job's posts, and their channels."""
    return [(post.message_id, place_of(job, post)) for post in sent_of(job)]


def said_of(job: Job) -> list[Passage]:
    """The site's texts about a post."""
    title, text = job.title, str(job.facts.get("text") or "")
    if title.rstrip("… .")[:80] in text:  # many titles are its beginning
        title = ""
    said = "\n".join(filter(None, (title, text)))
    passages = [Passage(said or str(job.facts.get("uploader") or ""), "text")]
    for post in sent_of(job):
        passages += [Passage(alt, "alt") for alt in post.alts.values()]
    return passages


def parent_of(app: App, channel_id: int) -> int:
    """The channel that a public thread is in; 0 for anything else."""
    return public_parent(app.bot.get_channel(channel_id)) if app.has_gateway else 0


def public_parent(channel: object) -> int:
    if isinstance(channel, discord.Thread) and not channel.is_private():
        return channel.parent_id
    return 0


async def ask_for_texts(app: App, job: Job) -> list[Passage]:
    """What is in the files of a job that another machine has. Raises ValueError and
    TypeError for an answer that makes no sense, and TimeoutError without one."""
    queue = shared_queue(app)
    answer = await queue.ask(job.worker, TOPIC, job.id, ASK_S) if queue else None
    if answer is None:
        raise TimeoutError(f"{job.worker} does not answer")
    passages = []
    for text, source, start_s in json.loads(answer):
        known = start_s is not None and 0 <= float(start_s) < math.inf
        start = float(start_s) if known else None
        passages.append(Passage(str(text), str(source)[:MAX_SOURCE], start))
    return passages


async def answer_with_texts(app: App, subtitles: bool) -> None:
    """Answer with the texts in this machine's files, as long as the bot runs."""
    if not (queue := shared_queue(app)):
        return
    async for question in queue.questions(TOPIC):
        passages = list[Passage]()
        with logger.catch(message="posted files cannot be read"):
            if job := await queue.get(question.text):
                passages = await read_files(app, job, subtitles)
        some, left = [], MAX_BYTES // 4
        for passage in passages:
            left -= len(passage.text)
            if left > 0:
                some.append([passage.text, passage.source, passage.start_s])
        with contextlib.suppress(OutOfReach):  # it asks again
            await question.answer(json.dumps(some, ensure_ascii=False))


async def read_files(app: App, job: Job, subtitles: bool) -> list[Passage]:
    """The texts in the kept files of a job: text files, subtitles, and the findings of
    plugins."""
    if not job.folder:
        return []
    names = [name for post in sent_of(job) for name in post.files]
    try:
        kept = await app.storage.kept_files(job, names)
        beside = await app.storage.beside(job)
    except OSError:  # they have just been removed
        return []
    passages = []
    for file in [*kept, *beside]:
        if file.mime == "text/plain":
            passages += await in_thread(partial(read_text, file, subtitles))
    for file in kept:
        found = await app.plugins.call("extract_text", job=job, file=file)
        passages += [passage for some in found for passage in some]
    return passages


def read_text(file: MediaFile, subtitles: bool) -> list[Passage]:
    """The passages of a text file."""
    text = start_of(file.path)
    if file.path.suffix.lower() not in SUBTITLES:
        return [Passage(text)]
    if not subtitles:
        return []
    return windows((seconds(start), words) for start, _, words in cues(text))


def start_of(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(MAX_BYTES).decode("utf-8-sig", "replace")


def seconds(clock: str) -> float:
    """ "00:01:02,500" in seconds."""
    hours, minutes, rest = re.split(":", clock)
    return int(hours) * 3600 + int(minutes) * 60 + float(rest.replace(",", "."))
