"""The archive's settings."""

from typing import Literal, Self

from bossbot_plugins._address import Address
from pydantic import ByteSize, Field, SecretStr, model_validator

from bossbot import PluginConfig


class Config(PluginConfig):
    """[plugins.archive] in config.toml."""

    text_limit: ByteSize = Field(
        ByteSize(40 * 2**10), ge=1024, description="how much text of one post is kept"
    )
    piece_chars: int = Field(
        500,
        ge=100,
        le=2000,
        description="length of the pieces that a text is searched in",
    )
    meaning: Literal["auto", "off", "endpoint"] = Field(
        "auto",
        description="search by meaning: with a model on this machine, or on a server",
    )
    meaning_idle_s: float = Field(
        600,
        ge=0,
        description="idle time after which the model leaves the memory; 0: never",
    )
    endpoint_url: Address = Field(
        "", description="address of the model's server: http://localhost:11434/v1"
    )
    endpoint_model: str = Field("", description="name of the model on that server")
    endpoint_key: SecretStr = Field(
        SecretStr(""), description="key for that server; put it in .env"
    )
    subtitles: Literal["own", "off"] = Field(
        "own", description="own: the site's subtitles are searched; off: they are not"
    )
    retention_days: float = Field(
        0, ge=0, description="how long posts are remembered; 0: until they are deleted"
    )
    sure: float = Field(0.45, ge=0, le=1.5, description="lowest score of a sure match")
    perhaps: float = Field(
        0.33, ge=0, le=1.5, description="score below which a post is not shown"
    )

    @model_validator(mode="after")
    def _endpoint(self) -> Self:
        if self.meaning == "endpoint" and not (
            self.endpoint_url and self.endpoint_model
        ):
            raise ValueError(
                'meaning = "endpoint" needs endpoint_url and endpoint_model'
            )
        return self


class GuildConfig(PluginConfig):
    """[archive] of a server."""

    archive: bool = Field(
        True,
        description="whether posts can be searched; off: all of them are forgotten",
    )
