"""The contexts that gallery-dl connects with."""

import socket
import ssl
import threading
from pathlib import Path

import pytest
import trustme
from bossbot_plugins._tls import SharedContext


class Server:
    """Says "hello" to whoever trusts its certificate."""

    def __init__(self, folder: Path, name: str) -> None:
        authority, self.file = trustme.CA(), str(folder / name)
        authority.cert_pem.write_to_path(self.file)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self._context)

    def greets(self, context: ssl.SSLContext, host: str = "localhost") -> bool:
        ours, theirs = socket.socketpair()

        def serve() -> None:
            try:
                with self._context.wrap_socket(theirs, server_side=True) as talk:
                    talk.sendall(b"hello")
            except OSError:
                theirs.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with context.wrap_socket(ours, server_hostname=host) as talk:
                return talk.recv(5) == b"hello"
        except ssl.SSLCertVerificationError:
            ours.close()
            return False
        finally:
            thread.join()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Server:
    return Server(tmp_path_factory.mktemp("one"), "one.pem")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Server:
    return Server(tmp_path_factory.mktemp("other"), "other.pem")


def trusting(*files: str) -> SharedContext:
    context = SharedContext(ssl.PROTOCOL_TLS_CLIENT)
    for file in files:
        context.load_verify_locations(file, None, None)
    return context


def test_a_context_trusts_whom_it_was_told_to_only(one: Server, other: Server) -> None:
    assert one.greets(trusting(one.file)) and not other.greets(trusting(one.file))
    both = trusting(one.file, other.file)
    assert one.greets(both) and other.greets(both)
    assert not one.greets(trusting(other.file)) and not one.greets(trusting())


def test_authorities_are_read_once_for_the_same_settings(one: Server) -> None:
    assert trusting(one.file).ready() is trusting(one.file, one.file).ready()
    strict = trusting(one.file)
    strict.minimum_version = ssl.TLSVersion.TLSv1_3
    chosen = trusting(one.file)
    chosen.set_ciphers("ECDHE+AESGCM")
    strange = trusting(one.file)
    strange.set_alpn_protocols(["http/1.1"])
    all_of_them = [trusting(one.file), strict, chosen, strange]
    assert len({context.ready() for context in all_of_them}) == 4
    assert strict.ready().minimum_version is ssl.TLSVersion.TLSv1_3
    assert chosen.ready().get_ciphers() != strict.ready().get_ciphers()


def test_a_context_that_verifies_nothing_changes_no_other(
    one: Server, other: Server
) -> None:
    careless = trusting(one.file)
    assert not other.greets(careless)
    careless.check_hostname = False
    assert one.greets(careless, "a.example") and not other.greets(careless)
    careless.verify_mode = ssl.CERT_NONE
    assert other.greets(careless)
    careful = trusting(one.file)
    assert not other.greets(careful) and not one.greets(careful, "a.example")


def test_ciphers_that_do_not_exist_are_refused_at_once() -> None:
    with pytest.raises(ssl.SSLError):
        trusting().set_ciphers("no-such-cipher")
