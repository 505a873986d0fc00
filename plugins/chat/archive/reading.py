"""The text of a post: what the archive reads."""

from bossbot import App, Job, MediaFile, Passage


async def read_file(app: App, job: Job, file: MediaFile) -> list[Passage]:
    """What plugins find in a file."""
    found = await app.plugins.call("extract_text", job=job, file=file)
    return [passage for passages in found for passage in passages]
