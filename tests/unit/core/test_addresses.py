"""Addresses, subnets and slices; what networks may not use."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.core.addresses import Subnet, format_ipv4, overlaps, parse_ipv4, subnet_problem
from argosy.core.errors import InvalidError

ADDRESSES = st.integers(0, (1 << 32) - 1)


@given(ADDRESSES)
def test_addresses_read_back_as_the_standard_library_reads_them(address):
    text = format_ipv4(address)
    assert text == str(ipaddress.IPv4Address(address))
    assert parse_ipv4(text) == address


@pytest.mark.parametrize(
    "text", ["", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "a.b.c.d", "1.2.3.-4", "١.1.1.1", " 1.2.3.4"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(InvalidError, match="not an IPv4 address"):
        parse_ipv4(text)


@given(ADDRESSES, st.integers(8, 32), ADDRESSES, st.integers(8, 32))
def test_subnets_agree_with_the_standard_library(a, a_prefix, b, b_prefix):
    one, other = Subnet.around(a, a_prefix), Subnet.around(b, b_prefix)
    theirs, others = ipaddress.ip_network(str(one)), ipaddress.ip_network(str(other))
    assert Subnet.parse(str(one)) == one
    assert one.size == theirs.num_addresses
    assert one.overlaps(other) == theirs.overlaps(others) == overlaps(str(other), str(one))
    assert one.contains(b) == (ipaddress.IPv4Address(b) in theirs)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10.0.0.0", "write it like"),
        ("10.0.0.0/33", "write it like"),
        ("10.0.0.0/x", "write it like"),
        ("10.0.0.1/24", "did you mean 10.0.0.0/24"),
        ("fd00::/64", "IPv6"),
        ("10.0.0/24", '"10.0.0/24" is not a subnet, as "10.0.0" is not an IPv4 address: write it like 10.64.0.0/16'),
        ("10.0.256.0/24", r"not an IPv4 address \(256 is more than 255\): write it like 10.64.0.0/16"),
    ],
)
def test_a_bad_subnet_says_what_would_be_right(text, says):
    with pytest.raises(InvalidError, match=says):
        Subnet.parse(text)


def test_slices_are_whole_and_the_first_is_reserved():
    subnet = Subnet.parse("10.64.0.0/16")
    assert (subnet.slices, subnet.capacity) == (2048, 65504)
    assert str(subnet.slice(1)) == "10.64.0.32/27"
    assert subnet.slice_of(parse_ipv4("10.64.0.31")) == 0
    assert subnet.slice_of(parse_ipv4("10.64.255.255")) == 2047
    assert Subnet.parse("10.0.0.0/26").capacity == 32


@pytest.mark.parametrize("text", ["10.64.0.0/16", "192.168.7.0/26", "8.8.0.0/16", "10.0.0.0/8"])
def test_subnets_that_networks_can_have(text):
    assert subnet_problem(text) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10.0.0.0/27", "the smallest subnet is a /26 (32 tasks), such as 10.0.0.0/26"),
        ("10.0.0.32/27", "such as 10.0.0.0/26"),
        ("0.0.0.0/0", "too large"),
        ("169.254.0.0/24", "link-local"),
        ("127.0.0.0/16", "loopback"),
        ("224.0.0.0/8", "multicast"),
        ("240.0.0.0/8", "reserved"),
        ("192.0.2.0/24", "overlaps 192.0.2.7/32 (node n1)"),
        ("nonsense", "not a subnet"),
    ],
)
def test_a_subnet_that_cannot_be_says_what_would_fit(text, says):
    assert says in subnet_problem(text, (("192.0.2.7/32", "node n1"),))
