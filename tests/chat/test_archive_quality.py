"""The archive finds what members ask for, and says so when there is nothing."""

from collections import Counter

import evaluate_archive

# What the design aims at; tests/tools/evaluate_archive.py prints what there is.
FLOORS = {"all": (0.90, 0.84), "across": (0.80, 0.75)}


async def test_archive_finds_what_is_asked_for_and_refuses_the_rest() -> None:
    posts, asked = evaluate_archive.posts(), evaluate_archive.questions()
    kinds = Counter(one.kind for one in asked)
    assert len(posts) >= 150 and len({name[:2] for name in posts}) >= 15
    assert len(asked) >= 130 and kinds["across"] >= 45 and kinds["none"] >= 25
    assert {one.post for one in asked if one.post} <= {*posts}
    await evaluate_archive.ask(asked, posts)
    result = evaluate_archive.evaluate(asked)
    for kind, floor in FLOORS.items():
        assert result.by_kind[kind]["both"] >= floor
        assert result.by_kind[kind]["both"][1] >= floor[1]
    # Neither way alone is better, and words alone find what is named.
    both, words = result.by_kind["all"]["both"], result.by_kind["all"]["words"]
    assert both[1] >= result.by_kind["all"]["meaning"][1] > words[1]
    assert result.by_kind["name"]["words"][0] == 1
    assert result.by_kind["typos"]["words"][0] >= 0.9
    assert result.refused >= 0.75
    assert result.lost <= 0.10
