"""Search by words: how much of a question is in a text, in any language.

Words are compared by their pieces of four characters, so that other forms of a word and
misspellings still match; Chinese, Japanese and Korean by pairs of characters. Pure
functions; the store counts how rare each piece is.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping

SIZE = 4  # characters of a piece
MAX_GRAMS = 200  # of a question that count
FEW = 1000  # texts; fewer do not show which words are rare
WORDS_WEIGHT = 0.5  # of the covered share, beside a cosine

# Letters that are words by themselves, or nearly so: Chinese, kana, Korean.
PAIRED = "\u1100-\u11ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
PAIRED += "\U00020000-\U0003ffff"
# Scripts of India and south-east Asia write vowels as marks, which end no word.
MARKED = "\u0900-\u0963\u0966-\u109f\u1780-\u17ff"
# Compiled where they are used first: these two take a while.
WORD = (
    rf"(?P<pairs>[{PAIRED}]+)|(?P<word>(?:[^\W_{PAIRED}]|[{MARKED}])+)"
    "|(?P<sign>[\u203c-\u2bff\U0001f000-\U0001ffff])"
)
WORDS = re.sub(r"\?P<\w+>", "?:", WORD)  # for findall
ACCENT = re.compile("[\u0300-\u036f\u0640\u064b-\u065f\u0670\ufe0e\ufe0f]+")
QUOTED = re.compile('["“”„«»]([^"“”„«»]+)["“”„«»]')
# After a mark that ends a sentence, or at the end of a line.
SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])|\s*\n\s*")


def plain(text: str) -> str:
    """Text in the form in which it is compared: without case, accents and ligatures."""
    if text.isascii():
        return text.lower()
    text = ACCENT.sub("", unicodedata.normalize("NFKD", text))
    return unicodedata.normalize("NFKC", text).casefold()


def _grams(text: str, asked: bool) -> Iterator[str]:
    for found in re.finditer(WORD, plain(text)):
        word = found[0]
        if found["pairs"]:
            yield from (word[at : at + 2] for at in range(len(word) - 1))
            if not asked:
                yield f"{word[-1]}_"  # found by its first character, as all pairs are
            elif len(word) == 1:
                yield f"{word}*"
        elif found["sign"]:
            yield word
        else:
            word = f"_{word}_"
            for at in range(max(len(word) - SIZE, 0) + 1):
                yield word[at : at + SIZE]


def text_grams(text: str) -> set[str]:
    """The pieces of a text that is searched."""
    return set(_grams(text, asked=False))


def query_grams(text: str) -> list[str]:
    """The pieces of a question, each once, at most ``MAX_GRAMS``. One that ends with a
    "*" stands for all that begin so."""
    grams: dict[str, None] = {}
    for gram in _grams(text, asked=True):
        grams[gram] = None
        if len(grams) == MAX_GRAMS:
            break
    return list(grams)


def phrases(text: str) -> list[str]:
    """What a question has in quotation marks, in plain form: it has to be in a text as it
    stands."""
    found = (" ".join(plain(one).split()) for one in QUOTED.findall(text))
    return [one for one in found if one]


def has_phrases(text: str, wanted: Iterable[str]) -> bool:
    """Whether a text has all phrases of ``phrases``, as whole words."""
    shown = " ".join(plain(text).split())
    return all(_has(shown, phrase) for phrase in wanted)


def _has(text: str, phrase: str) -> bool:
    edges = r"(?<!\w)" if re.match(rf"[^\W{PAIRED}]", phrase) else ""
    after = r"(?!\w)" if re.match(rf"[^\W{PAIRED}]", phrase[-1]) else ""
    return re.search(edges + re.escape(phrase) + after, text) is not None


def rarities(counts: Mapping[str, int], total: int) -> dict[str, float]:
    """What each piece of a question weighs, by how many of all texts have it."""
    total = max(total, FEW)
    return {
        gram: math.log(1 + (max(total - count, 0) + 0.5) / (count + 0.5))
        for gram, count in counts.items()
    }


def covered(weights: Mapping[str, float], text: str) -> float:
    """The share of a question, 0 to 1, each piece by its weight, that is in a text."""
    whole = sum(weights.values())
    # In a row of words there are the same pieces as in ``text_grams``.
    row = f"_{'_'.join(re.findall(WORDS, plain(text)))}_"
    there = (weight for gram, weight in weights.items() if gram.rstrip("*") in row)
    return sum(there) / whole if whole else 0


def fused(cosine: float | None, share: float) -> float:
    """The score of a text: by meaning and words, or by words only."""
    return share if cosine is None else max(cosine, 0) + WORDS_WEIGHT * share


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order; their words are those of the text."""
    return [one for one in map(str.strip, SENTENCE_END.split(text)) if one]


def best_sentence(weights: Mapping[str, float], text: str) -> str:
    """The sentence that covers most of a question; the first one if none does."""
    found = sentences(text)
    return max(found, key=lambda s: covered(weights, s), default="")
