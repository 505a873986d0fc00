"""Reddit as the engines ask it: the pages' JSON or the OAuth API, and v.redd.it."""

import json
from pathlib import Path
from typing import Any

from sites import Answer, Content, Request, Sites, redirect

Json = dict[str, Any]

# What Reddit shows to addresses it does not like, in place of JSON; two generations.
BLOCKED = """<title>Blocked</title><h1>whoa there, pardner!</h1>
<p>Your request has been blocked due to a network policy.</p>"""
BLOCKED_2025 = """<title>Reddit</title><div class="text-neutral-content-strong">
You've been blocked by network security.</div>"""

MPD = """<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" minBufferTime="PT1.5S"
 mediaPresentationDuration="PT1S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011">
 <Period>{sets}</Period>
</MPD>"""
PICTURES = """<AdaptationSet contentType="video" mimeType="video/mp4">
 <Representation id="1" bandwidth="100000" codecs="avc1.42c00a" width="96" height="64">
 <BaseURL>DASH_64.mp4</BaseURL></Representation></AdaptationSet>"""
SOUNDS = """<AdaptationSet contentType="audio" mimeType="audio/mp4">
 <Representation id="2" bandwidth="32000" codecs="mp4a.40.2" audioSamplingRate="44100">
 <BaseURL>DASH_AUDIO_128.mp4</BaseURL></Representation></AdaptationSet>"""
HLS = """#EXTM3U
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="audio",DEFAULT=YES,URI="AUDIO.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=132000,RESOLUTION=96x64,CODECS="avc1.42c00a",AUDIO="a"
VIDEO.m3u8
"""
SEGMENTS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"


class Reddit:
    """Reddit with the posts published so far, all in the subreddit r/pics.

    With `blocks_guests` only who has the cookie `reddit_session` (any value) or an
    OAuth token gets JSON; `limited` turns everyone away with 429.
    """

    def __init__(self, sites: Sites) -> None:
        self.blocks_guests = False
        self.block_page = BLOCKED
        self.limited = False
        self._sites = sites
        self._posts: dict[str, Json] = {}
        self._errors: dict[str, Answer] = {}
        token = "https://www.reddit.com/api/v1/access_token"
        sites.serve(token, {"access_token": "canned", "token_type": "bearer"})
        for host in ("www.reddit.com", "oauth.reddit.com"):
            sites.serve(f"https://{host}/comments/*/.json", self._comments)
            sites.serve(f"https://{host}/r/pics/.json", self._listing)
        # yt-dlp: a cookie for guests first, then the JSON of the very page.
        cookie = {"Set-Cookie": "loid=canned; Domain=.reddit.com; Path=/"}
        sites.serve("https://old.reddit.com/", Answer("", headers=cookie))
        page = "https://www.reddit.com/r/pics/comments/*/"
        sites.serve(page, "<title>A post</title>")
        sites.serve(page + ".json", self._comments)
        for place in ("i.redd.it", "v.redd.it", "www.reddit.com/r/pics/s"):
            sites.serve(f"https://{place}/*", Answer(status=404))

    def image(
        self, post_id: str, file: Path, title: str = "A picture", adult: bool = False
    ) -> str:
        """One picture, served at i.redd.it."""
        url = self._sites.serve(f"https://i.redd.it/{post_id}{file.suffix}", file)
        fields = {"title": title, "url": url, "over_18": adult}
        return self._publish(post_id, post_hint="image", **fields)

    def gallery(
        self, post_id: str, *files: Path, missing: int = 0, caption: str = ""
    ) -> str:
        """Several pictures in order; the first `missing` of them are 404, and the last
        one has the caption."""
        metadata: Json = {}
        for number, file in enumerate(files, 1):
            kind, name = file.suffix[1:].replace("jpg", "jpeg"), f"{post_id}x{number}"
            if number > missing:
                self._sites.serve(f"https://i.redd.it/{name}{file.suffix}", file)
            preview = f"https://preview.redd.it/{name}{file.suffix}?width=96&s=signed"
            source = {"u" if kind != "gif" else "gif": preview, "x": 96, "y": 64}
            metadata[name] = {"status": "valid", "m": f"image/{kind}", "s": source}
        items = [{"media_id": name, "id": 1} for name in metadata]
        items[-1] |= {"caption": caption} if caption else {}
        return self._publish(
            post_id,
            url=f"https://www.reddit.com/gallery/{post_id}",
            is_gallery=True,
            gallery_data={"items": items},
            media_metadata=metadata,
        )

    def video(self, post_id: str, picture: Path, sound: Path | None = None) -> str:
        """A v.redd.it video: DASH and HLS manifests that name one file per stream."""
        url = f"https://v.redd.it/{post_id}"
        sets = PICTURES + (SOUNDS if sound else "")
        self._sites.serve(url, redirect(f"https://www.reddit.com/video/{post_id}"))
        page = f"https://www.reddit.com/r/pics/comments/{post_id}/a_post/"
        self._sites.serve(f"https://www.reddit.com/video/{post_id}", redirect(page))
        files: dict[str, Content] = {
            "DASHPlaylist.mpd": MPD.format(sets=sets),
            "HLSPlaylist.m3u8": HLS if sound else SEGMENTS.format("DASH_64.mp4"),
            "VIDEO.m3u8": SEGMENTS.format("DASH_64.mp4"),
            "AUDIO.m3u8": SEGMENTS.format("DASH_AUDIO_128.mp4"),
            "DASH_64.mp4": picture,
        }
        if sound:
            files["DASH_AUDIO_128.mp4"] = sound
        for name, content in files.items():
            self._sites.serve(f"{url}/{name}", content)
        media = {
            "dash_url": f"{url}/DASHPlaylist.mpd",
            "hls_url": f"{url}/HLSPlaylist.m3u8",
            "fallback_url": f"{url}/DASH_64.mp4?source=fallback",
            "has_audio": sound is not None,
            "is_gif": sound is None,
        }
        return self._publish(
            post_id,
            url=url,
            is_video=True,
            post_hint="hosted:video",
            secure_media={"reddit_video": media},
        )

    def text(self, post_id: str, html: str = "<p>Only words.</p>") -> str:
        """A self post."""
        return self._publish(post_id, is_self=True, selftext_html=html)

    def link(self, post_id: str, url: str) -> str:
        """A post that is a link to somewhere else."""
        return self._publish(post_id, url=url, post_hint="link")

    def crosspost(self, post_id: str, of: str) -> str:
        """A repetition of the post with the id `of`."""
        parent = self._posts[of]
        url = parent["url"]
        return self._publish(post_id, url=url, crosspost_parent_list=[parent])

    def removed(self, post_id: str, by: str = "moderator") -> str:
        """A post taken down by a moderator or (`by="deleted"`) by its author."""
        return self._publish(
            post_id, is_self=True, removed_by_category=by, selftext="[removed]"
        )

    def refused(self, post_id: str, status: int = 403, reason: str = "private") -> str:
        """403 is a private or quarantined subreddit, 404 no such post."""
        message = {403: "Forbidden", 404: "Not Found"}[status]
        answer = Answer({**_error(status, message), "reason": reason}, status)
        self._errors[post_id] = answer
        return f"https://www.reddit.com/r/pics/comments/{post_id}/a_post/"

    def share(self, post_id: str) -> str:
        """The share link of the app, which redirects to the post."""
        code = f"{post_id:A<10}"  # always ten letters and digits
        target = f"https://www.reddit.com/r/pics/comments/{post_id}/a_post/?share_id=1"
        where = f"https://www.reddit.com/r/pics/s/{code}"
        return self._sites.serve(where, redirect(target, 301))

    def subreddit(self) -> str:
        """The listing of every post, newest first."""
        return "https://www.reddit.com/r/pics/"

    def _publish(self, post_id: str, **fields: Any) -> str:
        page = f"/r/pics/comments/{post_id}/a_post/"
        self._posts[post_id] = {
            "id": post_id,
            "name": f"t3_{post_id}",
            "title": "A post",
            "author": "alice",
            "subreddit": "pics",
            "permalink": page,
            "url": f"https://www.reddit.com{page}",
            "created_utc": 1_700_000_000.0,
            "is_self": False,
            "is_video": False,
            "over_18": False,
            "selftext_html": None,
            "secure_media": None,
            "num_comments": 0,
            **fields,
        }
        return f"https://www.reddit.com{page}"

    def _comments(self, request: Request) -> Answer | Content:
        post_id = request.path.partition("/comments/")[2].split("/")[0]
        if refusal := self._refusal(request) or self._errors.get(post_id):
            return refusal
        if post_id not in self._posts:
            return Answer(_error(404, "Not Found"), 404)
        return [_listed(self._posts[post_id]), _listed()]

    def _listing(self, request: Request) -> Answer | Content:
        return self._refusal(request) or _listed(*reversed(self._posts.values()))

    def _refusal(self, request: Request) -> Answer | None:
        if self.limited:
            headers = {"Retry-After": "600", "Content-Type": "application/json"}
            error = json.dumps(_error(429, "Too Many Requests"))
            return Answer(error, 429, headers)
        known = "authorization" in request.headers
        if self.blocks_guests and not (known or "reddit_session" in request.cookies):
            return Answer(self.block_page, 403)
        return None


def _error(status: int, message: str) -> Json:
    return {"error": status, "message": message}


def _listed(*posts: Json) -> Json:
    children = [{"kind": "t3", "data": post} for post in posts]
    return {"kind": "Listing", "data": {"children": children, "after": None}}
