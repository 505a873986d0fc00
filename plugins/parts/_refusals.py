"""What Discord's refusals mean."""

# By Discord's codes.
REFUSALS = {
    10003: "The channel this was asked for in does not exist any more.",
    20009: "Discord takes that for explicit content, which it does not let me post here.",
    50083: "This thread is archived or locked. Ask a moderator to open it.",
    50278: "I cannot write to you: we have no server in common. Ask in a server.",
    200000: "The filters of this server (AutoMod) do not let that message through.",
    240000: "Discord's filter of harmful links does not let that message through.",
}
