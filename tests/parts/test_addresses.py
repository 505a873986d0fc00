"""Which addresses are the home's: by the kernel's tables, as they may look."""

import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from bossbot_plugins import _addresses
from bossbot_plugins._addresses import home_networks, is_public

SPECIAL = """
    192.0.0.1 192.0.0.9 192.0.0.10 192.0.0.170 192.0.0.255 3fff::1 3fff:fff::1
    5f00::1 5f00:1:2::3 100::1 100:0:0:1::5 2a00:1450::5efe:10.0.0.1
    2a00:1450::200:5efe:192.168.0.1 2a00:1450::5efe:8.8.8.8 fe80::5efe:1.1.1.1
    ::ffff:192.0.0.8 64:ff9b::192.0.0.9 2002:c000:0009::1
    """
NEIGHBOURS = "192.0.1.1 191.255.255.255 4000::1 5eff::1 2a00:1450::5efe"


@pytest.mark.parametrize("address", SPECIAL.split())
def test_special_address_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", NEIGHBOURS.split())
def test_neighbour_of_a_special_address_is_judged_by_itself(address: str) -> None:
    assert is_public(address) == ipaddress.ip_address(address).is_global


ROUTES = """Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t00000000\t01081F5D\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t00081F5D\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0
tun0\t00000080\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0
"""
NONE = "0" * 32


def route_6(target: str, prefix: int, router: str = "::") -> str:
    words = [socket.inet_pton(socket.AF_INET6, one).hex() for one in (target, router)]
    rest = "00000400 00000001 00000000 00000001     eth0"
    return f"{words[0]} {prefix:02x} {NONE} 00 {words[1]} {rest}\n"


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose provider gives it 93.31.8.0/24 and 2a01:e0a:12:3400::/56."""
    files = {
        "/proc/net/route": ROUTES,
        "/proc/net/ipv6_route": route_6("::", 0, "2a01:e0a:99::1")
        + route_6("2000::", 3)
        + route_6("64:ff9b::", 96)
        + route_6("2a01:e0a:12:3401::", 64)
        + route_6("2a01:e0a:77::5", 128),
    }
    for path, text in files.items():
        (tmp_path / path.replace("/", "_")).write_text(text)
    monkeypatch.setattr(
        _addresses, "Path", lambda path: tmp_path / path.replace("/", "_")
    )
    monkeypatch.setattr(_addresses, "_known", (-1e9, []))
    yield
    _addresses._known = (-1e9, [])


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.31.8.1", False),
        ("93.31.8.200", False),
        ("::ffff:93.31.8.200", False),
        ("64:ff9b::93.31.8.200", False),
        ("2002:5d1f:08c8::1", False),
        ("93.31.9.1", True),
        ("8.8.8.8", True),
        ("200.1.1.1", True),
        ("2a01:e0a:12:3401::5", False),
        ("2a01:e0a:12:34ff::5", False),
        ("2a01:e0a:12:3500::5", True),
        ("2a01:e0a:99::1", False),
        ("2a01:e0a:77::5", False),
        ("2a01:e0a:77:ff::1", False),
        ("2a01:e0a:77:100::1", True),
        ("2606:4700:4700::1111", True),
        ("64:ff9b::8.8.8.8", True),
    ],
)
def test_own_networks_are_private(address: str, public: bool) -> None:
    assert is_public(address, home_networks()) is public


def test_own_addresses_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = [*_addresses._interfaces()]
    assert all(network.is_global for network in raw)
    monkeypatch.setattr(
        _addresses, "_raw", lambda pointer: b"\x5d\x1f\x08\x07" if pointer else b""
    )
    mine = ipaddress.ip_address("93.31.8.7")
    assert any(mine in network for network in _addresses._interfaces())


def test_tables_that_are_missing_leave_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_addresses, "Path", lambda path: tmp_path / "nothing")
    monkeypatch.setattr(_addresses, "_known", (-1e9, []))
    assert isinstance(home_networks(), list)
