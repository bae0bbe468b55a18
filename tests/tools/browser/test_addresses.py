"""Which addresses may be fetched: a table of what must be refused, whatever way it is written."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_oss.tools.simple_browser.addresses import AddressPolicy, literal_address

REFUSED = [
    *("127.0.0.1", "127.8.9.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.2.3", "240.0.0.1"),
    *("255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
    *("2002:7f00:1::", "2002:c0a8:101::1", "::127.0.0.1", "64:ff9b:1::7f00:1"),
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", REFUSED)
def test_refused(address: str) -> None:
    assert not AddressPolicy().permits(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert AddressPolicy().permits(address)


@given(st.ip_addresses(v=4, network="10.0.0.0/8") | st.ip_addresses(v=4, network="127.0.0.0/8"))
def test_no_wrapping_in_ipv6_opens_a_private_address(ip: ipaddress.IPv4Address) -> None:
    number = int(ip)
    for wrapped in (0xFFFF << 32 | number, 0x0064_FF9B << 96 | number, 0x2002 << 112 | number << 80 | 1):
        assert not AddressPolicy().permits(str(ipaddress.IPv6Address(wrapped)))


def test_networks_can_be_allowed() -> None:
    policy = AddressPolicy(["10.1.0.0/16", "::1/128"])
    assert policy.permits("10.1.2.3")
    assert policy.permits("::ffff:10.1.2.3")
    assert policy.permits("::1")
    assert not policy.permits("10.2.0.1")
    with pytest.raises(ValueError, match="host bits"):
        AddressPolicy(["10.1.2.3/8"])


def test_literals() -> None:
    assert literal_address("127.0.0.1") == "127.0.0.1"
    assert literal_address("[::1]") == "::1"
    assert literal_address("example.com") is None
    assert literal_address("2130706433") is None, "left to the system's resolver, whose answer is checked"
