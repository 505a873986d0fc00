"""Fails with its secret as the reason."""

from bossbot import Platform, PluginConfig, SecretStr, hookimpl


class Config(PluginConfig):
    auth_token: SecretStr


@hookimpl
def register_platforms(config: Config) -> list[Platform]:
    raise RuntimeError(config.auth_token.get_secret_value())
