"""Says a word of ours in the language of the moment: below a post, and to the facts."""

from bossbot import App, Job, Message, _, hookimpl


@hookimpl
async def decorate_message(message: Message) -> Message:
    message.content += _("Cancelled.")
    return message


@hookimpl
async def job_changed(job: Job, app: App) -> None:
    await app.facts.set(str(job.status), _("Cancelled."))
