"""/search: what the bot posted is found by those who may read it."""

from typing import Any

import pytest
from archive_support import make_hit, post
from bossbot_plugins._found import MAX_WORDS, Wanted, about, cleaned, name_of, quote
from bossbot_plugins.search import MAX_KEPT, keep, kept
from discord_support import Stage, module
from fake_discord import Channel, Message

from bossbot import Passage, Refused

pytest_plugins = ("discord_fixtures",)

HUT = "The hut on the ridge\nIt opens in June. There is soup, and a stove."
CAT = "A cat in a box\nShe sleeps all day. The box is made of paper."


@pytest.fixture
def stage(stage: Stage) -> Stage:
    for name in ("archive", "search", "language", "youtube"):
        stage.add_plugin(name)
    return stage


async def search(
    stage: Stage, query: str, place: Channel | None = None, **options: Any
) -> Message:
    """What a member is answered who uses /search."""
    user = options.pop("user", None)
    place_id = place.id if place else stage.channel_id
    values = {"query": query, **options}
    number = await stage.fake.slash(place_id, "search", values, user and user.id)
    return await stage.fake.answered(number)


async def says(stage: Stage, words: str, place_id: int = 0) -> Message:
    asked = await stage.says(words, place_id)
    return await stage.hears("", after=asked.id, channel_id=place_id or None)


def link_to(message: Message) -> str:
    guild = message.channel.guild
    place = guild.id if guild else "@me"
    return f"https://discord.com/channels/{place}/{message.channel.id}/{message.id}"


def jumps(message: Message) -> list[str]:
    return [item["url"] for item in message.items if "url" in item]


async def test_a_post_is_found_with_its_sentence_picture_and_link(stage: Stage) -> None:
    fake = stage.fake
    async with stage.bot(archive__meaning="off") as bot:
        hut, cat = await post(stage, bot, HUT, CAT)
        (hidden,) = await post(stage, bot, "A cat on a roof\nBoo.", words="spoiler")
        found = await search(stage, "is there soup")
        assert found.only_for is fake.member
        [embed] = found.embeds
        at_s = f"<t:{int(hut.created_at.timestamp())}:R>"
        assert embed["description"].split("\n") == [
            f"**1.** [The hut on the ridge]({link_to(hut)})",
            f"Ana Ruiz · {at_s} · <#{stage.channel_id}>",
            "> There is soup, and a stove.",
        ]
        assert embed["thumbnail"]["url"].endswith(hut.files[0].filename)
        assert jumps(found) == [link_to(hut)]
        assert found.buttons == ["Jump", "Post here"]

        spoiler = await search(stage, '"cat on a roof"')
        name, _, said = spoiler.embeds[0]["description"].split("\n")
        assert name == f"**1.** ||[A cat on a roof]({link_to(hidden)})||"
        assert said == "> ||Boo.||"
        assert "thumbnail" not in spoiler.embeds[0]

        nothing = "I found no posts here that match."
        for options in ({"kind": "video"}, {"member": fake.owner.id}):
            assert (await search(stage, "soup", **options)).text == nothing
        here = {"kind": "image", "member": fake.member.id, "since": "day"}
        options = {**here, "channel": stage.channel_id, "public": True}
        shown = await search(stage, "soup", **options)
        assert jumps(shown) == [link_to(hut)]
        assert shown.only_for is None and shown.buttons == ["Jump"]
        older = "UPDATE posts SET posted_at = posted_at - 2 * 86400"
        archive: Any = bot.app.archive
        await archive._write(lambda db: db.execute(older))
        assert (await search(stage, "soup", since="day")).text == nothing
        assert jumps(await search(stage, "soup", since="week")) == [link_to(hut)]
        assert jumps(await says(stage, '$search box "made of paper"')) == [link_to(cat)]
        assert (await says(stage, '$search "made paper"')).text == nothing
        assert '`$search <words "exact words">`' in (await says(stage, "$search")).text
        await fake.delete_message(hut.id)
        assert (await search(stage, "soup")).text == nothing


async def test_more_and_similar_posts_and_what_a_restart_leaves(stage: Stage) -> None:
    fake = stage.fake
    texts = [f"Trains {n}\nA train from Rome, number {n}." for n in range(7)]
    async with stage.bot(archive__meaning="off") as bot:
        posts = await post(stage, bot, *texts, HUT)
        first = await search(stage, "train from rome")
        assert len(first.embeds) == 5
        number = await fake.click(first.id, "More")
        second = await fake.answered(number)
        assert second.only_for is fake.member
        assert second.embeds[0]["description"].startswith("**6.** ")
        found = {*jumps(first), *jumps(second)}
        assert found == {link_to(one) for one in posts[:7]}

        number = await fake.use_on(posts[0].id, "Find similar posts")
        similar = await fake.answered(number)
        assert len(similar.embeds) == 5 and link_to(posts[0]) not in jumps(similar)
        asked = await stage.says("Does anybody know the hut on the ridge?")
        number = await fake.use_on(asked.id, "Find similar posts")
        assert jumps(await fake.answered(number)) == [link_to(posts[7])]
        smile = await stage.says("||https://toy.example/1|| <https://x.example> ?!")
        number = await fake.use_on(smile.id, "Find similar posts")
        told = await fake.answered(number)
        assert told.text == "That message has no text to search for."
    async with stage.bot(archive__meaning="off"):
        module("search").kept.clear()  # as in a new process
        for button in ("More", "Post here"):
            number = await fake.click(first.id, button)
            told = await fake.answered(number)
            assert told.text == "That search has expired. Search again."
            assert told.only_for is fake.member


async def test_only_what_its_readers_may_read_is_in_an_answer(stage: Stage) -> None:
    fake, owner = stage.fake, stage.fake.owner  # who sees every channel
    fake.guild.roles[0].permissions.add("administrator")  # the bot's role
    closed = await fake.add_channel("staff")
    await fake.deny(closed.id, "view_channel")
    place = {"channel": closed.id}
    async with stage.bot(archive__meaning="off") as bot:
        (hut,) = await post(stage, bot, HUT)
        text = HUT.replace("ridge", "lake")
        (other,) = await post(stage, bot, text, channel_id=closed.id, user_id=owner.id)
        both = {link_to(hut), link_to(other)}
        assert {*jumps(await search(stage, "hut", user=owner))} == both
        assert jumps(await search(stage, "hut")) == [link_to(hut)]
        assert not jumps(await search(stage, "hut", **place))
        found = await search(stage, "hut", user=owner, **place)
        assert jumps(found) == [link_to(other)]
        # What everybody sees rests on what everybody there may read.
        public = await search(stage, "hut", user=owner, public=True)
        assert jumps(public) == [link_to(hut)]
        inside = await search(stage, "hut", closed, user=owner, public=True)
        assert {*jumps(inside)} == both
        number = await fake.click(found.id, "Post here", owner.id)
        told = await fake.answered(number)
        assert told.text == "Not everybody in this channel may read these posts."
        assert told.only_for is owner
        found = await search(stage, "hut", user=owner)
        number = await fake.click(found.id, "Post here", owner.id)
        shown = await fake.answered(number)
        assert shown.only_for is None and jumps(shown) == [link_to(hut)]


async def test_threads_categories_and_direct_messages(stage: Stage) -> None:
    fake, nothing = stage.fake, "I found no posts here that match."
    thread = await fake.add_thread(stage.channel_id, "trips")
    private = fake.open_dm(fake.member.id)
    more = {"download__direct_messages": True}
    async with stage.bot(archive__meaning="off", **more) as bot:
        (hut,) = await post(stage, bot, HUT)
        told = HUT.replace("ridge", "lake")
        (trip,) = await post(stage, bot, told, channel_id=thread.id)
        told = HUT.replace("ridge", "moor")
        (own,) = await post(stage, bot, told, channel_id=private.id)
        both = {link_to(hut), link_to(trip)}
        assert {*jumps(await search(stage, "hut"))} == both
        found = await search(stage, "hut", channel=thread.id)
        assert jumps(found) == [link_to(trip)]
        number = await fake.click(found.id, "Post here")
        assert jumps(await fake.answered(number)) == [link_to(trip)]
        assert {*jumps(await search(stage, "hut", channel=stage.channel_id))} == both
        found = await search(stage, "hut", private)
        assert jumps(found) == [link_to(own)] and found.buttons == ["Jump"]
        await fake.deny(stage.channel_id, "read_message_history")
        assert (await search(stage, "hut", thread)).text == nothing


async def test_an_answer_is_acknowledged_before_discord_says_what_is_there(
    stage: Stage,
) -> None:
    fake = stage.fake
    async with stage.bot(archive__meaning="off") as bot:
        (hut,) = await post(stage, bot, HUT)
        fake.fault("message", 404)  # by something on the way: it says nothing of it
        told = await search(stage, "hut")
        assert told.text == "The archive is out of reach now. Try again later."
        fault = fake.fault("message", "hang")
        number = await fake.slash(stage.channel_id, "search", {"query": "hut"})
        asked = fake.interactions[number]
        await fake.wait_for(lambda: asked.callback and fault.hits)
        assert asked.waits and asked.ephemeral
        fault.release()
        assert jumps(await fake.answered(number)) == [link_to(hut)]


BAD = [
    *("x" * 6000, "the of and a", "🌄🌄🌄", "日本語の質問", "\u202e\u200b雪", "ไทย"),
    *('"', '""', '"un balanced', "“mixed\" «quotes'", "' OR 1=1; DROP TABLE posts --"),
    *('hut NEAR(soup, 2) AND NOT "', "t:hut* ^soup {a b}: -x", "%_\\", "\x00\x1b[0m"),
    *("@everyone @here hut", "<@123456789012345678> hut", "https://x.example/a?b=c"),
    *("a" * 300 + " " + "b " * 800, "***", "||hut||", "`hut`\n> # hut", "\ud800"),
]


async def test_every_query_is_answered(stage: Stage) -> None:
    async with stage.bot(archive__meaning="off", archive__sure=1.4) as bot:
        await post(stage, bot, HUT)
        for query in BAD:
            number = await stage.fake.slash(
                stage.channel_id, "search", {"query": query}
            )
            answer = await stage.fake.answered(number)
            text = answer.text
            assert "ridge" in text or "no posts" in text or "in a few words" in text, (
                query,
                text,
            )
        told = await search(stage, "hut", platform="youtub")
        assert told.text == "There is no site youtub (did you mean youtube?)."
        assert not jumps(await search(stage, "hut", platform="YouTube"))
        offered = await stage.fake.autocomplete(
            stage.channel_id, "search", "platform", "tub", {"query": "hut"}
        )
        assert offered == [{"name": "youtube", "value": "youtube"}]
        stage.guild_settings('[language]\nlanguage = "de"\n')
        told = await search(stage, "hut", kind="audio")
        assert told.text == "Ich habe hier keine passenden Posts gefunden."
        stage.guild_settings("")
        plain = await says(stage, "$search hut")
        assert plain.text.startswith("Perhaps\n**1.** [The hut on the ridge](")


def test_only_so_many_searches_can_be_gone_on_with() -> None:
    keys = [keep(Wanted()) for _ in range(MAX_KEPT + 1)]
    assert len(kept) == MAX_KEPT and keys[0] not in kept and keys[-1] in kept
    kept.clear()


SAID = [Passage("Soup.", "subtitles", 3725.4)]
VIDEO = {"passages": SAID, "url": "https://youtu.be/1?t=3725"}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "Ana · <t:86400:R> · <#8888>"),
        ({"guild_id": 0, "uploader": "@a [b](c)"}, r"\@a \[b\]\(c\) · <t:86400:R>"),
        ({"title": ""}, "<t:86400:R> · <#8888>"),
        (
            VIDEO,
            "Ana · <t:86400:R> · <#8888> · [1:02:05](<https://youtu.be/1?t=3725>)",
        ),
        (
            {"passages": [Passage("x", "subtitles", 5.0)], "url": "https://a/(b)"},
            "Ana · <t:86400:R> · <#8888> · [0:05](<https://a/%28b%29>)",
        ),
        (
            VIDEO | {"hidden": True, "url": "https://youtu.be/1"},
            "||Ana|| · <t:86400:R> · <#8888> · ||[1:02:05](<https://youtu.be/1>)||",
        ),
    ],
)
def test_a_line_says_whose_when_where_and_at_which_second(
    fields: dict[str, Any], text: str
) -> None:
    assert about(make_hit(**fields)) == text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "[Hut](https://discord.com/channels/7777/8888/9999)"),
        ({"guild_id": 0}, "[Hut](https://discord.com/channels/@me/8888/9999)"),
        (
            {"title": "a](b) [c] https://x @everyone"},
            r"[a\)\(b\) \(c\) https:\/\/x \@everyone](https://discord.com/channels/7777/8888/9999)",
        ),
        (
            {"title": "", "uploader": "", "platform": ""},
            "[a post](https://discord.com/channels/7777/8888/9999)",
        ),
    ],
)
def test_a_title_is_a_link_to_the_message_and_to_nothing_else(
    fields: dict[str, Any], text: str
) -> None:
    assert name_of(make_hit(**fields)) == text


@pytest.mark.parametrize(
    ("sentence", "text"),
    [
        ("Soup.", "> Soup."),
        ("Hut Ana Soup.", "> Soup."),
        ("Hut\nAna\nSoup *hot* <@1>", r"> Soup \*hot\* \<\@1\>"),
        ("Hut Ana", ""),
        ("", ""),
    ],
)
def test_a_quotation_leaves_out_what_stands_above_it(sentence: str, text: str) -> None:
    assert quote(make_hit(sentence=sentence)) == text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("the <@123456789012345678>  hut", "the hut"),
        ("<#12> <@&3> <@!4> hut <:cat:123> <a:dog:5>", "hut cat dog"),
        ('"exact words" of', '"exact words" of'),
        ("a\nb\u200bc\x00", "a bc"),
        ("x" * 9000, "x" * MAX_WORDS),
    ],
)
def test_words_without_mentions_and_what_cannot_be_seen(words: str, text: str) -> None:
    assert cleaned(words) == text


@pytest.mark.parametrize("words", ["", " ", "?!", "“”", "<@123>", "\u200b\u202e", '"'])
def test_words_that_are_none_are_refused(words: str) -> None:
    with pytest.raises(Refused, match="in a few words"):
        cleaned(words)
