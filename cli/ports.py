"""Published ports as people write them, in Compose files and on the command line.

    80   8080:80   8080:80/udp   127.0.0.1:8080:80   3000-3005   8000-8005:9000-9005/tcp
    published=8080,target=80,protocol=udp,mode=host,host_ip=127.0.0.1

A port without a number in the host is given one by the cluster.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from argosy.cli.port_rows import number_of, port_text
from argosy.core.errors import InvalidError
from argosy.core.service import HostPort, PortSpec

if TYPE_CHECKING:
    from argosy.proto.argosy.v1 import types_pb2 as types

_SHORT: Final = re.compile(
    r"(?:(?:(?P<ip>\[[^\]]*\]|[^:\[\]]+):)?(?P<published>[^:/]*):)?(?P<target>[^:/]+)(?:/(?P<protocol>[^/]*))?"
)
_RANGE: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_FORMS: Final = "write 8080:80, 80, or 127.0.0.1:8080:80/udp"
_MODES: Final = ("ingress", "host")


@dataclass(frozen=True, slots=True)
class Publication:
    """One port. `published` 0: the cluster chooses. `host_mode`: on the nodes of its tasks, else on every node."""

    target: int
    published: int = 0
    protocol: str = "tcp"
    host_ip: str = ""
    host_mode: bool = False
    name: str = ""


def parse_short(text: str) -> list[Publication]:
    """Return the ports of the short form. InvalidError says what is wrong with it."""
    match = _SHORT.fullmatch(text.strip())
    if match is None:
        raise InvalidError(f"'{text}' is no port: {_FORMS}")
    targets = _numbers(match["target"], text)
    numbers = _numbers(match["published"], text) if match["published"] else [0] * len(targets)
    if len(numbers) != len(targets):
        raise InvalidError(
            f"'{text}': {len(numbers)} ports of the hosts and {len(targets)} of the container: write as many on both "
            "sides, or leave those of the hosts out and the cluster chooses"
        )
    protocol, host_ip = _protocol(match["protocol"]), read_host_ip(match["ip"] or "")
    return [Publication(t, n, protocol, host_ip) for t, n in zip(targets, numbers, strict=True)]


def parse_option(text: str) -> list[Publication]:
    """Return the ports of a command line's option: the short form, or NAME=VALUE,…. InvalidError."""
    if "=" not in text:
        return parse_short(text)
    known = {"target": "", "published": "", "protocol": "", "mode": "ingress", "host_ip": "", "name": ""}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        name = name.strip().lower().replace("-", "_")
        if not equals or name not in known:
            raise InvalidError(f"'{part}' in '{text}': there are {', '.join(known)}, each with =VALUE")
        known[name] = value.strip()
    if known["mode"] not in _MODES:
        raise InvalidError(f"'{known['mode']}' in '{text}': the mode is ingress or host")
    target = _one(known["target"], text)
    published = _one(known["published"], text) if known["published"] not in ("", "0") else 0
    protocol, host_ip = _protocol(known["protocol"] or None), read_host_ip(known["host_ip"])
    return [Publication(target, published, protocol, host_ip, known["mode"] == "host", known["name"])]


def parse_number(text: str) -> int:
    """Return a port's number. InvalidError."""
    return _one(text, text)


def read_host_ip(text: str) -> str:
    """Return an address of the hosts, "" for all of them. InvalidError for what is no IPv4 address."""
    from ipaddress import AddressValueError, IPv4Address

    if text in ("", "0.0.0.0", "*"):
        return ""
    try:
        return str(IPv4Address(text))
    except AddressValueError:
        if ":" in text:
            raise InvalidError(f"'{text}': ports are published on IPv4 addresses alone") from None
        raise InvalidError(f"'{text}' is no address of a host: write it like 127.0.0.1, or leave it out") from None


def _protocol(text: str | None) -> str:
    if text is None:
        return "tcp"
    if text.lower() not in ("tcp", "udp"):
        raise InvalidError(f"there is no protocol '{text}' for ports: use tcp or udp")
    return text.lower()


def _one(text: str, whole: str) -> int:
    numbers = _numbers(text, whole)
    if len(numbers) != 1:
        raise InvalidError(f"'{whole}': a range of ports goes in the short form alone, such as 8000-8005:9000-9005")
    return numbers[0]


def _numbers(text: str, whole: str) -> list[int]:
    match = _RANGE.fullmatch(text)
    if match is None:
        raise InvalidError(f"'{whole}' is no port: {_FORMS}")
    first, last = int(match[1]), int(match[2] or match[1])
    if not 0 < first <= last <= 65535:
        raise InvalidError(f"'{whole}': ports are from 1 to 65535, and ranges go upwards")
    return list(range(first, last + 1))


def split_modes(ports: Iterable[Publication]) -> tuple[tuple[PortSpec, ...], tuple[HostPort, ...]]:
    """Return the ports of every node, and those of the nodes of tasks."""
    ports = list(ports)
    everywhere = tuple(PortSpec(p.name, p.protocol, p.target, p.published, p.host_ip) for p in ports if not p.host_mode)
    return everywhere, tuple(
        HostPort(p.protocol, p.published, p.target, p.host_ip, p.name) for p in ports if p.host_mode
    )


def publish(spec: "types.ServiceSpec", texts: Iterable[str]) -> None:
    """Add ports to a spec; one that is there already is not added again. InvalidError."""
    for text in texts:
        for port in parse_option(text):
            if any(_is(port, other) for other in _published(spec)):
                continue
            if port.host_mode:
                spec.task.host_ports.add(
                    protocol=port.protocol,
                    port=port.published,
                    target=port.target,
                    host_ip=port.host_ip,
                    name=port.name,
                )
            else:
                spec.endpoint.ports.add(
                    protocol=port.protocol,
                    published=port.published,
                    target=port.target,
                    host_ip=port.host_ip,
                    name=port.name,
                )


def unpublish(spec: "types.ServiceSpec", texts: Iterable[str]) -> None:
    """Take ports out of a spec: by the container's port, or with all that is said of them. InvalidError for others."""
    for text in texts:
        for wanted in parse_option(text):
            for ports in (spec.endpoint.ports, spec.task.host_ports):
                kept = [p for p in ports if not _is(wanted, p)]
                if len(kept) < len(ports):
                    del ports[:]
                    ports.extend(kept)  # type: ignore[arg-type]
                    break
            else:
                raise InvalidError(f"the service does not publish '{text}': it has {_shown(spec)}")


def _published(spec: "types.ServiceSpec") -> "Sequence[types.PortSpec | types.HostPort]":
    return [*spec.endpoint.ports, *spec.task.host_ports]


def _is(wanted: Publication, port: "types.PortSpec | types.HostPort") -> bool:
    """Whether a port of a spec is meant: what was left out fits anything."""
    return (
        (wanted.target, wanted.protocol) == (port.target, port.protocol)
        and wanted.published in (0, number_of(port))
        and wanted.host_ip in ("", port.host_ip)
    )


def _shown(spec: "types.ServiceSpec") -> str:
    return ", ".join(port_text(p) for p in _published(spec)) or "no ports"
