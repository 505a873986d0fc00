"""Sound that plays in most places as it is."""

# The ending of a codec's container; sound of other codecs becomes AAC.
CONTAINERS = {
    "aac": "m4a",
    "mp3": "mp3",
    "flac": "flac",
    **dict.fromkeys(("opus", "vorbis"), "ogg"),
    **dict.fromkeys(("pcm_s16le", "pcm_s24le", "pcm_u8"), "wav"),
}
# The ending of what a file is.
ENDINGS = {
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg",
    **dict.fromkeys(("audio/mp4", "audio/x-m4a"), "m4a"),
    **dict.fromkeys(("audio/wav", "audio/x-wav"), "wav"),
    **dict.fromkeys(("audio/flac", "audio/x-flac"), "flac"),
}
