"""Decides whether kept files may be posted again instead of a download."""

from bossbot import Job, Status

# A file of this share of its limit would have come in a larger form, had there been one.
SMALL = 1 / 4


def may_serve(kept: Job, job: Job) -> bool:
    """Whether the kept files of an earlier job may be posted for a later one, and would
    not be larger if they were fetched for it. Files that were fetched with the owner's
    account stay on their server."""
    here, there = (one.guild_id or one.channel_id for one in (job, kept))
    if kept.status is not Status.COMPLETED or not kept.folder or kept.facts.get("lost"):
        return False
    if here != there and kept.facts.get("login"):
        return False
    small = kept.total_bytes <= kept.limit_bytes * SMALL
    return small or 0 < job.limit_bytes <= kept.limit_bytes
