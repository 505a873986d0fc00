"""The nonces of our messages, by which Discord drops a second copy."""

import hashlib

from bossbot import Job


def nonce(job: Job, number: int) -> str:
    """The nonce of one of a job's messages, at most 25 characters. It comes from the
    request, so that two bots with one token do not post twice."""
    key = hashlib.sha256((job.request_key or job.id).encode()).hexdigest()
    return f"{key[:18]}-{number}"
