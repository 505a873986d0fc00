"""Which format is fetched: the best that can be posted, or what becomes one."""

import contextlib
import random
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import media
import pytest
from bossbot_plugins import _formats as engine
from bossbot_plugins import gallery_dl
from bossbot_plugins._formats import Format, Wanted
from engine_lab import Lab, Labs
from sites import Answer, Sites
from sites_canned.instagram import Instagram
from sites_canned.reddit import Reddit
from sites_canned.twitter import Twitter
from sites_canned.youtube import YouTube

from bossbot import Cause

pytest_plugins = ("engine_fixtures",)

MB = 1_000_000
WANT = Wanted(target_bytes=20 * 2**20, max_bytes=200 * 2**20)


def picture(side: int, mb: float | None = None, **more: Any) -> Format:
    form = {"format_id": f"{side}", "height": side, "width": side * 16 // 9}
    form |= {"vcodec": "avc1.64001f", "acodec": "none", "ext": "mp4"}
    return {**form, "protocol": "https", "filesize": mb and mb * MB, **more}


def whole(side: int, mb: float | None = None, **more: Any) -> Format:
    return picture(side, mb, **{"acodec": "mp4a.40.2", **more})


def sound(name: str, mb: float | None = None, **more: Any) -> Format:
    form = {"format_id": name, "vcodec": "none", "acodec": "mp4a.40.2", "ext": "m4a"}
    return {**form, "protocol": "https", "filesize": mb and mb * MB, **more}


def chosen(forms: list[Format], want: Wanted = WANT, **how: Any) -> str:
    first = next(engine.choose(forms, want, **how), ())
    return "+".join(part["format_id"] for part in first)


AV1, HEVC, VP9 = {"vcodec": "av01.0.08M.08"}, {"vcodec": "hvc1"}, {"vcodec": "vp9"}
HLS = {"protocol": "m3u8_native"}
NO_FFMPEG = Wanted(WANT.target_bytes, WANT.max_bytes, ffmpeg=False)
SOUND = Wanted(WANT.target_bytes, WANT.max_bytes, sound_only=True)

# What is offered, worst first as yt-dlp has it; what is chosen; for how many seconds.
CHOICES = {
    "the best that fits": ([whole(480, 15), whole(720, 35), whole(1080, 80)], "480"),
    "with its sound": (
        [sound("a", 1), whole(360, 9), picture(480, 15), picture(720, 20.5)],
        "480+a",
    ),
    "what just fits with a smaller sound": (
        [sound("a", 0.5), sound("b", 3), picture(480, 9), picture(720, 19)],
        "720+a",
    ),
    "sound before size": ([picture(720, 9), sound("a", 1), picture(1080, 30)], "720+a"),
    "the only one with sound, though too large": (
        [whole(720, 30), picture(480, 9)],
        "720",
    ),
    "H.264 among equals": ([whole(720, 9), whole(720, 8, **VP9)], "720"),
    "more frames": ([whole(720, 9, fps=30), whole(720, 12, fps=60)], "720"),
    "not what is smaller when made to play": (
        [whole(1080, 18), whole(2160, 15, format_id="4k", **AV1)],
        "1080",
    ),
    "more detail, though it must be re-encoded": (
        [whole(480, 9), whole(1080, 8, **AV1)],
        "1080",
    ),
    "HEVC where there is nothing else": ([whole(720, 9, **HEVC)], "720"),
    "SDR at the same size": (
        [
            whole(720, 9, **HEVC),
            whole(720, 12, format_id="h", dynamic_range="HLG", **HEVC),
        ],
        "720",
    ),
    "8 bits of H.264": (
        [whole(480, 9), whole(480, 12, format_id="10", vcodec="avc1.6e001f")],
        "480",
    ),
    "a rate of HLS holds that of its sound": (
        [
            sound("a", **HLS),
            picture(480, tbr=1000, **HLS),
            picture(720, tbr=3500, **HLS),
        ],
        "480+a",
    ),
    "by its rate": (
        [whole(720, tbr=2500), whole(1080, tbr=5000), whole(1440, tbr=9000)],
        "720",
    ),
    "by both rates": (
        [sound("a", abr=128), picture(480, vbr=900), picture(720, vbr=2750)],
        "480+a",
    ),
    "about so large": (
        [whole(480, filesize_approx=9 * MB), whole(720, filesize_approx=30 * MB)],
        "480",
    ),
    "known to fit rather than unknown": ([whole(480, 9), whole(720)], "480"),
    "unknown, but not too large": (
        [whole(480), whole(720), whole(1080), whole(2160)],
        "720",
    ),
    "unknown rather than too large": ([whole(480), whole(720, 30)], "480"),
    "small enough to be made from": (
        [whole(144, 21), whole(480, 30), whole(720, 50), whole(2160, 180)],
        "480",
    ),
    "no tiny one where a better one can be made": (
        [whole(144, 9), whole(720, 30)],
        "720",
    ),
    "good enough to be made from": ([whole(144, 21), whole(720, 50)], "720"),
    "not above what may be fetched": ([whole(240, 150), whole(720, 300)], "240"),
    "the smallest when all are": ([whole(480, 230), whole(720, 300)], "480"),
    "the original sound": (
        [
            sound("de", 1, language_preference=-1),
            sound("en", 1, language_preference=10),
            sound("dub", 2, language_preference=-1),
            picture(720, 9),
        ],
        "720+en",
    ),
    "no protected one": ([whole(480, 9), whole(720, 12, has_drm=True)], "480"),
    "no broken one": ([whole(480, 30), whole(720, 9, preference=-100)], "480"),
    "a picture where there is no sound": ([picture(480, 9)], "480"),
    "nothing of nothing": ([], ""),
    "no previews": ([picture(90, 1, vcodec="none")], ""),
}


@pytest.mark.parametrize("name", CHOICES)
def test_choice_is(name: str) -> None:
    forms, wanted = CHOICES[name]
    assert chosen([dict(form) for form in forms], duration_s=60) == wanted


OTHERS: list[tuple[str, list[Format], Wanted, str]] = [
    ("nothing is joined", [sound("a", 1), picture(720, 9), whole(360, 5)],
     NO_FFMPEG, "360"),
    ("nothing is re-encoded", [whole(480, 9), whole(1080, 9, **VP9)], NO_FFMPEG, "480"),
    ("no pieces", [whole(480, 9), whole(720, 9, **HLS)], NO_FFMPEG, "480"),
    ("the smallest", [whole(240, 25), whole(480, 30)], NO_FFMPEG, "240"),
    ("within the quality", [whole(480, 9), whole(720, 12)], Wanted(side=480), "480"),
    ("upright within it", [whole(720, 9, width=406, format_id="a"), whole(720, 9)],
     Wanted(side=480), "a"),
    ("the smallest above it", [whole(720, 9), whole(1080, 12)], Wanted(side=480), "720"),
    ("within both", [whole(480, 9), whole(720, 30), whole(1080, 80)],
     Wanted(WANT.target_bytes, side=720), "480"),
    ("the best without a limit", [whole(480, 9), whole(2160, 900)], Wanted(), "2160"),
    ("the best sound", [whole(720, 9), sound("a", 1, abr=64), sound("b", 3, abr=128)],
     SOUND, "b"),
    ("sound that fits", [sound("a", 1, abr=64), sound("b", 30, abr=900, acodec="flac")],
     SOUND, "a"),
    ("sound that plays", [sound("a", 1, abr=64), sound("b", 3, abr=384, acodec="ac-3")],
     SOUND, "a"),
    ("sound that plays without ffmpeg",
     [sound("a", 1, abr=64), sound("b", 3, abr=160, acodec="opus", ext="webm")],
     Wanted(WANT.target_bytes, sound_only=True, ffmpeg=False), "a"),
    ("the smallest where no sound is small enough",
     [sound("a", 230, abr=128), sound("b", 300, abr=160)],
     Wanted(max_bytes=WANT.max_bytes, sound_only=True), "a"),
    ("little for its sound", [whole(144, 2), whole(360, 9), whole(1080, 90)],
     SOUND, "360"),
    ("the owner's sorting", [whole(720, 9), whole(480, 9)],
     Wanted(WANT.target_bytes, sorted_best=True), "480"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("forms", "want", "wanted"), [row[1:] for row in OTHERS], ids=[r[0] for r in OTHERS]
)
def test_choice_for_other_wishes_is(
    forms: list[Format], want: Wanted, wanted: str
) -> None:
    assert chosen([dict(form) for form in forms], want, duration_s=60) == wanted


def test_site_is_asked_for_sizes_it_did_not_tell_but_not_for_all() -> None:
    forms = [whole(side) for side in range(500, 600)]
    sizes = {f"{side}": (side - 490) * MB for side in range(500, 600)}
    asked = list[str]()

    def ask(form: Format) -> float:
        asked.append(form["format_id"])
        return sizes[form["format_id"]]

    assert chosen(forms[:14], ask=ask) == "510"
    assert asked == ["513", "512", "511", "510"]
    asked.clear()
    assert int(chosen(forms, ask=ask)) < 594
    assert asked == ["599", "598", "597", "596", "595", "594"]


def test_single_format_needs_no_question() -> None:
    assert chosen([whole(480)], ask=lambda form: pytest.fail("asked")) == "480"


HOSTILE = [float("nan"), float("inf"), -1, 0, 10**400, "12", "x", "1e999", True, [], {}]


def test_hostile_numbers_and_thousands_of_formats_end_in_a_choice() -> None:
    from yt_dlp.YoutubeDL import YoutubeDL

    chance = random.Random(1)
    names = [*engine.NUMBERS, *engine.PREFERENCES]
    forms = [
        {
            **(sound(f"{n}") if n % 3 else picture(n % 2000 + 1)),
            "url": "https://a.example/a.mp4",
            **{name: chance.choice(HOSTILE) for name in chance.sample(names, 6)},
        }
        for n in range(3000)
    ]
    info: Format = {"id": "1", "title": "a", "formats": forms, "duration": "nan"}
    engine.tidy(info, forms)
    assert info["duration"] is None
    with YoutubeDL({"quiet": True}, auto_init=False) as ydl:
        ydl.sort_formats(info)
    begun_s = time.process_time()
    assert "+" in chosen(forms, duration_s=engine.seconds_of(info, forms))
    assert time.process_time() - begun_s < 10, "it takes 0.15 s"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        *[(1, 1), ("2.5", 2.5), (-1, None), (0, None), ("nan", None), (True, None)],
        *[(10**400, None), ("x", None), (None, None), ([1], None)],
    ],
)
def test_number_is_one_or_none(value: Any, found: float | None) -> None:
    assert engine.number(value) == found


def test_list_of_segments_tells_its_length() -> None:
    pieces = "#EXTM3U\n#EXTINF:2,\n#EXT-X-BYTERANGE:{}@0\na.ts\n#EXTINF:1.5,\nb.ts\n"
    assert engine.measured(pieces) == (None, None)  # it goes on
    assert engine.measured(f"{pieces}#EXT-X-ENDLIST") == (None, 3.5)
    ranged = "#EXTM3U\n#EXTINF:2,\n#EXT-X-BYTERANGE:700@0\na.ts\n#EXT-X-ENDLIST"
    assert engine.measured(ranged) == (700, 2)


def test_what_a_site_says_of_a_packed_file_or_a_page_is_not_its_length() -> None:
    headers = {"Content-Length": "700", "Content-Type": "video/mp4"}
    answer = contextlib.nullcontext(SimpleNamespace(headers=headers))
    site: Any = SimpleNamespace(urlopen=lambda asked: answer)
    form = {"url": "https://a.example/a.mp4", "protocol": "https"}
    assert engine._asked(site, [form], form) == 700
    headers["Content-Encoding"] = "gzip"
    assert engine._asked(site, [form], form) is None
    headers |= {"Content-Encoding": "", "Content-Type": "text/html"}
    assert engine._asked(site, [form], form) is None


def test_description_of_a_picture_is_no_ordinary_sound() -> None:
    groups = "".join(
        f'<AdaptationSet contentType="audio" lang="{language}"><Role value="{role}"/>'
        f'<Representation id="{role}"/></AdaptationSet>'
        for language, role in [("en", "description"), ("en", "main"), ("de", "dub")]
    )
    forms: list[Format] = [{"format_id": one} for one in ("description", "main", "dub")]
    engine.mark_streams(ElementTree.fromstring(f"<MPD>{groups}</MPD>"), forms, None)
    said = [form["language_preference"] for form in forms]
    assert said == [engine.DESCRIBED, engine.DEFAULT, engine.OTHER]


# ── With the engines ───────────────────────────────────────────────────────────────


@pytest.fixture
def yt_dlp(labs: Labs) -> Lab:
    return labs("yt_dlp")


@pytest.fixture
def gallery(labs: Labs) -> Lab:
    return labs("gallery_dl")


def gets(sites: Sites) -> list[str]:
    """The names of the media that were fetched, not only asked about."""
    paths = [one.path for one in sites.requests if one.method == "GET"]
    names = [Path(path).name for path in paths]
    return [n for n in names if n.endswith((".mp4", ".ts", ".jpg", ".m4s", ".m4a"))]


def test_site_that_tells_sizes(yt_dlp: Lab, sites: Sites, media_folder: Path,
                               tmp_path: Path) -> None:  # fmt: skip
    sizes = {1080: 240_000, 720: 105_000, 480: 45_000}
    files = {
        side: media.padded_video(media_folder, size, number)
        for number, (side, size) in enumerate(sizes.items(), 1)
    }
    tone = media.video(media_folder, picture=False)
    link = YouTube(sites).pictures("formats0001", files, tone)
    limit = 60_000 + tone.stat().st_size
    got = yt_dlp.fetch(
        link, tmp_path, environment=sites.environment, target_bytes=limit
    )
    assert got.cause is None
    asked = [r.query["itag"] for r in sites.requests if "videoplayback" in r.path]
    assert asked == ["202", "140"]
    assert (got.facts["side"], got.facts["best_side"]) == (480, 1080)


def test_page_that_tells_no_sizes(
    yt_dlp: Lab, sites: Sites, media_folder: Path, tmp_path: Path
) -> None:
    tags = []
    for number, (side, size) in enumerate([(1080, 240_000), (480, 45_000)], 1):
        file = media.padded_video(media_folder, size, number)
        url = sites.serve(f"/{side}.mp4", file)
        tags.append(
            f'<source src="{url}" type="video/mp4" label="{side}p" res="{side}">'
        )
    page = sites.serve("/page", f"<video>{''.join(tags)}</video>")
    got = yt_dlp.fetch(page, tmp_path, target_bytes=60_000)
    assert got.contents == [file.read_bytes()]
    assert gets(sites) == ["480.mp4"]
    assert yt_dlp.fetch(page, tmp_path, target_bytes=250_000).cause is None
    assert gets(sites)[1:] == ["1080.mp4"]


def hls_master(sites: Sites, folder: Path, *rates: int, extra: str = "") -> str:
    """A master of variants by their bits a second, each of a second."""
    lines = ["#EXTM3U"]
    playlist = media.hls(folder)
    for rate in rates:
        for file in playlist.parent.iterdir():
            sites.serve(f"/{rate}/{file.name}", file)
        size = f"RESOLUTION={rate // 500}x{rate // 1000}"
        lines += [f"#EXT-X-STREAM-INF:BANDWIDTH={rate},{size}{extra}"]
        lines += [f"{rate}/list.m3u8"]
    return "\n".join(lines)


def test_variants_of_hls_by_their_length(
    yt_dlp: Lab, sites: Sites, media_folder: Path, tmp_path: Path
) -> None:
    master = hls_master(sites, media_folder, 480_000, 720_000, 1_080_000)
    url = sites.serve("/master.m3u8", Answer(master))
    got = yt_dlp.fetch(url, tmp_path, target_bytes=95_000)
    assert got.cause is None
    assert {r.path for r in sites.requests if r.path.endswith(".ts")} == {
        "/720000/0.ts"
    }


MPD = """<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"
 mediaPresentationDuration="PT1S"><Period>
<AdaptationSet contentType="video" mimeType="video/mp4">{pictures}</AdaptationSet>
{sounds}</Period></MPD>"""
STREAM = (
    '<Representation id="{id}" bandwidth="{rate}" {more}><BaseURL>{url}</BaseURL>'
    "</Representation>"
)


def dash(sites: Sites, folder: Path, base: str) -> str:
    """A manifest with pictures of 100 and 200 kB, and sounds in two languages, of which
    the second is the main one."""
    tone = media.video(folder, picture=False)
    pictures = ""
    for number, side in ((1, 480), (2, 1080)):
        file = media.video(folder, sound=False)
        url = sites.serve(f"{base}DASH_{side}.mp4", file)
        codec = f'codecs="avc1.42c00a" width="{side}" height="{side}"'
        pictures += STREAM.format(id=side, rate=number * 800_000, more=codec, url=url)
    sounds = ""
    for language, role in (("de", "dub"), ("en", "main")):
        url = sites.serve(f"{base}{language}.mp4", tone)
        stream = STREAM.format(
            id=language, rate=8000, more='codecs="mp4a.40.2"', url=url
        )
        kind = f'contentType="audio" mimeType="audio/mp4" lang="{language}"'
        role = f'<Role schemeIdUri="urn:mpeg:dash:role:2011" value="{role}"/>'
        sounds += f"<AdaptationSet {kind}>{role}{stream}</AdaptationSet>"
    return MPD.format(pictures=pictures, sounds=sounds)


@pytest.mark.parametrize("name", ["yt_dlp", "gallery"])
def test_streams_of_dash_by_their_rate_in_both_engines(
    name: str, request: pytest.FixtureRequest, sites: Sites, media_folder: Path,
    tmp_path: Path
) -> None:  # fmt: skip
    lab: Lab = request.getfixturevalue(name)
    parts = media.video(media_folder, sound=False), None
    link = Reddit(sites).video("aa8", *parts)
    manifest = "https://v.redd.it/aa8/DASHPlaylist.mpd"
    sites.serve(manifest, Answer(dash(sites, media_folder, "https://v.redd.it/aa8/")))
    url = link if name == "gallery" else manifest
    got = lab.fetch(url, tmp_path, environment=sites.environment, target_bytes=120_000)
    assert got.cause is None, got.log
    assert gets(sites) == ["DASH_480.mp4", "en.mp4"]


def test_sound_of_a_group_without_codecs_comes_in_gallery_dl_too(
    gallery: Lab, sites: Sites, media_folder: Path, tmp_path: Path
) -> None:
    place = "https://v.redd.it/aa9"
    for name in ("picture", "sound"):
        playlist = media.hls(media_folder, picture=name == "picture",
                             sound=name == "sound")  # fmt: skip
        for file in playlist.parent.iterdir():
            sites.serve(f"{place}/{name}/{file.name}", file)
    group = '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="en",URI="sound/list.m3u8"'
    variant = '#EXT-X-STREAM-INF:BANDWIDTH=90000,RESOLUTION=96x64,AUDIO="a"'
    master = f"#EXTM3U\n{group}\n{variant}\npicture/list.m3u8\n"
    sites.serve(f"{place}/HLSPlaylist.m3u8", Answer(master))
    reddit = Reddit(sites)
    link = reddit.text("aa9")
    reddit._posts["aa9"] |= {
        "is_self": False,
        "media_metadata": {
            "v": {"status": "valid", "hlsUrl": f"{place}/HLSPlaylist.m3u8"}
        },
        "url": link,
    }
    got = gallery.fetch(link, tmp_path, environment=sites.environment)
    assert got.cause is None, got.log
    assert media.facts(got.files[0]).codecs.keys() == {"audio", "video"}
    assert not got.facts.get("mute")


VARIANTS = [
    {"url": "https://a.example/vid/320x180/a.mp4", "bitrate": 256_000},
    {"url": "https://a.example/vid/1280x720/a.mp4", "bitrate": 2_176_000},
    {"url": "https://a.example/vid/1920x1080/a.mp4", "bitrate": 10_368_000},
    {"url": "https://a.example/pl/a.m3u8", "content_type": "application/x-mpegURL"},
]


@pytest.mark.parametrize(
    ("seconds", "side", "width"),
    [
        *[(10, 0, "1920"), (60, 0, "1280"), (60, 480, "320"), (90, 0, "1280")],
        *[(400, 0, "320"), ("nan", 0, "1280")],
    ],
)
def test_variant_of_a_tweet_is_the_best_that_fits(
    seconds: Any, side: int, width: str
) -> None:
    length_ms = seconds if seconds == "nan" else seconds * 1000
    info = {"variants": VARIANTS, "duration_millis": length_ms}
    want = Wanted(WANT.target_bytes, WANT.max_bytes, side)
    told = dict[str, Any]()
    found = gallery_dl.best_variant(info, want, told.update)
    assert f"/{width}x" in found["url"]
    sides = {"1280": 720, "320": 180}
    smaller = seconds in (60, 400) and not side
    assert told == ({"side": sides[width], "best_side": 1080} if smaller else {})


def test_tweet_of_a_list_of_segments_alone_stays() -> None:
    only = {"variants": VARIANTS[3:]}
    assert gallery_dl.best_variant(only, WANT, lambda **facts: None) == VARIANTS[3]


def test_picture_of_a_tweet_is_the_largest_that_fits(
    gallery: Lab, sites: Sites, media_folder: Path, tmp_path: Path
) -> None:
    link = Twitter(sites).tweet("1100", media.image(media_folder))
    sizes = {"orig": 90_000, "4096x4096": 50_000, "large": 30_000, "medium": 9000}
    files = {
        name: media.padded_image(media_folder, size, number)
        for number, (name, size) in enumerate(sizes.items(), 40)
    }
    asked = list[str]()

    def serve(request: Any) -> Answer:
        asked.append(request.query["name"])
        return Answer(files[asked[-1]])

    sites.serve("https://pbs.twimg.com/media/F1100_1", serve)
    how: dict[str, Any] = {"environment": sites.environment}
    got = gallery.fetch(link, tmp_path, target_bytes=40_000, **how)
    assert got.contents == [files["large"].read_bytes()]
    assert asked == ["orig", "4096x4096", "large"]
    # Where none fits, the largest that may be fetched is made to fit later.
    files["small"] = files["medium"]
    got = gallery.fetch(link, tmp_path, target_bytes=5000, max_file_bytes=60_000, **how)
    assert got.contents == [files["4096x4096"].read_bytes()]
    got = gallery.fetch(link, tmp_path, target_bytes=100_000, **how)
    assert got.contents == [files["orig"].read_bytes()]


def test_file_that_the_site_takes_back_is_not_fetched_for_its_size() -> None:
    answer = SimpleNamespace(
        headers={"Content-Length": "9"}, history=[], url="https://a.example/removed.png"
    )
    request = SimpleNamespace(target_bytes=5, max_file_bytes=0)
    others = ["https://a.example/small.png"]
    for said in (False, "https://a.example/elsewhere.png"):
        check = gallery_dl.SizeCheck(request, others, lambda response, said=said: said)
        assert check(answer) == said


def test_preview_comes_where_a_picture_of_reddit_is_too_large(
    gallery: Lab, sites: Sites, media_folder: Path, tmp_path: Path
) -> None:
    reddit = Reddit(sites)
    large = media.padded_image(media_folder, 90_000, 40)
    small = media.padded_image(media_folder, 30_000, 41)
    link = reddit.image("ab8", large)
    preview = sites.serve("https://preview.redd.it/ab8.jpg", small)
    source = {"url": "https://i.redd.it/ab8.jpg"}
    images = [{"source": source, "resolutions": [{"url": ""}, {"url": preview}]}]
    reddit._posts["ab8"]["preview"] = {"images": images}
    how = {"environment": sites.environment}
    got = gallery.fetch(link, tmp_path, target_bytes=40_000, **how)
    assert got.contents == [small.read_bytes()], got.log
    got = gallery.fetch(link, tmp_path, target_bytes=100_000, **how)
    assert got.contents == [large.read_bytes()]


def test_previews_are_those_of_the_picture() -> None:
    small = [{"u": "1"}, {"u": "2"}]
    known = {"media_metadata": {"a": {"s": {}, "p": small}, "b": {"s": {"mp4": "v"}}}}
    found = [gallery_dl.previews_of(f"https://i.redd.it/{n}.png", known) for n in "abc"]
    assert found == [["2", "1"], ["v"], []]
    sizes = {"source": {"url": "v0"}, "resolutions": [{"url": "v1"}]}
    image = {"source": {"url": "0"}, "resolutions": [{"url": "1"}, {"url": "2"}]}
    post = {"preview": {"images": [image]}}
    assert gallery_dl.previews_of("https://i.redd.it/a.gif", post) == ["0", "2", "1"]
    image["variants"] = {"mp4": sizes}  # an animation
    assert gallery_dl.previews_of("https://i.redd.it/a.gif", post) == ["v0"]
    assert gallery_dl.previews_of("https://a.example/a.png", known) == []
    assert gallery_dl.previews_of("https://i.redd.it/a.png", {"preview": [1]}) == []


def test_stream_that_goes_on_is_not_fetched_by_gallery_dl(
    gallery: Lab, sites: Sites, media_folder: Path, tmp_path: Path
) -> None:
    link = Reddit(sites).video("aa5", media.video(media_folder, sound=False))
    place = "https://v.redd.it/aa5/"
    live = dash(sites, media_folder, place).replace('"static"', '"dynamic"')
    sites.serve(f"{place}DASHPlaylist.mpd", Answer(live))
    got = gallery.fetch(link, tmp_path, environment=sites.environment)
    assert (got.cause, gets(sites)) == (Cause.UNSUPPORTED, [])


def test_video_of_instagram_has_sound_without_ffmpeg(
    gallery: Lab, sites: Sites, media_folder: Path, tmp_path: Path
) -> None:
    parts = (
        media.video(media_folder, sound=False),
        media.video(media_folder, picture=False),
    )
    instagram = Instagram(sites)
    link = instagram.reel("CxFormats01", media.video(media_folder), *parts)
    cookies = tmp_path / "cookies.txt"
    row = f".instagram.com\tTRUE\t/\tTRUE\t0\tsessionid\t{instagram.session_id}\n"
    cookies.write_text(f"# Netscape HTTP Cookie File\n{row}")
    how = {"environment": sites.environment, "cookies_file": cookies}
    got = gallery.fetch(link, tmp_path, programs={}, **how)
    assert got.cause is None, got.log
    assert media.facts(got.files[0]).codecs.keys() == {"audio", "video"}
    assert not got.facts.get("mute")


def test_version_and_smaller_pictures_of_instagram() -> None:
    versions = [{"width": w, "height": w * 2, "url": f"{w}"} for w in (480, 720, 1080)]
    sizes = {"480": 9 * MB, "720": 18 * MB, "1080": 40 * MB}

    def head(url: str, timeout: float) -> Any:
        headers = {"Content-Length": str(sizes[url])}
        return SimpleNamespace(ok=True, headers=headers)

    item = {"video_versions": versions, "video_duration": 30}
    session = SimpleNamespace(head=head)
    assert gallery_dl.best_version(item, WANT, session)["url"] == "720"
    candidates = [{"width": w, "height": w, "url": f"{w}"} for w in (1440, 320, 1080)]
    square = {"width": 150, "height": 100, "url": "cut"}
    found = gallery_dl.smaller_pictures([*candidates, square])
    assert found == {"1440": ["1080", "320"]}


@pytest.mark.parametrize("odd", [{"height": 0}, {"width": "x"}, {"url": []}])
def test_odd_pictures_of_instagram_are_passed_over(odd: Format) -> None:
    with pytest.raises(gallery_dl.NO_FIND):  # which the engine goes on after
        gallery_dl.smaller_pictures([{"width": 1, "height": 1, "url": "a", **odd}])
