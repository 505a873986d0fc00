"""Jobs as rows of a database: tables and lists are JSON."""

import dataclasses
import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from bossbot import Job, Post

FIELDS = tuple(field.name for field in dataclasses.fields(Job))
POST_FIELDS = tuple(field.name for field in dataclasses.fields(Post))
JSON_FIELDS = ("options", "guild_settings", "facts", "posts", "sources")


def row_of(job: Job) -> dict[str, Any]:
    """A job's fields as a database keeps them."""
    row = {name: getattr(job, name) for name in FIELDS}
    row["posts"] = [
        {name: getattr(post, name) for name in POST_FIELDS} for post in job.posts
    ]
    for name in JSON_FIELDS:
        row[name] = json.dumps(row[name], default=str)
    return row


def job_of(row: Mapping[str, Any] | sqlite3.Row) -> Job:
    """The job of a row that ``row_of`` made; other columns are ignored."""
    if isinstance(row, sqlite3.Row):  # which looks at all names for each one
        row = dict(zip(row.keys(), row, strict=True))
    values = {name: row[name] for name in FIELDS}
    values |= {name: json.loads(values[name]) for name in JSON_FIELDS}
    values["posts"] = [Post(**post) for post in values["posts"]]
    return Job(**values)
