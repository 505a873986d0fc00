"""Language models: what they are given, the client, against a server that misbehaves, and
what is shown of their answers."""

import contextlib
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from archive_support import make_hit
from bossbot_plugins._chat_model import (
    MAX_TEXT,
    Endpoint,
    ModelFailed,
    fault_of,
    stream,
)
from bossbot_plugins._cited import MAX_SHOWN, cited
from bossbot_plugins._prompt import prompt, tokens
from fake_model import INJECTED, KEY, FakeModel

from bossbot import Passage

MESSAGES = [{"role": "user", "content": "What about the hut?"}]


@pytest.fixture
async def fake() -> AsyncIterator[FakeModel]:
    async with FakeModel() as fake:
        yield fake


def endpoint(fake: FakeModel, name: str, wait_s: float = 5) -> Endpoint:
    return Endpoint(fake.url, name, KEY, 400, wait_s, wait_s)


async def read(asked: Endpoint) -> str:
    async with contextlib.aclosing(stream(asked, MESSAGES)) as pieces:
        return "".join([piece async for piece in pieces])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain", "It is in the posts [1]."),
        ("whole", "It is a whole answer [1]."),
        ("slow", "It takes a while [1] until all of it is there . "),
        ("nested", "It is deep [1]."),
        ("in parts", "It comes in parts [1]."),
        ("picky", "It is picky [1]."),
    ],
)
async def test_an_answer_is_read_as_servers_send_it(
    fake: FakeModel, name: str, text: str
) -> None:
    assert await read(endpoint(fake, name)) == text
    assert fake.headers[-1]["Authorization"] == f"Bearer {KEY}"
    assert fake.asked[-1]["messages"] == MESSAGES
    assert "tools" not in fake.asked[-1]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("401", "it answered 401"),
        ("429", "it answered 429"),
        ("500", "it answered 500"),
        ("redirect", "it answered 307"),
        ("hang", "it did not answer in time"),
        ("stalls", "it did not answer in time"),
        ("cut", "it cannot be reached: ClientPayloadError"),
        ("ends early", "it broke off"),
        ("garbage", "it broke off"),
        ("gzip", "it broke off"),
        ("empty", "it broke off"),
        ("html", "it broke off"),
        ("endless line", "its answer is no stream of events"),
        ("endless thoughts", "its answer is too large"),
        ("reports an error", "it reported an error"),
    ],
)
async def test_a_failure_says_what_happened_and_never_the_key(
    fake: FakeModel, name: str, reason: str
) -> None:
    wait_s = 0.2 if name in ("hang", "stalls") else 10
    with pytest.raises(ModelFailed) as failed:
        await read(endpoint(fake, name, wait_s))
    assert str(failed.value) == reason
    assert fake.elsewhere == 0


async def test_an_endless_answer_is_read_as_far_as_it_can_be_shown(
    fake: FakeModel,
) -> None:
    text = await read(endpoint(fake, "endless words"))
    assert MAX_TEXT < len(text) < 2 * MAX_TEXT


async def test_a_server_that_is_not_there_is_a_failure() -> None:
    gone = Endpoint("http://127.0.0.1:9", "plain", "", 400, 5, 5)
    with pytest.raises(ModelFailed, match="it cannot be reached"):
        await read(gone)


# What it is given


async def test_a_check_follows_no_redirect() -> None:
    async def lead_on(request: web.Request) -> web.Response:
        if request.path == "/elsewhere":
            return web.Response()
        raise web.HTTPFound("/elsewhere")

    app = web.Application()
    app.router.add_get("/{path:.*}", lead_on)
    async with TestServer(app) as server:
        assert "302" in await fault_of(str(server.make_url("/v1")), KEY)


def test_the_model_gets_the_posts_as_json_and_no_ids() -> None:
    long = make_hit(
        sentence="It ends.", passages=[Passage("Soup. " * 3000 + "It ends.")]
    )
    messages, count = prompt("what?", [make_hit(), long], 2500)
    given = json.loads(messages[1]["content"])
    first, second = given["posts"]
    assert count == 2 and given["question"] == "what?"
    assert first == {
        "n": 1,
        "title": "Hut",
        "uploader": "Ana",
        "date": "1970-01-02",
        "text": "Bread. Soup.",
    }
    assert second["text"].startswith("It ends. … Soup. Soup.")
    for number in ("6666", "7777", "8888", "9999", "0123456789"):
        assert number not in messages[1]["content"]


@pytest.mark.parametrize("most", [500, 1000, 2500])
@pytest.mark.parametrize("char", ["a", "語", '"', "\\", "\x01", "🌄", "<@123> "])
def test_question_and_posts_fit_whatever_they_are(char: str, most: int) -> None:
    text = char * 5000
    post = make_hit(
        title=text, uploader=text, sentence=text, passages=[Passage(text)] * 3
    )
    messages, count = prompt(text[:2000], [post] * 20, most)
    assert sum(tokens(one["content"]) for one in messages) <= most
    given = json.loads(messages[1]["content"])
    assert len(given["posts"]) == count >= 3
    assert "<@" not in messages[1]["content"]


# What is shown of an answer


def shown(answer: str, count: int = 3) -> str:
    found = cited(answer, count, lambda number: f"https://discord.com/{number}")
    return found.text if found else ""


ONE, TWO = "[[1]](https://discord.com/1)", "[[2]](https://discord.com/2)"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("The hut has soup [1].", f"The hut has soup {ONE}."),
        ("Soup [1, 2].", f"Soup {ONE}{TWO}."),
        ("Soup 【2】 and [^1].", f"Soup {TWO} and {ONE}."),
        ("Soup [Post 1] or [9].", f"Soup {ONE} or ."),
        ("<think>hm [2]</think>Soup [1]", f"Soup {ONE}"),
        ("hm [2]</think>\nSoup [1]", f"Soup {ONE}"),
        ("Soup [1] <think>hm [2]", f"Soup {ONE}"),
        ("<|channel|>Soup [1] <thi", f"Soup {ONE}"),
        ("# Soup\n- **hot** [1]\n> `cold` [2]", f"Soup\n• hot {ONE}\ncold {TWO}"),
        ("See [the hut](https://evil.example) [1]", f"See the hut {ONE}"),
        ("See [1](https://evil.example).", f"See {ONE}."),
        ("See [1](https://evil.example", f"See {ONE}"),
        ("At https://evil.example/x?[1] it is [2].", f"At it is {TWO}."),
        ("<@123456789012345678> @everyone [1]", f"everyone {ONE}"),
        ("htt<@1>ps://evil.example [1]", f"htt {ONE}"),
        ("So <@<@1>1> [1]", rf"So \<\@1\> {ONE}"),
        ("a\u202eb\x00c [1]", f"abc {ONE}"),
        ("# [1]", ""),
        ("ht\u200btps:/\u2060/evil.example/x [\u200b1]", ""),
        ("So ht\u200btps:/\u2060/evil.example/x [\u200b1]", f"So {ONE}"),
        ("\ud83d soup \udf00 [1]\r\nsteam://run [2]", f"soup {ONE}\n{TWO}"),
        *((nothing, "") for nothing in ("", "NOTHING", "**NOTHING** [1]", "nothing")),
        *((invented, "") for invented in ("Soup.", "Soup [4].", "Soup [0]", "[999]")),
        ("<think>Soup [1]", ""),
    ],
)
def test_of_an_answer_only_words_and_given_sources_are_shown(
    answer: str, text: str
) -> None:
    assert shown(answer) == text


def test_number_that_mark_up_hides_is_no_source_that_was_not_given() -> None:
    answer = cited("Soup [1], and a pool [*7*].", 1, lambda n: f"https://x/{n}")
    assert answer and answer.sources == [1] and "/7" not in answer.text


def test_an_obeyed_injection_is_harmless() -> None:
    text = shown(f"{INJECTED}\n{INJECTED}")
    assert text.replace(ONE, "").count("://") == 0
    for part in ("<@", "evil.example", "discord.gg", "**", "@everyone", "</"):
        assert part not in text


@pytest.mark.parametrize(
    "piece", ["word [1] ", "[", "<think>", "<a ", "- ", "[1](", "h:/"]
)
def test_a_huge_answer_is_cut_at_once(piece: str) -> None:
    text = shown("[1] " + piece * (MAX_TEXT // len(piece)))
    assert len(text.replace("https://discord.com/1", "")) < 2 * MAX_SHOWN
