"""TLS for gallery-dl: certificate authorities that are read once, not for each context."""

import functools
import ssl
from typing import Any, ClassVar, Self, cast

# All that makes a client's context what it is; in an order in which they can be set.
SETTINGS = (
    *("minimum_version", "maximum_version", "options", "verify_flags"),
    *("check_hostname", "verify_mode", "hostname_checks_common_name"),
    *("post_handshake_auth", "keylog_filename"),
)


class SharedContext(ssl.SSLContext):
    """A context that connects by another one, made of the same settings and calls.
    That one is kept, with the certificate authorities it has read, which takes longer
    than a small download."""

    blank: ClassVar[list[Any]] = []  # made before they are needed

    def __new__(cls, protocol: Any = None, *_: Any) -> Self:
        if protocol == ssl.PROTOCOL_TLS_CLIENT and cls.blank:
            return cast(Self, cls.blank.pop())
        return super().__new__(cls, protocol)

    def __init__(self, *_: Any) -> None:
        self.calls: dict[tuple[Any, ...], None] = {}  # in order, each one once

    def _call(self, name: str, *arguments: Any) -> None:
        lists = (tuple(one) if isinstance(one, list) else one for one in arguments)
        self.calls[name, *lists] = None

    def set_ciphers(self, *arguments: Any) -> None:
        super().set_ciphers(*arguments)  # it raises for unknown ones
        self._call("set_ciphers", *arguments)

    def set_alpn_protocols(self, *arguments: Any) -> None:
        self._call("set_alpn_protocols", *arguments)

    def load_cert_chain(self, *arguments: Any) -> None:
        self._call("load_cert_chain", *arguments)

    def load_verify_locations(self, *arguments: Any) -> None:
        self._call("load_verify_locations", *arguments)

    def load_default_certs(self, *arguments: Any) -> None:
        self._call("load_default_certs", *arguments)

    def wrap_socket(self, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        return self.ready().wrap_socket(*arguments, **named)

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        return self.ready().wrap_bio(*arguments, **named)

    def ready(self) -> ssl.SSLContext:
        """The context that connects."""
        settings = tuple(getattr(self, name) for name in SETTINGS)
        return _made(self.protocol, settings, tuple(self.calls))


@functools.cache
def _made(
    protocol: int, settings: tuple[Any, ...], calls: tuple[tuple[Any, ...], ...]
) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    for name, value in zip(SETTINGS, settings, strict=True):
        setattr(context, name, value)
    for name, *arguments in calls:
        getattr(context, name)(*arguments)
    return context
