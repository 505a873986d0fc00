"""YouTube as yt-dlp reads it: the watch page, the player's answer, playlists."""

import json
from pathlib import Path
from typing import Any

from sites import Answer, Content, Request, Sites

Json = dict[str, Any]

ROOT = "https://www.youtube.com"
CDN = "https://rr1---sn-canned.googlevideo.com"
CONFIG = {
    "INNERTUBE_API_KEY": "canned",
    "INNERTUBE_CONTEXT": {"client": {"clientName": "WEB", "visitorData": "canned"}},
    "VISITOR_DATA": "canned",
    "STS": 20000,  # spares the download of the player's script
    "PLAYER_JS_URL": "/s/player/0123abcd/player_ias.vflset/en_US/base.js",
}
# What the player says when it does not play: status, reason, second sentence.
GRANTED = "Sign in if you've been granted access to this video"
COUNTRY = "The uploader has not made this video available in your country"
MEMBERS = "Join this channel to get access to members-only content like this video"
REFUSALS = {
    "private": ("LOGIN_REQUIRED", "Private video", GRANTED),
    "age": ("LOGIN_REQUIRED", "Sign in to confirm your age", "It may be inappropriate"),
    "bot": ("LOGIN_REQUIRED", "Sign in to confirm you’re not a bot", "Learn more"),
    "removed": ("ERROR", "This video has been removed by the uploader", ""),
    "unavailable": ("ERROR", "Video unavailable", "This video is unavailable"),
    "members": ("UNPLAYABLE", MEMBERS, ""),
    "region": ("UNPLAYABLE", "Video unavailable", COUNTRY),
    "limited": ("UNPLAYABLE", "This content isn't available, try again later.", ""),
    "upcoming": ("LIVE_STREAM_OFFLINE", "This live event will begin in 3 days.", ""),
}


class YouTube:
    """YouTube with the videos published so far; ids have eleven letters."""

    def __init__(self, sites: Sites) -> None:
        self._sites = sites
        self._players: dict[str, Json] = {}
        self._streams: dict[str, Path] = {}  # by "id/itag"
        self._subtitles: dict[str, str] = {}  # by language, the same for all videos
        self._playlists: dict[str, list[str]] = {}
        sites.serve(f"{ROOT}/watch", self._watch)
        sites.serve(f"{ROOT}/embed/*", self._embed)
        sites.serve(f"{ROOT}/playlist", self._playlist)
        sites.serve(f"{ROOT}/youtubei/v1/player", self._player)
        sites.serve(f"{ROOT}/youtubei/v1/browse", self._browse)
        sites.serve(f"{CDN}/videoplayback", self._stream)
        sites.serve(f"{ROOT}/api/timedtext", self._timedtext)

    def video(
        self,
        video_id: str,
        whole: Path | None = None,
        picture: Path | None = None,
        sound: Path | None = None,
    ) -> str:
        """A video as one file (itag 18), as streams to be merged (136, 140), or both."""
        player = self._publish(video_id)
        streaming: Json = player["streamingData"]
        if whole:
            codecs = 'video/mp4; codecs="avc1.42001E, mp4a.40.2"'
            form = self._format(video_id, 18, whole, codecs, height=360)
            streaming["formats"] = [{**form, "audioQuality": "AUDIO_QUALITY_LOW"}]
        streaming["adaptiveFormats"] = []
        if picture:
            self._add_picture(video_id, 136, picture, 720)
        if sound:
            form = self._format(video_id, 140, sound, 'audio/mp4; codecs="mp4a.40.2"')
            form |= {"audioQuality": "AUDIO_QUALITY_MEDIUM", "audioSampleRate": "44100"}
            streaming["adaptiveFormats"].append(form)
        return f"{ROOT}/watch?v={video_id}"

    def pictures(
        self, video_id: str, files: dict[int, Path], sound: Path, upright: bool = False
    ) -> str:
        """A video with streams to be merged, by their heights, or their widths when the
        pictures are higher than wide."""
        link = self.video(video_id, sound=sound)
        for itag, (size, file) in enumerate(files.items(), 200):
            self._add_picture(video_id, itag, file, size, upright)
        return link

    def add_subtitles(self, video_id: str, machine: str = "", **texts: str) -> None:
        """Subtitles in these languages; the one that ``machine`` names is a machine's."""
        tracks = [
            {
                "baseUrl": f"{ROOT}/api/timedtext?v={video_id}&lang={code}",
                "vssId": f"a.{code}" if code == machine else f".{code}",
                "languageCode": code,
                "name": {"simpleText": code},
                **({"kind": "asr"} if code == machine else {}),
                "isTranslatable": True,
            }
            for code in texts
        ]
        others = [{"languageCode": c, "languageName": {"simpleText": c}} for c in texts]
        renderer = {"captionTracks": tracks, "translationLanguages": others}
        self._players[video_id]["captions"] = {
            "playerCaptionsTracklistRenderer": renderer
        }
        self._subtitles |= texts

    def _timedtext(self, request: Request) -> Answer:
        text = self._subtitles.get(request.query["lang"])
        if text is None or request.query.get("fmt") != "srt":
            return Answer(status=404)
        return Answer(f"1\n00:00:00,000 --> 00:00:01,000\n{text}\n")

    def _add_picture(
        self, video_id: str, itag: int, file: Path, size: int, upright: bool = False
    ) -> None:
        codecs = 'video/mp4; codecs="avc1.4d401f"'
        form = self._format(video_id, itag, file, codecs, height=size)
        if upright:
            form["height"], form["width"] = form["width"], form["height"]
        streaming = self._players[video_id]["streamingData"]
        streaming["adaptiveFormats"].append(form)

    def live(self, video_id: str) -> str:
        """A broadcast that is on the air; its list of segments never ends."""
        player = self._publish(video_id, isLive=True, isLiveContent=True)
        variant = f"{CDN}/hls/{video_id}/live.m3u8"
        header = '#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9,CODECS="avc1.4d401f,mp4a.40.2"'
        manifest = f"{CDN}/hls/{video_id}/master.m3u8"
        self._sites.serve(manifest, f"{header},RESOLUTION=96x64\n{variant}\n")
        segment = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsegment.ts\n"
        self._sites.serve(variant, segment)
        self._sites.serve(f"{CDN}/hls/{video_id}/segment.ts", Answer(bytes(188)))
        player["streamingData"]["hlsManifestUrl"] = manifest
        return f"{ROOT}/watch?v={video_id}"

    def refused(self, video_id: str, why: str) -> str:
        """A video that does not play; `why` is a key of REFUSALS."""
        status, reason, subreason = REFUSALS[why]
        screen = {"reason": {"simpleText": reason}}
        if subreason:
            screen["subreason"] = {"simpleText": subreason}
        player = self._publish(video_id, isUpcoming=why == "upcoming")
        player["playabilityStatus"] = {
            "status": status,
            "reason": reason,
            "errorScreen": {"playerErrorMessageRenderer": screen},
        }
        del player["streamingData"]
        return f"{ROOT}/watch?v={video_id}"

    def playlist(self, playlist_id: str, *video_ids: str) -> str:
        """A list of videos published before or after; its id starts with PL."""
        self._playlists[playlist_id] = list(video_ids)
        return f"{ROOT}/playlist?list={playlist_id}"

    def _publish(self, video_id: str, **details: Any) -> Json:
        self._players[video_id] = {
            "playabilityStatus": {"status": "OK", "playableInEmbed": True},
            "streamingData": {"expiresInSeconds": "21540"},
            "videoDetails": {
                "videoId": video_id,
                "title": f"Video {video_id}",
                "lengthSeconds": "1",
                "channelId": "UC0123456789abcdefghijkl",
                "author": "Alice",
                "shortDescription": "words",
                "isLiveContent": False,
                **details,
            },
        }
        return self._players[video_id]

    def _format(
        self, video_id: str, itag: int, file: Path, mime_type: str, height: int = 0
    ) -> Json:
        self._streams[f"{video_id}/{itag}"] = file
        form: Json = {
            "itag": itag,
            "url": f"{CDN}/videoplayback?id={video_id}&itag={itag}",
            "mimeType": mime_type,
            "bitrate": 100_000 + height,
            "contentLength": str(file.stat().st_size),
            "approxDurationMs": "1000",
        }
        if height:
            quality = "hd720" if height >= 720 else "medium"
            form |= {"height": height, "width": height * 16 // 9, "quality": quality}
        return form

    def _stream(self, request: Request) -> Answer | Content:
        file = self._streams.get(f"{request.query['id']}/{request.query['itag']}")
        return Answer(file) if file else Answer(status=403)

    def _answer(self, video_id: str) -> Json:
        if video_id not in self._players:
            self.refused(video_id, "unavailable")
        return self._players[video_id]

    def _player(self, request: Request) -> Content:
        return self._answer(json.loads(request.body)["videoId"])

    def _watch(self, request: Request) -> Content:
        """The page; it names no streams, which only the app's players are given."""
        player = {**self._answer(request.query["v"]), "streamingData": {}}
        results: Json = {"results": {}}
        if wanted := request.query.get("list"):
            where = {"webCommandMetadata": {"url": f"/playlist?list={wanted}"}}
            endpoint = {"commandMetadata": where}
            results["playlist"] = {"playlist": {"contents": [], "endpoint": endpoint}}
        return _page({"contents": {"twoColumnWatchNextResults": results}}, player)

    def _embed(self, request: Request) -> Content:
        return _page({}, {})

    def _playlist(self, request: Request) -> Content:
        return _page(self._listed(request.query["list"]), {})

    def _browse(self, request: Request) -> Content:
        """The playlist again, as yt-dlp asks for it to see the unavailable videos."""
        return self._listed(json.loads(request.body)["browseId"].removeprefix("VL"))

    def _listed(self, playlist_id: str) -> Json:
        if playlist_id not in self._playlists:
            message = {"simpleText": "The playlist does not exist."}
            return {"alerts": [{"alertRenderer": {"type": "ERROR", "text": message}}]}
        rows = [
            {"playlistVideoRenderer": {"videoId": video_id, "title": {"runs": []}}}
            for video_id in self._playlists[playlist_id]
        ]
        videos = {"playlistVideoListRenderer": {"contents": rows}}
        section = {"itemSectionRenderer": {"contents": [videos]}}
        content = {"sectionListRenderer": {"contents": [section]}}
        tab = {"tabRenderer": {"selected": True, "content": content}}
        return {
            "contents": {"twoColumnBrowseResultsRenderer": {"tabs": [tab]}},
            "metadata": {"playlistMetadataRenderer": {"title": "A playlist"}},
        }


def _page(data: Json, player: Json) -> str:
    return f"""<script>ytcfg.set({json.dumps(CONFIG)});</script>
<script>var ytInitialPlayerResponse = {json.dumps(player)};</script>
<script>var ytInitialData = {json.dumps(data)};</script>"""
