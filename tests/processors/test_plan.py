"""How large a video becomes, by its length and the limit."""

from pathlib import Path
from typing import Any, cast

import pytest
from bossbot_plugins import fit, split
from bossbot_plugins._filters import filters_of
from bossbot_plugins._plan import SHARE, Source, parts_needed, plan

from bossbot import MediaFile, Probe

MIB = 2**20


def source(
    width: int, height: int, length_s: float, mbit_s: float = 8, **values: Any
) -> Source:
    """A video with sound of 128 kbit/s."""
    known = {"video": "h264", "audio": "aac", "frames_per_s": 30.0, "ticks_per_s": 30.0}
    probe = Probe("mov", width=width, height=height, **{**known, **values})
    video = int(mbit_s * 125_000 * length_s)
    return Source(probe, length_s, video, int(16_000 * length_s))


SIZES = [
    (source(1920, 1080, 60), (1920, 1080)),  # 0.043 bits for a pixel
    (source(1920, 1080, 60, frames_per_s=60.0, ticks_per_s=60.0), (1280, 720)),
    (source(1920, 1080, 120), (1280, 720)),
    (source(1080, 1920, 120), (720, 1280)),
    (source(1920, 1080, 120, rotation=90), (720, 1280)),
    (source(1920, 1080, 120, rotation=30), (1280, 720)),  # players turn by quarters
    (source(1920, 1080, 240), (852, 480)),
    (source(1920, 1080, 900), (640, 360)),
    (source(641, 361, 900), (640, 360)),  # never larger
    (source(320, 240, 3600), (320, 240)),
    (source(3840, 2160, 1.5), (2560, 1440)),  # as much as the encoder has memory for
    (source(1920, 1080, 1200, mbit_s=0.05), (1920, 1080)),  # it never had more bits
    (source(1920, 1080, 600, mbit_s=0.2), (1920, 1080)),
    (source(1920, 1080, 600, mbit_s=0.2, video="av1"), (640, 360)),  # H.264 needs more
]


@pytest.mark.parametrize(("video", "size"), SIZES)
def test_fewer_bits_first_then_fewer_pixels(
    video: Source, size: tuple[int, int]
) -> None:
    aim = plan(video, 20 * MIB * SHARE)
    assert (aim.width, aim.height) == size
    total = (aim.video_bps + aim.sound_kbps * 1000) * video.length_s / 8
    assert aim.ample or 0.85 < total / (20 * MIB) < 0.97


def test_few_frames_of_an_uneven_video_are_not_made_many() -> None:
    slides = source(1920, 1080, 7200, frames_per_s=0.2, ticks_per_s=1.0)
    jerky = source(1920, 1080, 60, frames_per_s=22.0, ticks_per_s=90_000.0)
    assert (slides.fps, jerky.fps) == (1, 30)


@pytest.mark.parametrize(
    ("video", "parts"),
    [
        (source(1920, 1080, 600), 1),
        (source(1920, 1080, 900), 1),
        (source(1920, 1080, 7200), 8),
        (source(1920, 1080, 7200, mbit_s=0.001), 2),  # a still; its sound needs them
        (source(0, 0, 7200, video=""), 2),
        (source(0, 0, 3600, video=""), 1),
    ],
)
def test_what_would_not_look_acceptable_is_split(video: Source, parts: int) -> None:
    assert parts_needed(video, 20 * MIB) == parts


@pytest.mark.parametrize(
    ("length_s", "mib", "parts"),
    [
        *[(900, 300, 1), (7200, 190, 11), (7200, 360, 20)],  # without encoding
        (7200, 400, 8),  # those would be too many
        (10_800, 420, 12),  # more than are posted at all
    ],
)
def test_video_is_split_as_it_is_if_that_makes_few_parts(
    length_s: float, mib: int, parts: int
) -> None:
    file = MediaFile(Path(), mib * MIB, "", "")
    assert split.count_for(source(1920, 1080, length_s), file, 20 * MIB) == parts


@pytest.mark.parametrize(("encoder", "notes"), [("", True), ("h264_vaapi", False)])
def test_only_x264_leaves_notes_for_a_second_pass(encoder: str, notes: bool) -> None:
    video, config = source(1920, 1080, 120), fit.Config(encoder=encoder)
    work = fit.Fitting(cast(Any, None), video, cast(Any, None), config)
    assert work._stats_fit(plan(video, 10 * MIB)) is notes


def test_check_tries_the_encoder_that_the_settings_name() -> None:
    [found] = fit.check_machine(fit.Config(encoder="h264_none"))
    assert "h264_none" in found.what and "h264_none" in found.remedy
    assert not found.fatal
    assert fit.check_machine(fit.Config()) == []
    works = fit.Config.model_construct(encoder="libx264")
    assert fit.check_machine(works) == []


@pytest.mark.parametrize("limit", [1, 10**12])
def test_plan_has_bits_that_the_encoder_takes(limit: float) -> None:
    assert 2000 <= plan(source(640, 360, 0.04), limit).video_bps <= 40_000_000


@pytest.mark.parametrize("interlaced", [True, False])
def test_only_interlaced_video_is_deinterlaced(interlaced: bool) -> None:
    video = source(720, 576, 60, interlaced=interlaced)
    filters = filters_of(video, plan(video, MIB), mapped=False)
    assert ("yadif" in filters) is interlaced


@pytest.mark.parametrize(("quality", "fine"), [("12.00", True), ("31.50", False)])
def test_what_no_more_bits_would_improve_is_fine(quality: str, fine: bool) -> None:
    said = (
        f"[libx264 @ 0x5] frame I:1     Avg QP:40.00  size:   901\n"
        f"[libx264 @ 0x5] frame P:29    Avg QP:{quality}  size:   120\n"
    )
    assert fit.is_fine(said) is fine
