"""ffmpeg's filters for each picture of a video that is encoded."""

import re

from bossbot_plugins._plan import Plan, Source

from bossbot import Probe

HDR = ("smpte2084", "arib-std-b67")  # PQ, HLG
# From HDR's light to the one that other screens show.
TO_SDR = (
    "setparams=colorspace=bt2020nc:color_primaries=bt2020:color_trc={transfer},"
    "zscale=t=linear:npl=100,"
    "format=gbrpf32le,zscale=p=bt709,tonemap=hable:desat=0,"
    "zscale=t=bt709:m=bt709:p=bt709:r=tv"
)


def is_hdr(probe: Probe) -> bool:
    return probe.transfer in HDR


def filters_of(source: Source, aim: Plan, mapped: bool) -> list[str]:
    """The filters that lead from a video to the plan; ``mapped``: also from HDR to SDR."""
    probe, found = source.probe, list[str]()
    if probe.interlaced:
        found.append("yadif")
    # x264 counts bits by frames, and mp4 forgets how long the last one is seen.
    if not source.steady or (probe.frames_per_s or 0) > source.fps * 1.01:
        found.append(f"fps={source.fps:.6g}")
    scale = f"scale={aim.width}:{aim.height}"
    if re.match(r"(gbr|rgb|bgr|pal8|argb|abgr|0rgb)", probe.pixel_format):
        scale += ":out_color_matrix=bt709:out_range=tv"
        found += [scale, "setparams=colorspace=bt709:color_primaries=bt709"]
    elif (aim.width, aim.height) != source.size:
        found.append(scale)
    if abs(probe.shape - 1) < 0.01:
        found.append("setsar=1")
    if mapped:
        found.append(TO_SDR.format(transfer=probe.transfer))
    return found
