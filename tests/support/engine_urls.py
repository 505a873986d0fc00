"""The links that both engines name themselves, as examples and in their tests."""

import re
import warnings
from collections.abc import Iterator


def own_urls() -> Iterator[tuple[str, str]]:
    """(extractor, URL) of every test URL of yt-dlp and example of gallery-dl."""
    from gallery_dl import extractor
    from yt_dlp.extractor import gen_extractors

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # yt-dlp's tests have old escapes
        for ie in gen_extractors():
            for case in ie.get_testcases(include_onlymatching=True):
                yield ie.IE_NAME, case["url"]
    for cls in extractor.extractors():
        yield f"{cls.category}:{cls.subcategory}", cls.example


def links() -> dict[str, str]:
    """Own URLs that a member could paste, with their extractor; once each."""
    return {
        url: name
        for name, url in own_urls()
        if re.match(r"https?://", url, re.IGNORECASE)
    }
