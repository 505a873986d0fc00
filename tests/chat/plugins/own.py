"""A plugin with a server's setting of every kind."""

from enum import StrEnum
from typing import Literal

from pydantic import ByteSize, Field, SecretStr

from bossbot import ChannelId, PlatformName, PluginConfig, RoleId, UserId, hookimpl


class Mode(StrEnum):
    A = "a"
    B = "bee"


class Config(PluginConfig):
    most: int = 7
    largest: ByteSize = ByteSize(50 * 2**20)


class GuildConfig(PluginConfig):
    count: int = Field(3, ge=0, le=9, description="a count")
    ratio: float = Field(0.5, gt=0)
    loud: bool = False
    size: ByteSize = Field(ByteSize(2**20), description="a size")
    mode: Mode = Mode.A
    choice: Literal["one", 2] = "one"
    greeting: str = Field("", max_length=5)
    secret: SecretStr = SecretStr("")
    fan: RoleId | None = None
    place: ChannelId | None = None
    friends: list[UserId] = Field([])
    ranks: dict[RoleId, Literal["low", "high"]] = Field({})
    rules: dict[ChannelId, Mode] = Field({})
    sites: list[PlatformName] = Field([])
    modes: list[Mode] = Field([])
    most: int | None = Field(None, ge=0)
    largest: ByteSize | None = None
    platforms: str = ""

    def within(self, config, settings):
        most = config.most if self.most is None else min(self.most, config.most)
        sizes = (self.largest, config.largest)
        largest = min(size for size in sizes if size is not None)
        return self.model_copy(update={"most": most, "largest": largest})


@hookimpl
def job_changed(job):
    pass
