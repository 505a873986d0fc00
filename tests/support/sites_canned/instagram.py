"""Instagram as gallery-dl asks it: one post at a time, for who is logged in."""

import string
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from sites import Answer, Content, Request, Sites, redirect

Json = dict[str, Any]

CDN = "https://scontent.cdninstagram.com"
ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
MPD = """<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" minBufferTime="PT1S"
 mediaPresentationDuration="PT1S"><Period>
<AdaptationSet contentType="video" mimeType="video/mp4">
 <Representation id="1v" bandwidth="100000" codecs="avc1.42c00a" width="96" height="64">
 <BaseURL>{picture}</BaseURL></Representation></AdaptationSet>
<AdaptationSet contentType="audio" mimeType="audio/mp4">
 <Representation id="1a" bandwidth="32000" codecs="mp4a.40.2">
 <BaseURL>{sound}</BaseURL></Representation></AdaptationSet>
</Period></MPD>"""


class Instagram:
    """Instagram with the posts published so far, by their short codes.

    Who lacks the cookie `sessionid` is led to the login page; `limited` answers 429.
    """

    session_id = "1234567890%3Acanned%3A1"

    def __init__(self, sites: Sites) -> None:
        self.limited = False
        self._sites = sites
        self._posts: dict[int, Json] = {}
        self._refusals: dict[int, Answer] = {}
        root = "https://www.instagram.com"
        sites.serve(f"{root}/api/v1/media/*/info/", self._info)
        sites.serve(f"{root}/accounts/login/", "<title>Login</title>")
        sites.serve(f"{CDN}/*", Answer(status=404))

    def post(self, code: str, *files: Path) -> str:
        """Photos and videos in order; more than one is a carousel."""
        items = [self._item(code, number, file) for number, file in enumerate(files, 1)]
        if len(items) == 1:
            self._publish(code, **items[0])
        else:
            self._publish(code, media_type=8, carousel_media=items)
        return f"https://www.instagram.com/p/{code}/"

    def reel(
        self,
        code: str,
        file: Path,
        picture: Path | None = None,
        sound: Path | None = None,
    ) -> str:
        """A video; with `picture` and `sound`, also as DASH, which gallery-dl prefers."""
        item = self._item(code, 1, file)
        if picture and sound:
            urls = {
                name: escape(self._sites.serve(f"{CDN}/o1/{code}_{name}.mp4", stream))
                for name, stream in (("picture", picture), ("sound", sound))
            }
            item["video_dash_manifest"] = MPD.format(**urls)
        self._publish(code, **{**item, "product_type": "clips"})
        return f"https://www.instagram.com/reel/{code}/"

    def share(self, code: str) -> str:
        """The app's share link, which redirects to the reel."""
        target = f"https://www.instagram.com/reel/{code}/?igsh=1"
        where = f"https://www.instagram.com/share/reel/S{code}"
        return self._sites.serve(where, redirect(target, 301))

    def gone(self, code: str) -> str:
        """A deleted post; so is every one never published."""
        self._posts.pop(_media_id(code), None)
        return f"https://www.instagram.com/p/{code}/"

    def private(self, code: str) -> str:
        """A post of a private account that this one does not follow."""
        message = {"message": "Not authorized to view user", "status": "fail"}
        self._refusals[_media_id(code)] = Answer(message, 400)
        return f"https://www.instagram.com/p/{code}/"

    def _item(self, code: str, number: int, file: Path) -> Json:
        url = f"{CDN}/v/t51/{code}_{number}{file.suffix}"
        self._sites.serve(url, file)
        size = {"width": 96, "height": 64}
        video = file.suffix == ".mp4"
        still = f"{CDN}/v/t51/{code}_{number}_still.jpg" if video else url
        item: Json = {
            "pk": str(_media_id(code) + number),
            "media_type": 2 if video else 1,
            "image_versions2": {"candidates": [{**size, "url": f"{still}?stp=dst"}]},
            "original_width": 96,
            "original_height": 64,
        }
        if video:
            item["video_versions"] = [{**size, "type": 101, "url": f"{url}?efg=1"}]
        return item

    def _publish(self, code: str, **fields: Any) -> None:
        self._posts[_media_id(code)] = {
            "taken_at": 1_700_000_000,
            "caption": {"text": "words"},
            "user": {"pk": "1", "username": "alice", "full_name": "Alice"},
            "like_count": 1,
            **fields,
            "pk": str(_media_id(code)),
            "code": code,
        }

    def _info(self, request: Request) -> Answer | Content:
        if request.cookies.get("sessionid") != self.session_id:
            return redirect("https://www.instagram.com/accounts/login/?next=/api/v1/")
        if self.limited:
            wait = "Please wait a few minutes before you try again."
            return Answer({"message": wait, "status": "fail"}, 429)
        media_id = int(request.path.split("/")[4])
        if media_id in self._refusals:
            return self._refusals[media_id]
        if media_id not in self._posts:
            missing = {"message": "Media not found or unavailable", "status": "fail"}
            return Answer(missing, 404)
        items = [self._posts[media_id]]
        return {"items": items, "more_available": False, "status": "ok"}


def _media_id(code: str) -> int:
    """The number behind a short code, which is written in base 64."""
    number = 0
    for letter in code:
        number = number * 64 + ALPHABET.index(letter)
    return number
