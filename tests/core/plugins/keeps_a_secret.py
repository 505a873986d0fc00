"""Has a secret whose name does not say so."""

from bossbot import PluginConfig, SecretStr


class Config(PluginConfig):
    plain: SecretStr = SecretStr("hush1")
