"""Links as people write them, and who may have them downloaded."""

import itertools
import re
import shutil

import pytest
from bossbot_plugins import reddit
from bossbot_plugins._links import Found, find_links, find_spoilers, known_by
from bossbot_plugins.platform_router import check_link
from conftest import SUPPORT_PLUGINS
from discord_support import Stage, job_at, job_id, job_ids, link
from fake_discord import Message

from bossbot import BossBot, Platform, Refused, Status

pytest_plugins = ("discord_fixtures",)

DOORS = ("$", "/")
LINK = "https://a.example/b/c"
OTHER = "https://d.example/e"
WRONG = "https://me:pw@toy.example/"  # is refused at once, with the reason
PLATFORMS = [
    Platform("tube", r"https?://(?:www\.)?youtu\.be/", "https://youtu.be/x", "e"),
    Platform("x", r"https://(?:www\.)?x\.com/", "https://x.com/a", "e"),
]


async def ask(stage: Stage, door: str, words: str) -> int:
    if door == "$":
        return (await stage.says(f"$download {words}")).id
    options = {"url": words} if words else {}
    return await stage.fake.slash(stage.channel_id, "download", options)


async def jobs(bot: BossBot) -> int:
    return len(await bot.app.queue.list())


# What is found

ONE = [
    "[clip]({})",
    "[clip](<{}>)",
    '[clip]({} "a title")',
    "[{0}]({0})",
    "[the [best] clip]({}).",
    "![clip]({})",
    "*{}*",
    "_{}_",
    "**{}**",
    "__{}__",
    "***{}***",
    "**_{}_**",
    "~~{}~~",
    "**see {}**",
    "*{}*, *really*",
    r"\*{}\*",
    r"\<{}\>",
    "||{}||",
    "||**{}**||",
    "`{}`",
    "```{}```",
    "```\n{}\n```",
    "> {}",
    "- {}",
    "1. {}",
    "<{}>",
    "(<{}>)",
    "({})",
    "(see {}).",
    "{{{}}}",
    "[{}]",
    '"{}"',
    "'{}'",
    "“{}”",
    "‘{}’",
    "„{}“",
    "«{}»",
    "「{}」",
    "『{}』。",
    "（{}）",
    "【{}】",
    "《{}》",
    "{}，",
    "{}。",
    "{}、",
    "{}！",
    "{}？",
    "{}；",
    "{}，然后看这个",
    "看看这个{}",
    "{}؟",
    "देखो {}।",
    "{}። እሺ",
    "{}၊",
    "{}։",
    "{}។",
    "{}།",
    "look:{}",
    "look→{}",
    "{}.",
    "{},",
    "{};",
    "{}:",
    "{}!",
    "{}?",
    "{}...",
    "{}…",
    "{}).,;:!?'\"",
    "{} , yes",
    "{}|",
    "| {} |",
    "\u200b{}\u200b",
    "\ufeff{}\ufeff",
    "\u200e{}\u200f",
    "\u2060{}\u2060.",
    "\u2066{}\u2069",
    "{}\u00ad",
    "{}\u200b，",
    "{}\ufe0f",
    "\u00a0{}\u00a0",
    "\u3000{}\u3000",
    "{}…和",
    "{}—really",
    "{}😂",
    "{0} 😂{0}",
    "{}👍🏽❤️!",
    '<a href="{}">clip</a>',
    "<a href='{}'>clip</a>",
    "[url]{}[/url]",
    "[url={}]clip[/url]",
    "[[{}][clip]]",
    "https://\u200b{}",
    "https://{}",
    "http://{}",
    "https://https://{}",
    "https//{}",
    "{0}{0}",
    "{0},{0}",
    "{0}\n{0}",
    "&lt;{}&gt;",
    "&quot;{}&quot;",
]


@pytest.mark.parametrize("words", ONE)
def test_link_is_found_inside_the_text(words: str) -> None:
    assert find_links(words.format(LINK)) == [LINK]


@pytest.mark.parametrize(
    ("words", "links"),
    [
        (f"{LINK},{OTHER}", [LINK, OTHER]),
        (f"{LINK};{OTHER}", [LINK, OTHER]),
        (f"{LINK}|{OTHER}", [LINK, OTHER]),
        (f"{LINK}，{OTHER}", [LINK, OTHER]),
        (f"{LINK}、{OTHER}", [LINK, OTHER]),
        (f"{LINK}{OTHER}", [LINK, OTHER]),
        (f"{LINK})({OTHER}", [LINK, OTHER]),
        (f"<{LINK}><{OTHER}>", [LINK, OTHER]),
        (f"**{LINK}**,**{OTHER}**", [LINK, OTHER]),
        (f"[a]({LINK})[b]({OTHER})", [LINK, OTHER]),
        (f"{LINK}/{OTHER}", [f"{LINK}/{OTHER}"]),  # an archive's
        (f"{LINK}?u={OTHER}", [f"{LINK}?u={OTHER}"]),
        (f"{LINK}?a=1&amp;b=2", [f"{LINK}?a=1&b=2"]),
        (f"{LINK}?a=1&amp;amp;b=2&#38;c=3", [f"{LINK}?a=1&b=2&c=3"]),
        (f"{LINK}?a&copy=1", [f"{LINK}?a&copy=1"]),
        (rf"{LINK}/x\_y\_z", [f"{LINK}/x_y_z"]),
        (rf"{LINK}/\*\~\(d\)", [f"{LINK}/*~(d)"]),
        (f"({LINK}_(d))", [f"{LINK}_(d)"]),
        (f"[clip]({LINK}_(d))", [f"{LINK}_(d)"]),
        (f"{LINK}_(d_(e))", [f"{LINK}_(d_(e))"]),
        (f"{LINK}/[1]", [f"{LINK}/[1]"]),
        (f"(see {LINK})and", [LINK]),
        (f"[{LINK}]and", [LINK]),
        ("http://[2606:4700::1111]/x", ["http://[2606:4700::1111]/x"]),
        ("https://youtu.be/abcdefghij_", ["https://youtu.be/abcdefghij_"]),
        ("my_file https://youtu.be/abcdefghij_", ["https://youtu.be/abcdefghij_"]),
        ("_https://youtu.be/abcdefghij__", ["https://youtu.be/abcdefghij_"]),
        (f"{LINK}?q=x*", [f"{LINK}?q=x*"]),
        (f"{LINK}/中文", [f"{LINK}/中文"]),
        ("HTTPS://A.Example/B", ["HTTPS://A.Example/B"]),
        ("https://", []),
        ("https:// https://.", []),
        ("no link, and/or none", []),
        ("http:a.example ftp://a.example/x", []),
    ],
)
def test_links_are_found_whole_and_apart(words: str, links: list[str]) -> None:
    assert find_links(words) == links


@pytest.mark.parametrize(
    ("words", "links"),
    [
        ("youtu.be/x", ["https://youtu.be/x"]),
        ("YouTu.be/x", ["https://YouTu.be/x"]),
        ("www.youtu.be/x?t=1", ["https://www.youtu.be/x?t=1"]),
        ("x.com/a/status/1", ["https://x.com/a/status/1"]),
        ("youtu.be:443/x", ["https://youtu.be:443/x"]),
        ("youtu.be:8443/x", []),
        ("(youtu.be/x), x.com/a.", ["https://youtu.be/x", "https://x.com/a"]),
        ("youtu.be/x,x.com/a", ["https://youtu.be/x", "https://x.com/a"]),
        ("[clip](youtu.be/x)", ["https://youtu.be/x"]),
        ("||youtu.be/x||", ["https://youtu.be/x"]),
        ("看youtu.be/x", ["https://youtu.be/x"]),
        ("\u200byoutu.be/x\u200b", ["https://youtu.be/x"]),
        (f"{LINK} youtu.be/x", [LINK, "https://youtu.be/x"]),
        (f"{LINK},youtu.be/x", [LINK, "https://youtu.be/x"]),
        (f"{LINK}?u=youtu.be/x", [f"{LINK}?u=youtu.be/x"]),
        ("discord.com/channels/1/2/3", ["https://discord.com/channels/1/2/3"]),
        ("youtu.be", []),  # a word
        ("other.example/x", []),
        ("node.js/x and/or x.community/a", []),
        ("notx.com/a", []),
        ("not.x.com/a", []),
        ("éx.com/a", []),
        ("пx.com/a", []),
        ("me@x.com/a", []),
        ("evil.example\\x.com/a", []),
        ("ev\u200bx.com/a", []),
        ("ftp://x.com/a", []),
    ],
)
def test_known_link_may_lack_its_scheme(words: str, links: list[str]) -> None:
    assert find_links(words, known_by(PLATFORMS)) == links


@pytest.mark.parametrize(
    "link",
    [
        "https://a.exa\u200bmple/x",
        "https://\u200ba.example/x",
        "https://a.example/\u202ex",
        "https://a.example/x\u00ady",
        "https://a.example/x\\y",
        "https://a.example\\@b.example/",
        "https://a\\_b.example/x",
        "https://a.example/\\evil",
    ],
)
def test_what_is_hidden_inside_a_link_stays_refused(link: str) -> None:
    (found,) = find_links(f"({link}).")
    assert found == link
    with pytest.raises(Refused, match="a backslash or a hidden character"):
        check_link(found)


@pytest.mark.parametrize(
    ("words", "hidden"),
    [
        (f"||{LINK}||", True),
        (f"|| {LINK} ||", True),
        (f"||see {LINK}, nice||", True),
        (f"||a|| b ||<{LINK}>||", True),
        (f"{LINK} ||{LINK}||", True),
        (f"||a|| {LINK} ||b||", False),
        (f"||{LINK}", False),
        (f"{LINK}||", False),
    ],
)
def test_spoiler_is_what_stands_between_two_bars(words: str, hidden: bool) -> None:
    assert find_spoilers(words) == [Found(LINK, hidden)]


@pytest.mark.parametrize(
    ("link", "checked"),
    [
        ("https://www.youtube.com:443/watch", "https://www.youtube.com/watch"),
        ("http://a.example:80/x", "http://a.example/x"),
        ("HTTP://a.example:080/x", "http://a.example/x"),
        ("https://a.example:80/x", "https://a.example:80/x"),
        ("http://a.example:443/x", "http://a.example:443/x"),
        ("https://[::1]:443/x", "https://[::1]/x"),
        ("https://faß.example/", "https://xn--fa-hia.example/"),
        ("https://FAẞ.example/", "https://xn--fa-hia.example/"),
        ("https://straße.de/ß", "https://xn--strae-oqa.de/ß"),
        ("https://ς.example/", "https://xn--3xa.example/"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://BÜCHER.example/", "https://xn--bcher-kva.example/"),
        ("https://bu\u0308cher.example/", "https://xn--bcher-kva.example/"),
        ("https://i❤.ws/", "https://xn--i-7iq.ws/"),
        ("https://a。example/", "https://a.example/"),
        ("https://ａ.example/", "https://a.example/"),
        ("https://bü_cher.example/", "https://xn--b_cher-3ya.example/"),
        ("https://مثال.example/", "https://xn--mgbh0fb.example/"),
    ],
)
def test_link_goes_where_browsers_go(link: str, checked: str) -> None:
    assert check_link(link) == checked
    assert check_link(checked) == checked


@pytest.mark.parametrize(
    "link",
    ["https://\u0308a.example/", "https://ü" + "u" * 62 + "/", "https://אa.example/"],
)
def test_host_that_no_browser_takes_is_refused(link: str) -> None:
    with pytest.raises(Refused, match="host"):
        check_link(link)


@pytest.mark.parametrize(
    ("path", "goal"),
    [
        ("/link/abc123/video/xyz9/player", "v"),
        ("/link/abc123/video/xyz9/player/", "v"),
        ("/link/abc123/video/xyz9", "v"),
        ("/r/aww/link/abc123/video/xyz9/player?a=b", "v"),
        ("/video/xyz9", "v"),
        ("/link/ABC123", "p"),
        ("/tb/abc123", "p"),
        ("/poll/abc123", "p"),
        ("/gallery/abc123", "p"),
        ("/comments/abc123/title/c1", "p"),
    ],
)
def test_reddit_has_more_links_than_one(path: str, goal: str) -> None:
    goals = {
        "v": "https://v.redd.it/xyz9/DASHPlaylist.mpd",
        "p": "https://www.reddit.com/comments/abc123",
    }
    assert reddit.normalise(f"https://www.reddit.com{path}") == goals[goal]
    assert re.match(reddit.PATTERN, f"https://www.reddit.com{path}")


# Through Discord


AROUND = [
    "look: [clip]({})，",
    "*{}*",
    "“{}”",
    "https://{}",
    "toy.example/{path}",
    "{port}",
]


async def test_link_with_words_around_it_is_downloaded(stage: Stage) -> None:
    shutil.copy(SUPPORT_PLUGINS / "toy_site.py", stage.plugins)
    url = link(stage.image())
    path, port = url.partition("example/")[2], url.replace("example", "example:443")
    async with stage.bot() as bot:
        for number, words in enumerate(AROUND, 1):
            words = words.format(url, path=path, port=port)
            door = DOORS[number % 2]
            await ask(stage, door, f"please get this: {words} thank you!")
            assert all(message.files for message in await stage.gets(number)), words
        made = await bot.app.queue.list()
    assert [(job.url, job.platform) for job in made] == [(url, "Toys")] * len(AROUND)


async def test_150_words_bring_one_answer(stage: Stage) -> None:
    async with stage.bot() as bot:
        for number, door in enumerate(DOORS, 1):
            asked = await ask(stage, door, "many words " * 75)
            told = "Invalid URL: it must start with http"
            await stage.hears(told, "many words", after=asked)
            asked = await ask(stage, door, f"{'many words ' * 75} {link('fail=gone')}")
            await stage.hears("Download failed", after=asked)
            assert await jobs(bot) == number, door
    assert len(stage.said()) == 4


async def test_more_than_25_links_are_counted(stage: Stage) -> None:
    told = ("I take 25 links at a time", "40", "the other 15")
    links = [link("wait=none", str(number)) for number in range(40)]
    shutil.copy(SUPPORT_PLUGINS / "toy_site.py", stage.plugins)  # no engine is asked
    async with stage.bot(max_concurrent_downloads=1, max_queue_size=99) as bot:
        for number, door in enumerate(DOORS, 1):
            asked = await ask(stage, door, " ".join(links))
            await stage.hears(*told, after=asked)
            assert await jobs(bot) == 25 * number, door

            def all_told(count: int = number) -> bool:
                return [len(job_ids(m)) for m in stage.said()].count(25) == count

            await stage.fake.wait_for(all_told)
            assert len(stage.said()) == 2 * number, door


async def test_refused_links_are_told_together(stage: Stage) -> None:
    wrong = [f"https://discord.com/channels/*{number}*" for number in range(25)]
    async with stage.bot() as bot:
        for number, door in enumerate(DOORS, 1):
            asked = await ask(stage, door, " ".join(wrong))
            message = await stage.hears("leads to a message on Discord", after=asked)
            assert await jobs(bot) == 0
            assert len(stage.said()) == number and len(message.content) <= 2000, door
            assert message.content.count("leads to") == 1
            assert "<https://discord.com/channels/%2A24%2A>" in message.content


async def test_command_may_be_written_in_any_case(stage: Stage) -> None:
    mention = f"<@{stage.fake.bot.id}>  Download"
    commands = ["$Download", "$DOWNLOAD", "$ download", "$  dL", "$\ndlt", mention]
    async with stage.bot():
        for command in commands:
            said = await stage.says(f"{command}   {WRONG}")
            await stage.hears("user names and passwords", after=said.id)


async def test_reply_takes_its_own_links_or_those_of_the_message(stage: Stage) -> None:
    async def replies(said: Message, text: str) -> Message:
        return await stage.fake.member_says(stage.channel_id, text, reply_to=said.id)

    async with stage.bot() as bot:
        said = await stage.says(f"look: ||{link(stage.image())}||, nice")
        for number, words in enumerate(("", " this please"), 1):
            asked = await replies(said, f"$download{words}")
            message = (await stage.gets(number))[-1]
            assert message.replied_to and message.replied_to.id == asked.id
            assert message.files[0].filename.startswith("SPOILER_")
            assert await jobs(bot) == number
        await replies(said, f"$dl {link(stage.image(2))}")
        message = (await stage.gets(3))[-1]
        assert message.files[0].data == stage.bytes_of(stage.image(2))
        assert await jobs(bot) == 3
        await replies(await stage.says("good morning"), "$dl")
        await stage.hears("There is no link in that message.")
        assert await jobs(bot) == 3


@pytest.mark.parametrize("door", DOORS)
async def test_spoiler_is_posted_as_one(stage: Stage, door: str) -> None:
    facts = stage.facts("post", title="The ||end||", uploader="jo")
    text = stage.facts("text", text="It was a dream.")
    hidden = [link(facts, stage.image()), link(text)]
    open_link = link(facts, stage.image(2))
    async with stage.bot() as bot:
        await ask(stage, door, f"||{hidden[0]}|| {open_link} ||{hidden[1]}||")
        messages = await stage.gets(2)
        shown = await stage.hears("dream")
        await stage.hears("Done in", "\nDone in", "\nDone in")
        stored = {job.url: job.options for job in await bot.app.queue.list()}
    assert stored == {
        hidden[0]: {"spoiler": True},
        open_link: {},
        hidden[1]: {"spoiler": True},
    }
    for message in messages:
        spoiler = hidden[0] in message.content
        assert message.files[0].filename.startswith("SPOILER_") == spoiler
        bars = "||" * spoiler
        title = f"{bars}jo · The \\|\\|end\\|\\|{bars}"
        source = f"{bars}[link](<{hidden[0] if spoiler else open_link}>){bars}"
        assert f"** · {title} · {source} · " in message.content
    assert "\n> ||It was a dream.||" in shown.content


async def test_spoiler_that_arrived_is_found_again(stage: Stage) -> None:
    """After a crash at a time when the nonce no longer helps."""
    url = link(stage.image())
    async with stage.bot():
        await stage.says(f"$download ||{url}||")
        await stage.gets(1)
        await stage.hears("Done in")
    stage.database("UPDATE jobs SET status = 'uploading', lease_until = 0")
    stage.set_post(1, state="sending", message_id=0, sending_at=1.0)
    stage.fake.nonce_window_s = 0
    async with stage.bot() as bot:
        (job,) = await bot.app.queue.list()
        await job_at(bot, job.id, Status.COMPLETED)
    assert len(stage.posted()) == 1


async def test_link_to_a_message_is_answered_as_such(stage: Stage) -> None:
    urls = [
        "https://discord.com/channels/1/2/3",
        "https://ptb.discord.com/channels/@me/2/3",
        "https://discordapp.com/channels/1/2",
        "discord.com/channels/1/2/3",
    ]
    async with stage.bot() as bot:
        for door, url in itertools.product(DOORS, urls):
            asked = await ask(stage, door, url)
            await stage.hears("leads to a message on Discord", "Reply to", after=asked)
        assert await jobs(bot) == 0


@pytest.mark.parametrize(
    ("permission", "name"),
    [("attach_files", "Attach Files"), ("send_messages", "Send Messages")],
)
async def test_member_who_may_not_post_gets_nothing_posted(
    stage: Stage, permission: str, name: str
) -> None:
    fake = stage.fake
    await fake.deny_member(stage.channel_id, fake.member.id, permission)
    async with stage.bot() as bot:
        for door in DOORS:
            asked = await ask(stage, door, link(stage.image()))
            told = "You may not do that here. You need"
            await stage.hears(told, name, after=asked)
            assert await jobs(bot) == 0, door
        # Somebody else's permissions are their own.
        await fake.member_says(
            stage.channel_id, f"$dl {link(stage.image())}", fake.owner.id
        )
        await stage.gets(1)


async def test_in_a_thread_it_is_the_permission_for_threads(stage: Stage) -> None:
    fake = stage.fake
    thread = await fake.add_thread(stage.channel_id, "chat")
    await fake.deny_member(stage.channel_id, fake.member.id, "send_messages")

    async with stage.bot() as bot:
        await stage.says(f"$download {link(stage.image())}", thread.id)
        await fake.slash(thread.id, "download", {"url": link(stage.image())})
        await stage.gets(2, thread.id)
        denied = "send_messages_in_threads"
        await fake.deny_member(stage.channel_id, fake.member.id, denied)
        said = await stage.says(f"$download {link(stage.image())}", thread.id)
        told = "You need Send Messages in Threads"
        await stage.hears(told, channel_id=thread.id, after=said.id)
        used = await fake.slash(thread.id, "download", {"url": link(stage.image())})
        await stage.hears(told, channel_id=thread.id, after=used)
        assert await jobs(bot) == 2


async def test_what_follows_a_name_may_do_without_a_space(stage: Stage) -> None:
    glued = ["$download<{}>", "$DL`{}`", "$dl{}", "$download\u200b {}", "$dl: {}"]
    others = ["$5<7 {}", "$downloads<{}>x", "$dl-stats {}", "$({})"]  # of other bots
    async with stage.bot():
        for words in others:
            await stage.says(words.format(WRONG))
        for number, words in enumerate([*glued, "$dlt(<{}>)"], 1):
            said = await stage.says(words.format(WRONG))
            await stage.hears("user names and passwords", after=said.id)
            assert len(stage.said()) == number, words
        await stage.says(f"$download||{link(stage.image())}||")
        [message] = await stage.gets(1)
    assert message.files[0].filename.startswith("SPOILER_")


async def test_links_are_shown_without_mark_up(stage: Stage) -> None:
    url = link(stage.image()) + "/(a)*b*~c~[e]|f|é"
    async with stage.bot():
        await stage.says(f"$download <{url}>")
        status = await stage.hears("Download")
        [message] = await stage.gets(1)
    assert job_id(status)
    shown = re.search(r"<(https://[^>]*)>", message.content)
    assert shown and not re.search(r"[()*~`\[\]|<>]|[^ -~]", shown[1])
    assert shown[1].endswith("/%28a%29%2Ab%2A%7Ec%7E%5Be%5D%7Cf%7C%C3%A9")
