"""Tells a server, once, that one of its settings needs permissions that the bot
lacks."""

from collections.abc import Sequence

from bossbot_plugins._commands import permission_titles

from bossbot import App, Job, _


async def tell_lack(
    app: App, job: Job, setting: str, permissions: Sequence[str]
) -> str:
    """The text for a server, once until the permissions have been there; "" after
    that."""
    if await app.facts.get(_fact(job, setting)):
        return ""
    await app.facts.set(_fact(job, setting), "told")
    text = _(
        "The setting {setting} of this server needs a permission that I do not have "
        "here. Ask "
        "an admin to give me: {permissions}."
    )
    titles = permission_titles(permissions)
    return text.format(setting=f"`{setting}`", permissions=titles)


async def forget_lack(app: App, job: Job, setting: str) -> None:
    """Note that they are there."""
    if await app.facts.get(_fact(job, setting)):
        await app.facts.set(_fact(job, setting), "")


def _fact(job: Job, setting: str) -> str:
    return f"cannot {setting}:{job.guild_id}"
