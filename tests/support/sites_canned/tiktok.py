"""TikTok as yt-dlp (videos) and gallery-dl (slideshows) read its pages."""

import json
from pathlib import Path
from typing import Any

from sites import Content, Request, Sites, redirect

Json = dict[str, Any]

PAGE = (
    '<script id="__UNIVERSAL_DATA_FOR_REHYDRATION__" type="application/json">'
    "{}</script>"
)
GONE, PRIVATE_POST, PRIVATE_ACCOUNT, NOT_HERE = 10231, 10216, 10222, 10204


class TikTok:
    """TikTok with the posts published so far, all by @alice."""

    def __init__(self, sites: Sites) -> None:
        self._sites = sites
        self._posts: dict[str, Json] = {}
        self._refusals: dict[str, int] = {}
        sites.serve("https://www.tiktok.com/@*/video/*", self._page)
        sites.serve("https://www.tiktok.com/@*/photo/*", "<title>TikTok</title>")
        sites.serve("https://www.tiktok.com/login", "<title>Log in</title>")

    def video(self, post_id: str, file: Path) -> str:
        """A video in one quality, with its sound."""
        url = f"https://v16-webapp-prime.tiktok.com/video/{post_id}/"
        self._sites.serve(url, file)
        address = {
            "UrlList": [url],
            "UrlKey": "v_h264_720p_100000",
            "DataSize": file.stat().st_size,
            "Width": 96,
            "Height": 64,
        }
        size = {"width": 96, "height": 64, "duration": 1, "format": "mp4"}
        video = {**size, "playAddr": url, "bitrateInfo": [{"PlayAddr": address}]}
        self._publish(post_id, video=video)
        return f"https://www.tiktok.com/@alice/video/{post_id}"

    def photos(self, post_id: str, *files: Path, music: Path | None = None) -> str:
        """A slideshow, in order; gallery-dl saves its music after the pictures."""
        images = []
        for number, file in enumerate(files, 1):
            name = f"{post_id}{number}~tplv-photomode-image{file.suffix}"
            where = f"https://p16-sign.tiktokcdn.com/tos/{name}"
            url = self._sites.serve(where, file)
            image = {"imageURL": {"urlList": [url]}}
            images.append({**image, "imageWidth": 96, "imageHeight": 64})
        fields: Json = {"imagePost": {"images": images}, "video": {"duration": 0}}
        if music:
            where = f"https://sf16-ies-music.tiktokcdn.com/obj/{post_id}{music.suffix}"
            sound = {"id": "1", "title": "original sound", "duration": 1}
            fields["music"] = {**sound, "playUrl": self._sites.serve(where, music)}
        self._publish(post_id, **fields)
        return f"https://www.tiktok.com/@alice/photo/{post_id}"

    def refused(self, post_id: str, status: int = GONE) -> str:
        """A post that the page answers with a status code in place of."""
        self._refusals[post_id] = status
        return f"https://www.tiktok.com/@alice/video/{post_id}"

    def login_wall(self, post_id: str) -> str:
        """A post whose page leads to the login page."""
        url = f"https://www.tiktok.com/@alice/video/{post_id}"
        login = redirect("https://www.tiktok.com/login?redirect_url=1")
        return self._sites.serve(url, login)

    def short(self, post_id: str, code: str = "ZMabc123") -> str:
        """The app's share link, which redirects to the post, photos or not."""
        kind = "photo" if "imagePost" in self._posts.get(post_id, {}) else "video"
        target = f"https://www.tiktok.com/@alice/{kind}/{post_id}?_r=1&_t=8"
        return self._sites.serve(
            f"https://vm.tiktok.com/{code}/", redirect(target, 301)
        )

    def _publish(self, post_id: str, **fields: Any) -> None:
        self._posts[post_id] = {
            "id": post_id,
            "desc": "words #tag",
            "createTime": "1700000000",
            "author": {"id": "1", "uniqueId": "alice", "nickname": "Alice"},
            "stats": {"playCount": 1, "diggCount": 1},
            **fields,
        }

    def _page(self, request: Request) -> Content:
        post_id = request.path.rpartition("/")[2]
        detail: Json = {"statusCode": self._refusals.get(post_id, 0), "statusMsg": ""}
        if detail["statusCode"] == 0 and post_id in self._posts:
            detail["itemInfo"] = {"itemStruct": self._posts[post_id]}
        elif detail["statusCode"] == 0:
            detail["statusCode"] = GONE
        scope = {"webapp.app-context": {}, "webapp.video-detail": detail}
        return PAGE.format(json.dumps({"__DEFAULT_SCOPE__": scope}))
