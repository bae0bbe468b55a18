"""Which network addresses a direct fetch may connect to.

A model, and every page it reads, can name any host. So addresses are checked after name resolution, and the
connection goes to exactly the addresses that were checked: a name that resolves differently a moment later
(DNS rebinding) has no second chance.
"""

import ipaddress
import socket
from collections.abc import Iterable

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from gpt_oss.tools.simple_browser.base import BackendError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class AddressPolicy:
    """Public unicast addresses may be fetched, and all in `allowed_networks` (such as 10.1.0.0/16)."""

    def __init__(self, allowed_networks: Iterable[str] = ()):
        self._allowed: list[Network] = [ipaddress.ip_network(network) for network in allowed_networks]

    def permits(self, address: str) -> bool:
        """Whether `address` (numeric) may be connected to; an IPv4 inside an IPv6 counts as itself."""
        ip = ipaddress.ip_address(address.partition("%")[0])
        embedded = _embedded(ip)
        candidates = [ip] if embedded is None else [ip, embedded]
        if any(candidate in network for network in self._allowed for candidate in candidates):
            return True
        return _is_public(ip if embedded is None else embedded)

    def check(self, host: str, addresses: Iterable[str]) -> None:
        """Raise BackendError if one of the `addresses` of `host` may not be fetched."""
        for address in addresses:
            if not self.permits(address):
                raise BackendError(f"{host} is at {address}, which is not on the public web, and is not opened")


def _embedded(ip: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address leads to: mapped, 6to4, Teredo, NAT64."""
    if isinstance(ip, ipaddress.IPv4Address):
        return None
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])


def _is_public(ip: Address) -> bool:
    return ip.is_global and not (ip.is_multicast or ip.is_unspecified or ip.is_reserved)


def literal_address(host: str) -> str | None:
    """The address if `host` is one already (then no resolver is asked), else None."""
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return None


class CheckedResolver(AbstractResolver):
    """Resolves names with `resolver` (the system's by default) and refuses what the policy does not permit.

    The system's resolver also reads 2130706433, 0x7f.1 and the like, so those are checked as what they are.
    """

    def __init__(self, policy: AddressPolicy, resolver: AbstractResolver | None = None):
        self._policy = policy
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of `host`, all of them permitted."""
        resolver = self._resolver or ThreadedResolver()
        found = await resolver.resolve(host, port, family)
        self._policy.check(host, (result["host"] for result in found))
        return found

    async def close(self) -> None:
        """Nothing to give back: a resolver that was passed in belongs to the caller."""
