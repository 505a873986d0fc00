"""Makes docs/conversation.png, the README's picture, and docs/answer.png from what the bot
really answers.

    python tests/tools/picture.py
    python tests/tools/picture.py --phone FOLDER

Runs the bot on the fake Discord, has a member paste two links, or search what was posted,
and draws the channel as Discord's dark theme would, or with ``--phone`` a few posts and the
answers on a phone's width, with ffmpeg for the media and a headless Chromium (``chromium``
or ``google-chrome`` on the PATH) for the drawing.
"""

import argparse
import asyncio
import base64
import functools
import html
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "support")]

PICTURES = {"": "conversation.png", "answer": "answer.png"}  # in docs/
WIDTH, PHONE = 640, 390  # CSS pixels; twice as many in the file
CHROMIUM = "chromium", "chromium-browser", "google-chrome"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--hide-scrollbars",
)
# Landscapes in place of photos: colours of the sky above and below, of the sun, of the
# far and the near hills; where the sun is, and what the hills look like.
ART = {
    "1-dawn.jpg": ("243b6b", "f6a26b", "ffe9c4", "59567f", "22223b", 0.68, 0.50, 1),
    "2-noon.jpg": ("3a86c8", "d6ecfa", "fffbe0", "7fb069", "386641", 0.30, 0.24, 4),
    "3-dusk.jpg": ("2d1e4f", "e56b6f", "ffcdb2", "6d597a", "2b1d38", 0.42, 0.58, 7),
    "4-night.jpg": ("0b132b", "1c2f57", "f4f1de", "16213f", "070b17", 0.76, 0.26, 2),
}
# An engine for links to hills.example. The film stops halfway, and the bot then shows
# how far it is until the picture is taken.
ENGINE = '''
"""An engine for the picture's links."""

import shutil
import time
from pathlib import Path

from bossbot import Cause, Engine, JobFailed, Progress, hookimpl

MEDIA = Path({media!r})
SAID = {said!r}
TOTAL = 13_002_342


@hookimpl
def register_engines():
    return [Engine("hills", lambda: "1", lambda: None, supports, download)]


def supports(url):
    return url.startswith("https://hills.example/")


def download(request, report):
    if "film" in request.url:
        for _ in range(600):
            report.progress(Progress("sunrise.mp4", TOTAL * 63 // 100, TOTAL, 3.25e6))
            time.sleep(0.1)
    what = request.url.split("/")[3]
    if what in SAID:
        title, author, text = SAID[what]
        report.info(title=title, uploader=author, text=text)
        source = sorted(MEDIA.glob("*.jpg"))[[*SAID].index(what)]
        path = request.folder / f"{{request.prefix}}_0001.jpg"
        shutil.copy(source, path)
        report.file(path)
        return
    if what == "gone":
        raise JobFailed(Cause.GONE)
    if what == "photos":
        time.sleep(1.2)  # as photos from a real site would take
    report.info(title="A week in the hills", uploader="Ana Ruiz")
    report.info(**FACTS.get(what, {{}}))
    photos, clips = sorted(MEDIA.glob("*.jpg")), sorted(MEDIA.glob("*.mp4"))
    files = {{"photo": photos[:1], "album": photos * 3, "video": clips, "words": []}}
    for number, source in enumerate(files.get(what, photos), 1):
        path = request.folder / f"{{request.prefix}}_{{number:04d}}{{source.suffix}}"
        shutil.copy(source, path)
        report.file(path)
        if what == "album" and number == 11:
            report.item_failed(JobFailed(Cause.GONE))
            return


FACTS = {{
    "photo": {{"title": "First light", "uploader": "שרה כהן"}},
    "video": {{"title": "Sunrise over the ridge, filmed from the hut at five in the morn"
              "ing while everybody else was still asleep 🌄 #sunrise @everyone"}},
    "words": {{"title": "", "text": "Snow until noon, then *sun*.\\nWe stay another day: "
              "the hut has soup, a stove and a very old piano."}},
    "album": {{"items": 12}},
}}
'''
# Says of clips what the plugin that makes them fit says.
FIT = """
from dataclasses import replace
from bossbot import hookimpl

@hookimpl
async def process_files(files):
    note = "1080p to 720p to fit 20 MiB"
    return [replace(f, note=note) if f.mime[:5] == "video" else f for f in files]
"""
QUIET = "ffmpeg", "-nostdin", "-loglevel", "error", "-y"
POSTS = "photo", "album", "video", "words", "gone", "answer"
# What was posted before the answers: title, author, text.
SAID = {
    "berge": (
        "Sonnenuntergang in den Bergen",
        "Mira Vogt",
        "Nach dem Gewitter wurde es still. Eine halbe Stunde später war alles rot.",
    ),
    "hut": (
        "Up to the Kaltbach hut",
        "Ana Ruiz",
        "Three hours from the valley. They serve soup and cake, and have a piano.",
    ),
    "summit": (
        "Sunset from the summit",
        "Jonas Beck",
        "The mountains glowed for five minutes. Then we ran down in the dark.",
    ),
    "cat": ("Our neighbour's cat", "Ana Ruiz", "She sleeps in a paper box."),
}


@dataclass
class Line:
    """A message, as it is drawn."""

    author: str
    content: str
    at: datetime
    bot: bool = False
    files: list[tuple[str, bytes]] = field(default_factory=list)  # name and content
    buttons: list[str] = field(default_factory=list)
    embeds: list[dict[str, Any]] = field(default_factory=list)
    thumbnails: list[bytes] = field(default_factory=list)  # of the embeds; b"" for none
    replied_to: tuple[str, str] = ("", "")  # author and content


async def converse(folder: Path, what: str = "") -> list[Line]:
    """What is said in the channel when a member pastes two links, or one to a post of
    a kind."""
    from conftest import share_plugins_in
    from discord_support import Stage
    from fake_discord import FakeDiscord

    share_plugins_in(folder / "ours")
    art = draw_art(folder / "media")
    (folder / "stage").mkdir()
    async with FakeDiscord() as fake:
        stage = Stage(fake, art, folder / "stage")
        stage.write_plugin("hills", ENGINE.format(media=str(art), said=SAID))
        stage.write_plugin("fitted", FIT)
        for name in ("archive", "search", "ask") if what == "answer" else ():
            stage.add_plugin(name)
        async with stage.bot() as bot:
            if what == "answer":
                return await answers(stage, bot)
            if what:
                await stage.says(f"$dlt https://hills.example/{what}/42")
                if what == "gone":
                    await stage.hears("failed")
                else:  # the status message, which names the job, has gone
                    await stage.hears("[link]")
                    done = lambda: not any("`" in one.content for one in stage.said())
                    await fake.wait_for(done)
                return [to_line(message) for message in fake.messages(fake.channel.id)]
            await stage.says("$dlt https://hills.example/photos/42")
            await stage.gets(len(ART))
            await stage.fake.wait_for(lambda: stage.said() == stage.posted())
            await stage.says("$dlt https://hills.example/film/42")
            await stage.hears("%")
            messages = list(stage.fake.messages(stage.fake.channel.id))
            return [to_line(message) for message in messages]


async def answers(stage: Any, bot: Any) -> list[Line]:
    """What a member reads who searches, and asks."""
    fake = stage.fake
    for name in SAID:
        await stage.says(f"$dlt https://hills.example/{name}/42")
        await fake.wait_for(lambda name=name: len(stage.posted()) > [*SAID].index(name))

    async def found() -> bool:
        status = await bot.app.archive.status(None)
        return bool(status["vectors"] >= len(SAID) and not status["work"])

    async with asyncio.timeout(60):
        while not await found():
            await asyncio.sleep(0.1)
    files = {one["url"]: f.data for m in stage.posted() for f in m.files
             for one in [f.payload()]}  # fmt: skip
    lines = []
    for words in (
        "$search sunset in the mountains",
        "$ask does the hut serve soup?",
    ):
        asked = await stage.says(words)
        answer = await stage.hears("", after=asked.id)
        lines += [to_line(asked), to_line(answer, files)]
    return lines


def to_line(message: Any, files: dict[str, bytes] | None = None) -> Line:
    """A message of the fake Discord; ``files`` are those that embeds show, by address."""
    m, told = message, getattr(message, "replied_to", None)
    urls = [embed.get("thumbnail", {}).get("url") for embed in m.embeds]
    return Line(
        embeds=m.embeds,
        thumbnails=[(files or {}).get(url, b"") for url in urls],
        author=m.author.name,
        content=m.content,
        at=m.created_at,
        bot=m.author.bot,
        files=[(file.filename, file.data) for file in m.files],
        buttons=m.buttons,
        replied_to=(told.author.name, told.content) if told else ("", ""),
    )


def draw_art(folder: Path) -> Path:
    """The media of the conversation; returns their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (*colours, x, y, seed) in ART.items():
        channels = []
        for start, channel in ((0, "r"), (2, "g"), (4, "b")):
            above, below, sun, far, near = (
                int(c[start : start + 2], 16) for c in colours
            )
            ridge = "Y/H-{}-{}*sin(X/W*{}+{})-{}*sin(X/W*{})"
            hill = ridge.format(0.72, 0.07, 4, seed, 0.03, 11 + seed)
            front = ridge.format(0.88, 0.05, 5, 3 * seed, 0.02, 13)
            disc = f"lt(hypot(X/W-{x},(Y/H-{y})*H/W),0.07)"
            sky = f"if({disc},{sun},{above}+({below - above})*Y/H)"
            shown = f"if(gt({front},0),{near},if(gt({hill},0),{far},{sky}))"
            channels.append(f"{channel}='{shown}'")
        source = f"color=s=640x480,format=rgb24,geq={':'.join(channels)}"
        frame = ["-frames:v", "1", "-update", "1", "-q:v", "3"]
        make = [*QUIET, "-f", "lavfi", "-i", source, *frame, str(folder / name)]
        subprocess.run(make, check=True)
    still = ["-loop", "1", "-i", str(folder / "1-dawn.jpg"), "-t", "1"]
    how = ["-pix_fmt", "yuv420p", "-movflags", "+faststart", str(folder / "clip.mp4")]
    subprocess.run([*QUIET, *still, *how], check=True)
    return folder


# ── Drawing ────────────────────────────────────────────────────────────────────────

STYLE = """
* { box-sizing: border-box; margin: 0 }
body { width: %dpx; background: #313338; color: #dbdee1; padding: 6px 0 18px;
  font: 15px/1.38 "gg sans", "Noto Sans", "Helvetica Neue", "DejaVu Sans", sans-serif }
header { border-bottom: 1px solid #26272b; padding: 8px 18px 12px; font-weight: 600;
  color: #f2f3f5; margin-bottom: 4px } header i { color: #80848e; font-style: normal }
article { position: relative; padding: 14px 18px 0 74px }
.face { position: absolute; left: 18px; width: 40px; height: 40px; border-radius: 50%%;
  color: #fff; font-size: 19px; font-weight: 600; line-height: 40px; text-align: center }
.name { font-weight: 600; color: #f2f3f5 } time { color: #949ba4; font-size: 12px;
  margin-left: 6px }
.tag { background: #5865f2; color: #fff; border-radius: 3px; font-size: 10px;
  font-weight: 600; padding: 1px 4px; margin-left: 5px; vertical-align: 1px }
.told { color: #949ba4; font-size: 13px; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; margin: 0 0 3px -36px } .told b { color: #c9cdd3 }
.told::before { content: ""; display: inline-block; width: 28px; height: 9px;
  border: solid #4e5058; border-width: 2px 0 0 2px; border-top-left-radius: 6px;
  margin-right: 6px; vertical-align: -4px }
code { background: #2b2d31; border-radius: 3px; padding: 1px 4px; font-size: 13px;
  font-family: "DejaVu Sans Mono", Consolas, monospace } a { color: #00a8fc }
blockquote { border-left: 4px solid #4e5058; padding-left: 10px }
.embed { background: #2b2d31; border-left: 4px solid #5865f2; border-radius: 4px;
  padding: 8px 14px 12px 12px; margin-top: 6px; max-width: 460px; font-size: 14px }
.embed img { float: right; width: 80px; height: 80px; object-fit: cover; margin: 4px 0 4px
  14px; border-radius: 4px } .embed::after { content: ""; display: block; clear: both }
.embed small { font-size: 12px; font-weight: 600 } .embed blockquote { overflow: hidden }
.embed a { font-weight: 600 } i.place { background: #3c4270; color: #c9cdfb; border-radius:
  3px; padding: 0 2px; font-style: normal } i.time { background: #3a3c42; border-radius: 3px;
  padding: 0 2px; font-style: normal }
.files { display: grid; grid-template-columns: 1fr 1fr; gap: 4px; margin-top: 6px;
  max-width: 400px; border-radius: 8px; overflow: hidden }
figure { position: relative } figure b { position: absolute; inset: 0; margin: auto;
  width: 48px; height: 48px; line-height: 48px; text-align: center; color: #fff;
  background: #000a; border-radius: 50%% }
.files img { width: 100%%; height: 132px; object-fit: cover; display: block }
.button { display: inline-block; background: #4e5058; color: #fff; font-size: 13px;
  border-radius: 3px; padding: 6px 16px; margin: 8px 8px 0 0 }
figure:only-child { grid-column: 1 / 3 } figure:only-child img { height: 225px }
p { overflow-wrap: anywhere }
"""
COLOURS = "#f0b232", "#eb459e", "#3ba55d", "#ed4245"


def to_html(lines: list[Line], width: int = WIDTH) -> str:
    """The page of a conversation."""
    articles = "".join(map(to_article, lines))
    style = STYLE % width
    return (
        f'<!doctype html><meta charset="utf-8"><style>{style}</style>'
        f"<header><i>#</i> general</header>{articles}"
    )


def to_article(line: Line) -> str:
    colour = "#5865f2" if line.bot else COLOURS[sum(line.author.encode()) % 4]
    tag = '<span class="tag">APP</span>' if line.bot else ""
    author, said = line.replied_to
    said = f"<b>@{html.escape(author)}</b> {html.escape(said)}"
    told = f'<p class="told">{said}</p>' if author else ""
    images = "".join(f"<figure>{picture_of(*file)}</figure>" for file in line.files)
    files = f'<div class="files">{images}</div>' if images else ""
    for embed, picture in zip(line.embeds, line.thumbnails, strict=True):
        files += to_embed(embed, picture)
    for label in line.buttons:
        files += f'<span class="button">{html.escape(label)}</span>'
    return (
        f'<article>{told}<span class="face" style="background:{colour}">'
        f'{html.escape(line.author[0].upper())}</span><p><span class="name">'
        f"{html.escape(line.author)}</span>{tag}<time>{line.at:%H:%M}</time></p>"
        f"<p>{markup(line.content)}</p>{files}</article>"
    )


def to_embed(embed: dict[str, Any], picture: bytes) -> str:
    shown = picture_of("thumbnail.jpg", picture) if picture else ""
    heading = html.escape(embed.get("author", {}).get("name", ""))
    footer = html.escape(embed.get("footer", {}).get("text", ""))
    parts = [
        f"<small>{heading}</small>" if heading else "",
        f"<p>{markup(embed['description'])}</p>",
        f"<small>{footer}</small>" if footer else "",
    ]
    return f'<div class="embed">{shown}{"".join(parts)}</div>'


def picture_of(name: str, data: bytes) -> str:
    """A photo, or the first frame of a clip with the mark that it plays."""
    mark = ""
    if name.endswith(".mp4"):
        command = [*QUIET, "-i", "-", "-frames:v", "1", "-f", "mjpeg", "-"]
        ran = subprocess.run(command, input=data, capture_output=True, check=True)
        data, mark = ran.stdout, "<b>▶</b>"
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">{mark}'


def markup(text: str) -> str:
    """Discord's mark-up as HTML, as far as the bot uses it."""
    kept: list[str] = []

    def keep(shown: str, *_: object) -> str:
        kept.append(shown)
        return f"\0{len(kept) - 1}\0"

    # What is code, a link or escaped is no mark-up inside.
    text = re.sub(
        r"`([^`]+)`", lambda m: keep(f"<code>{html.escape(m[1])}</code>"), text
    )
    text = re.sub(
        r"\[(\w+)\]\(<https?://[^>]+>\)",
        lambda m: keep(f"<a>{html.escape(m[1])}</a>"),
        text,
    )
    text = re.sub(
        r"\[((?:\\.|[^\[\]])+)\]\(https?://[^)]+\)",
        lambda m: keep("<a>" + html.escape(re.sub(r"\\(.)", r"\1", m[1])) + "</a>"),
        text,
    )
    text = re.sub(
        r"<t:\d+:R>", lambda m: keep('<i class="time">a minute ago</i>'), text
    )
    text = re.sub(r"<#\d+>", lambda m: keep('<i class="place"># general</i>'), text)
    text = re.sub(
        r"<?(https?://[^\s>]+)>?", lambda m: keep(f"<a>{html.escape(m[1])}</a>"), text
    )
    text = re.sub(r"\\([^\w\s])", lambda m: keep(html.escape(m[1])), text)
    text = html.escape(text)
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text)
    text = re.sub(
        r"^&gt; (.*)$", r"<blockquote>\1</blockquote>", text, flags=re.MULTILINE
    )
    text = text.replace("\n", "<br>").replace("</blockquote><br>", "</blockquote>")
    return re.sub("\0(\\d+)\0", lambda m: kept[int(m[1])], text)


def draw(page: str, target: Path, folder: Path, width: int = WIDTH) -> None:
    """Write the page as a PNG of its own height."""
    browser = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if browser is None:
        sys.exit(f"none of {', '.join(CHROMIUM)} is installed")
    file = folder / "conversation.html"
    script = "<script>document.title = document.documentElement.offsetHeight</script>"
    file.write_text(page + script, "utf-8")
    run = functools.partial(
        subprocess.run, check=True, capture_output=True, text=True, timeout=60
    )
    flags = [browser, *FLAGS, f"--user-data-dir={folder / 'profile'}"]
    shown = run([*flags, f"--window-size={width},400", "--dump-dom", file.as_uri()])
    title = re.search(r"<title>(\d+)", shown.stdout)
    height = int(title[1]) if title else 900
    run(
        [
            *flags,
            "--force-device-scale-factor=2",
            f"--window-size={width},{height}",
            f"--screenshot={target}",
            file.as_uri(),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--phone", type=Path, metavar="FOLDER")
    target = parser.parse_args().phone
    for what in POSTS if target else PICTURES:
        with tempfile.TemporaryDirectory() as name:
            folder, width = Path(name), PHONE if target else WIDTH
            picture = ROOT / "docs" / PICTURES.get(what, "")
            picture = target / f"{what}.png" if target else picture
            lines = asyncio.run(converse(folder, what))
            draw(to_html(lines, width), picture, folder, width)
        print(f"{picture}: {picture.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
