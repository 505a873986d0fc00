"""Sorts addresses into those of the internet and those of this machine's own
network."""

import contextlib
import ctypes
import ipaddress
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
FRESH_S = 10.0  # an address may come or go while the bot runs
# Shorter prefixes are no network at home: a VPN routes half of the internet so.
SHORTEST = {4: 8, 6: 32}
HOME_PREFIX = 56  # what a home gets of its provider (RFC 6177)
# Not for the internet, though some versions of ``ipaddress`` do not know it.
SPECIAL = [
    ipaddress.ip_network(text)
    for text in (
        "192.0.0.0/24",  # RFC 6890
        "192.88.99.0/24",  # RFC 7526: relays of 6to4, which are no more
        "100:0:0:1::/64",  # RFC 9780
        "3fff::/20",  # RFC 9637
        "5f00::/16",  # RFC 9602
    )
]
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052; there may be a route to it
ISATAP = (b"\0\0\x5e\xfe", b"\2\0\x5e\xfe")  # RFC 5214: inside it is some IPv4 address


def is_public(address: str, home: Iterable[Network] = ()) -> bool:
    """Whether a literal address is on the internet and in none of the home's networks;
    one that carries an IPv4 address (mapped, compatible, 6to4, Teredo, NAT64) is judged
    by that."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a name, or an odd spelling that the system would resolve
        return False
    if any(ip in network for network in home):  # of the same version
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        raw = ip.packed
        carried: list[Any] = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        siit = b"\0" * 8 + b"\xff\xff\0\0"  # RFC 7915
        if raw[:12] in (b"\0" * 12, siit, bytes.fromhex("0064ff9b") + b"\0" * 8):
            carried.append(ipaddress.IPv4Address(raw[12:]))
        if raw[:6] == bytes.fromhex("0064ff9b0001"):  # RFC 6052, a /48
            carried.append(ipaddress.IPv4Address(raw[6:8] + raw[9:11]))
        if raw[8:12] in ISATAP:
            return False
        if judged := [str(v4) for v4 in carried if v4 is not None]:
            return all(is_public(v4, home) for v4 in judged)
    if any(ip in network for network in SPECIAL):
        return False
    site_local = getattr(ip, "is_site_local", False)
    return ip.is_global and not ip.is_multicast and not site_local


_known: tuple[float, list[Network]] = (-FRESH_S, [])


def home_networks() -> list[Network]:
    """The networks this machine is in, by the kernel's tables: its own addresses, what
    is on its links, its routers, and the /56 around each IPv6 address."""
    global _known
    if time.monotonic() - _known[0] >= FRESH_S:
        found: set[Network] = set()
        for source in (_interfaces, _routes, _routes_6):
            # If one table has no answer, another may.
            with contextlib.suppress(OSError, ValueError, AttributeError):
                found.update(source())
        wide = (n.supernet(new_prefix=HOME_PREFIX) for n in found if _is_narrow(n))
        _known = (time.monotonic(), [*_outermost(found | {*wide})])
    return _known[1]


def _is_narrow(network: Network) -> bool:
    return network.version == 6 and network.prefixlen > HOME_PREFIX


def _outermost(networks: Iterable[Network]) -> Iterator[Network]:
    """The networks without those that lie inside others."""
    fourth = [n for n in networks if isinstance(n, ipaddress.IPv4Network)]
    sixth = [n for n in networks if isinstance(n, ipaddress.IPv6Network)]
    yield from ipaddress.collapse_addresses(fourth)
    yield from ipaddress.collapse_addresses(sixth)


def _network(address: bytes, prefix: int) -> Iterator[Network]:
    """The network around a global address; the address by itself where its prefix is
    too short to be a home's. The others are private anyway."""
    ip = ipaddress.ip_address(address)
    if not ip.is_global or ip in NAT64:
        return
    if prefix < SHORTEST[ip.version]:
        prefix = ip.max_prefixlen
    yield ipaddress.ip_network((address, prefix), strict=False)


class _Interface(ctypes.Structure):
    """struct ifaddrs; the last field is the peer of a point-to-point link."""


_Interface._fields_ = [
    ("next", ctypes.POINTER(_Interface)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
    ("mask", ctypes.c_void_p),
    ("peer", ctypes.c_void_p),
]


def _raw(pointer: int | None) -> bytes:
    """The address in a struct sockaddr; empty for another kind of it."""
    if not pointer:
        return b""
    head = ctypes.string_at(pointer, 2)
    family = int.from_bytes(head, sys.byteorder) if sys.platform == "linux" else head[1]
    if family == socket.AF_INET:
        return ctypes.string_at(pointer + 4, 4)
    if family == socket.AF_INET6:
        return ctypes.string_at(pointer + 8, 16)
    return b""


def _interfaces() -> Iterator[Network]:
    libc = ctypes.CDLL(None, use_errno=True)
    first = ctypes.POINTER(_Interface)()
    if libc.getifaddrs(ctypes.byref(first)):
        raise OSError(ctypes.get_errno(), "getifaddrs")
    try:
        at = first
        while at:
            one = at.contents
            if address := _raw(one.address):
                mask = int.from_bytes(_raw(one.mask), "big")
                yield from _network(address, mask.bit_count())
            if (peer := _raw(one.peer)) and one.flags & 0x10:  # IFF_POINTOPOINT
                yield from _network(peer, len(peer) * 8)
            at = one.next
    finally:
        libc.freeifaddrs(first)


def _routes() -> Iterator[Network]:
    """What IPv4 routes say: links without a router, and the routers."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        _, target, router, _, _, _, _, mask, *_ = line.split()
        raw = int(target, 16).to_bytes(4, sys.byteorder)
        gate = int(router, 16).to_bytes(4, sys.byteorder)
        prefix = int(mask, 16).bit_count()
        if any(gate):
            yield from _network(gate, 32)
        elif prefix >= SHORTEST[4]:
            yield from _network(raw, prefix)


def _routes_6() -> Iterator[Network]:
    """The same for IPv6; the table holds the machine's own addresses, too."""
    for line in Path("/proc/net/ipv6_route").read_text().splitlines():
        target, prefix, _, _, router, *_ = line.split()
        gate = bytes.fromhex(router)
        if any(gate):
            yield from _network(gate, 128)
        elif int(prefix, 16) >= SHORTEST[6]:
            yield from _network(bytes.fromhex(target), int(prefix, 16))
