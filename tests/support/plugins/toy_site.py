"""The toy site as a platform, which the settings may call adult."""

from bossbot import Platform, PlatformConfig, hookimpl


class Config(PlatformConfig):
    adult: bool = False


@hookimpl
def register_platforms(config: Config) -> list[Platform]:
    return [
        Platform(
            name="Toys",
            pattern=r"https?://toy\.example/",
            example="https://toy.example/a",
            engine="toy",
            short=r"https://toy\.example/.*facts=leads",
            adult=config.adult,
        )
    ]
