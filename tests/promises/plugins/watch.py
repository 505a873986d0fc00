"""Notes down what its hooks see of a gallery, and turns each part round."""

from bossbot import hookimpl

seen = []


@hookimpl
async def process_files(job, files):
    seen.append(("process", job.facts.get("adult"), len(files)))
    return files[::-1]


@hookimpl
async def check_upload(job, files):
    seen.append(("upload", job.facts.get("adult"), len(files)))
