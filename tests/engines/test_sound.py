"""Videos whose sound is apart: it is added, or its lack is said."""

from pathlib import Path

import media
import pytest
from bossbot_plugins._programs import find_programs
from bossbot_plugins._yt_dlp_guard import with_codecs
from engine_lab import Got, Lab, Labs
from sites import Answer, Sites
from sites_canned.reddit import Reddit

pytest_plugins = ("engine_fixtures",)

GROUP = (
    '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="en",DEFAULT=YES,URI="sound/list.m3u8"'
)
VARIANTS = {
    "bare": '#EXT-X-STREAM-INF:BANDWIDTH=100000,AUDIO="a"',
    "resolution": '#EXT-X-STREAM-INF:BANDWIDTH=100000,RESOLUTION=96x64,AUDIO="a"',
    "codecs": '#EXT-X-STREAM-INF:BANDWIDTH=100000,CODECS="avc1.42c00a",AUDIO="a"',
}


@pytest.fixture(params=["yt_dlp", "gallery_dl"])
def lab(request: pytest.FixtureRequest, labs: Labs) -> Lab:
    return labs(request.param)


@pytest.fixture
def yt_dlp(labs: Labs) -> Lab:
    return labs("yt_dlp")


def serve_hls(sites: Sites, folder: Path, name: str, playlist: Path) -> None:
    for path in playlist.parent.iterdir():
        sites.serve(f"/{name}/{path.name}", path)


def streams(got: Got) -> list[str]:
    assert (got.cause, len(got.files)) == (None, 1), (got.cause, got.log)
    return sorted(media.facts(got.files[0]).codecs)


@pytest.mark.parametrize(
    ("variant", "fragmented"),
    [("bare", True), ("resolution", False), ("codecs", True)],
)
def test_sound_of_a_group_is_added(
    yt_dlp: Lab,
    sites: Sites,
    media_folder: Path,
    tmp_path: Path,
    variant: str,
    fragmented: bool,
) -> None:
    picture = media.hls(media_folder, sound=False, fragmented=fragmented)
    sound = media.hls(media_folder, picture=False, fragmented=fragmented)
    serve_hls(sites, tmp_path, "picture", picture)
    serve_hls(sites, tmp_path, "sound", sound)
    lines = ["#EXTM3U", GROUP, VARIANTS[variant], "picture/list.m3u8", ""]
    url = sites.serve("/master.m3u8", Answer("\n".join(lines).encode()))
    got = yt_dlp.fetch(url, tmp_path)
    assert streams(got) == ["audio", "video"]
    assert not got.facts.get("mute")


@pytest.mark.parametrize("kind", ["whole", "sound"])
def test_variant_may_be_complete_or_sound_only(
    yt_dlp: Lab, sites: Sites, media_folder: Path, tmp_path: Path, kind: str
) -> None:
    sound = media.hls(media_folder, picture=False)
    serve_hls(sites, tmp_path, "sound", sound)
    serve_hls(sites, tmp_path, "whole", media.hls(media_folder))
    lines = ["#EXTM3U", GROUP, VARIANTS["bare"], f"{kind}/list.m3u8", ""]
    url = sites.serve("/master.m3u8", Answer("\n".join(lines).encode()))
    got = yt_dlp.fetch(url, tmp_path)
    assert streams(got) == {"whole": ["audio", "video"], "sound": ["audio"]}[kind]


@pytest.mark.parametrize("variant", VARIANTS)
def test_lack_of_ffmpeg_is_said(
    yt_dlp: Lab, sites: Sites, media_folder: Path, tmp_path: Path, variant: str
) -> None:
    serve_hls(sites, tmp_path, "picture", media.hls(media_folder, sound=False))
    serve_hls(sites, tmp_path, "sound", media.hls(media_folder, picture=False))
    lines = ["#EXTM3U", GROUP, VARIANTS[variant], "picture/list.m3u8", ""]
    url = sites.serve("/master.m3u8", Answer("\n".join(lines).encode()))
    got = yt_dlp.fetch(url, tmp_path, programs={})
    assert got.facts["mute"] is True
    assert streams(got) == ["video"]


@pytest.mark.parametrize("with_ffmpeg", [True, False])
def test_dash_is_the_same_in_both_engines(
    lab: Lab, sites: Sites, media_folder: Path, tmp_path: Path, with_ffmpeg: bool
) -> None:
    parts = (
        media.video(media_folder, sound=False),
        media.video(media_folder, picture=False),
    )
    url = Reddit(sites).video("aa6", *parts)
    if lab.stem == "yt_dlp":
        url = "https://v.redd.it/aa6/DASHPlaylist.mpd"
    programs = find_programs() if with_ffmpeg else {}
    got = lab.fetch(url, tmp_path, environment=sites.environment, programs=programs)
    assert streams(got) == (["audio", "video"] if with_ffmpeg else ["video"])
    assert got.facts.get("mute") is (None if with_ffmpeg else True)


def test_silent_film_is_no_loss(
    yt_dlp: Lab, sites: Sites, media_folder: Path, tmp_path: Path
) -> None:
    url = sites.serve("/a.mp4", media.video(media_folder, sound=False))
    got = yt_dlp.fetch(url, tmp_path)
    assert (streams(got), got.facts.get("mute")) == (["video"], None)


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n0.ts",
        '#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO="a"\nlist.m3u8',
        '#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="en"\n#EXT-X-STREAM-INF:AUDIO="a"\nb',
    ],
)
def test_other_playlists_stay_as_they_are(playlist: str) -> None:
    assert with_codecs(playlist) == playlist
