"""Sees a lighthouse in every picture."""

from bossbot import MediaFile, Passage, hookimpl


@hookimpl
def extract_text(file: MediaFile) -> list[Passage]:
    return [Passage("A lighthouse", "seen")] * (file.mime[:5] == "image")
