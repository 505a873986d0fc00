"""Twitter/X as gallery-dl asks it: guest or logged in, tweets, profiles, refusals."""

import json
import time
from pathlib import Path
from typing import Any

from sites import Answer, Content, Request, Sites, redirect

Json = dict[str, Any]

JOINED = "Thu Jan 01 00:00:00 +0000 2015"
# What X's page hides for scripts to compute `x-client-transaction-id` from: a key of 48
# bytes, four drawings of 16 rows of numbers, and a script naming bytes of the key.
KEY = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8w"
ROWS = "C".join(["10 20 30 40 50 60 70 80 90 100 110"] * 16)
DRAWING = f'<g></path><path d="M 10,30 C{ROWS}"></path></g></svg>'
HOME = f"""<meta name="twitter-site-verification" content="{KEY}"/>
{"".join(f'<svg id="loading-x-anim-{n}">{DRAWING}' for n in range(4))}
<script>({{0:"main",7:"ondemand.s"}})({{0:"aa",7:"abc123"}})</script>"""
ONDEMAND = "(w[2], 16);(w[12], 16);(w[14], 16);(w[7], 16)"
GRAPHQL = "https://x.com/i/api/graphql/*/"


class Twitter:
    """X with the tweets published so far.

    A guest sees one tweet at a time. Who sends the cookie `auth_token` sees what guests
    may not, whole threads and media timelines; another token is turned away.
    """

    auth_token = "0123456789abcdef0123456789abcdef01234567"
    small: Path | None = None  # what all videos are in 320x180

    def __init__(self, sites: Sites) -> None:
        self._sites = sites
        self._tweets: dict[str, Json] = {}
        self._refused: dict[str, Json] = {}  # what a guest is told instead of a tweet
        self._limits: dict[str, Answer] = {}
        self._protected: set[str] = set()
        activate = "https://api.x.com/1.1/guest/activate.json"
        sites.serve(activate, {"guest_token": "1800000000000000001"})
        sites.serve("https://x.com/home", self._home)
        sites.serve("https://x.com/i/jf/", HOME)
        ondemand = "https://abs.twimg.com/responsive-web/client-web/ondemand.s.*.js"
        sites.serve(ondemand, ONDEMAND)
        sites.serve(GRAPHQL + "TweetResultByRestId", self._one)
        sites.serve(GRAPHQL + "TweetDetail", self._thread)
        sites.serve(GRAPHQL + "UserByScreenName", self._user)
        sites.serve(GRAPHQL + "UserMedia", self._media)
        sites.serve(GRAPHQL + "SearchTimeline", self._search)
        # Named here, so that a link to a file nobody published is 404 and no surprise.
        for host in ("pbs.twimg.com", "video.twimg.com"):
            sites.serve(f"https://{host}/*", Answer(status=404))

    def tweet(
        self,
        tweet_id: str,
        *files: Path,
        text: str = "words",
        author: str = "alice",
        gif: bool = False,
        quotes: str | None = None,
        replies_to: str | None = None,
        alt: str = "",
    ) -> str:
        """Publishes a tweet with these files, in order, and returns its link.

        Images become photos and mp4s become videos, or animated GIFs with `gif`. The
        last one has `alt` as its description.
        `quotes` and `replies_to` are ids of tweets published before.
        """
        media = [
            self._medium(tweet_id, number, file, gif)
            for number, file in enumerate(files, 1)
        ]
        if alt:
            media[-1]["ext_alt_text"] = alt
        legacy: Json = {
            "id_str": tweet_id,
            "user_id_str": _user_id(author),
            "conversation_id_str": tweet_id,
            "created_at": JOINED,
            "full_text": text,
            "lang": "en",
            "entities": {},
        }
        if media:
            legacy["extended_entities"] = {"media": media}
        tweet = {
            "__typename": "Tweet",
            "rest_id": tweet_id,
            "core": {"user_results": {"result": self._author(author)}},
            "source": '<a href="https://mobile.twitter.com">Web App</a>',
            "legacy": legacy,
        }
        if quotes:
            legacy["quoted_status_id_str"] = quotes
            tweet["quoted_status_result"] = {"result": self._tweets[quotes]}
        if replies_to:
            parent = self._tweets[replies_to]["legacy"]
            legacy["in_reply_to_status_id_str"] = replies_to
            legacy["in_reply_to_user_id_str"] = parent["user_id_str"]
            legacy["conversation_id_str"] = parent["conversation_id_str"]
        self._tweets[tweet_id] = tweet
        return f"https://x.com/{author}/status/{tweet_id}"

    def thread(self, first_id: str, *posts: list[Path], author: str = "alice") -> str:
        """A tweet per list of files, each the reply to the one before; the first's."""
        ids = [str(int(first_id) + step) for step in range(len(posts))]
        for before, tweet_id, files in zip([None, *ids], ids, posts, strict=False):
            self.tweet(tweet_id, *files, author=author, replies_to=before)
        return f"https://x.com/{author}/status/{first_id}"

    def profile(self, author: str = "alice", *, protected: bool = False) -> str:
        """The media timeline of an account, newest tweet first; wants the cookie."""
        if protected:
            self._protected.add(author)
        return f"https://x.com/{author}/media"

    def gone(self, tweet_id: str) -> str:
        """A deleted tweet; so is every one never published."""
        self._tweets.pop(tweet_id, None)
        return f"https://x.com/alice/status/{tweet_id}"

    def refused(self, tweet_id: str, reason: str) -> str:
        """A tweet hidden from guests for a reason in X's own words.

        As of 2026: Suspended, Protected, NsfwLoggedOut, NsfwViewerHasNoStatedAge.
        Publish the tweet as well, if the cookie is to open it.
        """
        self._refused[tweet_id] = {"__typename": "TweetUnavailable", "reason": reason}
        return f"https://x.com/alice/status/{tweet_id}"

    def limited(self, tweet_id: str, reset_in_s: float = 600) -> str:
        """A tweet that is answered with 429 until it is published again."""
        headers = {
            "x-rate-limit-limit": "50",
            "x-rate-limit-remaining": "0",
            "x-rate-limit-reset": str(int(time.time() + reset_in_s)),
        }
        self._limits[tweet_id] = Answer("Rate limit exceeded\n", 429, headers)
        return f"https://x.com/alice/status/{tweet_id}"

    def _medium(self, tweet_id: str, number: int, file: Path, gif: bool) -> Json:
        """Serves the file where X keeps it, and says so as X does."""
        name = f"F{tweet_id}_{number}"
        medium: Json = {
            "id_str": f"{tweet_id}{number}",
            "type": "photo",
            "media_url_https": f"https://pbs.twimg.com/media/{name}{file.suffix}",
            "original_info": {"width": 96, "height": 64},
            "ext_media_availability": {"status": "Available"},
        }
        if file.suffix != ".mp4":
            self._sites.serve(f"https://pbs.twimg.com/media/{name}", file)
            return medium
        base = f"https://video.twimg.com/ext_tw_video/{name}"
        best = f"{base}/1280x720/best.mp4"
        self._sites.serve(best, file)
        if gif:
            variants = [{"bitrate": 0, "content_type": "video/mp4", "url": best}]
        else:
            small = f"{base}/320x180/small.mp4"
            if self.small:
                self._sites.serve(small, self.small)
            playlist = f"{base}/pl/list.m3u8"
            variants = [
                {"content_type": "application/x-mpegURL", "url": playlist},
                {"bitrate": 256000, "content_type": "video/mp4", "url": small},
                {"bitrate": 2176000, "content_type": "video/mp4", "url": best},
            ]
        medium["type"] = "animated_gif" if gif else "video"
        medium["video_info"] = {"aspect_ratio": [3, 2], "variants": variants}
        return medium

    def _author(self, name: str) -> Json:
        return {
            "__typename": "User",
            "rest_id": _user_id(name),
            "core": {"name": name.title(), "screen_name": name, "created_at": JOINED},
            "legacy": {"description": "", "entities": {"description": {"urls": []}}},
            "avatar": {
                "image_url": "https://pbs.twimg.com/profile_images/0_normal.jpg"
            },
            "location": {"location": ""},
            "privacy": {"protected": name in self._protected},
            "verification": {"verified": False},
        }

    def _home(self, request: Request) -> Answer | Content:
        """The page a login is tried on; a stale one is led to the login page."""
        if request.cookies.get("auth_token") == self.auth_token:
            return HOME
        return redirect("https://x.com/i/flow/login?redirect_after_login=%2Fhome")

    def _one(self, request: Request) -> Answer | Content:
        """TweetResultByRestId, the only question a guest may ask."""
        tweet_id = _variables(request)["tweetId"]
        if tweet_id in self._limits:
            return self._limits[tweet_id]
        result = self._refused.get(tweet_id) or self._tweets.get(tweet_id)
        return {"data": {"tweetResult": {"result": result} if result else {}}}

    def _thread(self, request: Request) -> Answer | Content:
        """TweetDetail: what the tweet answers, itself, and the answers to it."""
        if refusal := self._stranger(request):
            return refusal
        tweet_id = _variables(request)["focalTweetId"]
        if tweet_id in self._limits:
            return self._limits[tweet_id]
        found = self._tweets.get(tweet_id)
        if found is None:
            return {"errors": [{"message": "_Missing: No status found", "code": 144}]}
        talk = found["legacy"]["conversation_id_str"]
        entries = [
            {"entryId": f"tweet-{other_id}", "content": _content(tweet)}
            for other_id, tweet in self._tweets.items()
            if tweet["legacy"]["conversation_id_str"] == talk
        ]
        name = "threaded_conversation_with_injections_v2"
        return {"data": {name: {"instructions": _instructions(entries)}}}

    def _user(self, request: Request) -> Answer | Content:
        result = self._author(_variables(request)["screen_name"])
        return {"data": {"user": {"result": result}}}

    def _media(self, request: Request) -> Answer | Content:
        if refusal := self._stranger(request):
            return refusal
        user_id = _variables(request)["userId"]
        if user_id in map(_user_id, self._protected):
            return {"data": {"user": {"result": {"__typename": "User"}}}}
        items = [
            {"entryId": f"profile-grid-0-tweet-{tweet_id}", "item": _content(tweet)}
            for tweet_id, tweet in reversed(self._tweets.items())
            if tweet["legacy"]["user_id_str"] == user_id
            and "extended_entities" in tweet["legacy"]
        ]
        grid = {"entryId": "profile-grid-0", "content": {"items": items}}
        timeline = {"timeline": {"instructions": _instructions([grid])}}
        return {"data": {"user": {"result": {"timeline": timeline}}}}

    def _search(self, request: Request) -> Answer | Content:
        if refusal := self._stranger(request):
            return refusal
        timeline = {"timeline": {"instructions": _instructions([])}}
        return {"data": {"search_by_raw_query": {"search_timeline": timeline}}}

    def _stranger(self, request: Request) -> Answer | None:
        """The answer to who has no cookie, or not the right one."""
        token = request.cookies.get("auth_token")
        if token == self.auth_token:
            return None
        if token is None:
            return Answer({"errors": [{"message": "Not Found", "code": 34}]}, 404)
        wrong = {"message": "Could not authenticate you", "code": 32}
        return Answer({"errors": [wrong]}, 401)


def _user_id(name: str) -> str:
    return str(int.from_bytes(name.encode(), "big") % 10**9)


def _variables(request: Request) -> Json:
    variables: Json = json.loads(request.query["variables"])
    return variables


def _content(tweet: Json) -> Json:
    return {"itemContent": {"tweet_results": {"result": tweet}}}


def _instructions(entries: list[Json]) -> list[Json]:
    return [{"type": "TimelineAddEntries", "entries": entries}]
