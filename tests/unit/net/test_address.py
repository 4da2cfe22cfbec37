"""Only ordinary addresses on the internet are public, in every notation; a name is looked up once and checked."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from relay.kit.errors import AddressRefused
from relay.net import address
from relay.net.address import is_public, resolve_public

REFUSED = [
    "0.0.0.0",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.8.8.8",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::169.254.169.254",
    "64:ff9b::8.8.8.8%eth0",
    "64:ff9b::1:808:808",
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",
    "2001:10::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1111%eth0",
    "fec0::1",
    "ff02::1",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.1",
    "192.167.255.255",
    "223.255.255.255",
    "64:ff9b::8.8.8.8",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "2a00:1450:4001::1",
]


@pytest.mark.parametrize("ip", REFUSED)
def test_what_is_not_an_ordinary_host_is_not_public(ip: str) -> None:
    assert not is_public(ip)


@pytest.mark.parametrize("ip", PUBLIC)
def test_ordinary_hosts_are_public(ip: str) -> None:
    assert is_public(ip)


class _Names:
    """Stands in for the name server: gives one answer after the other."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    def current(self) -> _Names:
        return self

    def getaddrinfo(self, host: str, port: int, *_: Any) -> list[Any]:
        def entry(ip: str) -> Any:
            family = socket.AF_INET6 if ":" in ip else socket.AF_INET
            return (family, socket.SOCK_STREAM, 6, "", (ip, port, 0, 0) if ":" in ip else (ip, port))

        return [entry(ip) for ip in self.answers.pop(0)]


def _names(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> _Names:
    names = _Names(*answers)
    monkeypatch.setattr(address, "_names", names)
    return names


def test_private_addresses_are_left_out_of_a_mixed_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    _names(monkeypatch, ["10.0.0.1", "2606:4700::1", "::1", "8.8.8.8"])
    found = resolve_public("pds.example.com", 443, allow_insecure=False)
    assert [found_address.sockaddr[0] for found_address in found] == ["2606:4700::1", "8.8.8.8"]
    assert [found_address.family for found_address in found] == [socket.AF_INET6, socket.AF_INET]


def test_of_a_name_with_thousands_of_addresses_a_few_of_each_family_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    longer = [f"2606:4700::{number:x}" for number in range(1, 3_000)]
    _names(monkeypatch, [*longer, *(f"8.8.{number // 250}.{number % 250}" for number in range(3_000))])
    found = [found.sockaddr[0] for found in resolve_public("pds.example.com", 443, allow_insecure=False)]
    assert found == [*longer[: address.MAX_ADDRESSES], *(f"8.8.0.{number}" for number in range(address.MAX_ADDRESSES))]


def test_a_name_with_private_addresses_only_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _names(monkeypatch, ["127.0.0.1"], ["127.0.0.1"])
    with pytest.raises(AddressRefused) as refusal:
        resolve_public("pds.example.com", 443, allow_insecure=False)
    assert refusal.value.reason == "address-refused"
    assert resolve_public("pds.example.com", 443, allow_insecure=True)[0].sockaddr == ("127.0.0.1", 443)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_this_machine_is_refused_by_name_and_by_number(name: str) -> None:
    with pytest.raises(AddressRefused) as refusal:
        resolve_public(name, 80, allow_insecure=False)
    assert refusal.value.reason == "address-refused"


@pytest.mark.parametrize("name", ["0x7f.1", "2130706433", "127.1", "0177.0.0.1"])
def test_odd_notations_of_this_machine_do_not_lead_to_it(name: str) -> None:
    try:
        found = resolve_public(name, 80, allow_insecure=False, timeout=3)
    except AddressRefused:
        return
    # Whatever the notation was read as, that is where the connection goes.
    assert all(is_public(str(found_address.sockaddr[0])) for found_address in found)


@pytest.mark.parametrize("name", ["", "a..b", "x" * 300, "exa\x00mple.com", "ex\udc80mple.com"])
def test_names_that_are_none_are_unresolved(name: str) -> None:
    with pytest.raises(AddressRefused):
        resolve_public(name, 80, allow_insecure=False, timeout=3)
