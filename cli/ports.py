"""Published ports as people write them, in Compose files and on the command line.

    80   8080:80   8080:80/udp   127.0.0.1:8080:80   3000-3005   8000-8005:9000-9005/tcp
    published=8080,target=80,protocol=udp,mode=host,host_ip=127.0.0.1

A port without a number in the host is given one by the cluster.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from argosy.cli.port_rows import number_of, port_text
from argosy.core.errors import InvalidError
from argosy.core.ports import FIRST_CHOSEN, LAST_CHOSEN, plain_host_ip
from argosy.core.service import HostPort, PortSpec
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


def publish(spec: types.ServiceSpec, texts: Iterable[str]) -> None:
    """Add ports to a spec; one that is there already is not added again. InvalidError.

    What cannot stand beside another port (the same number at the same address) is added: the controller refuses it.
    """
    there = {asked for port in _published(spec) for asked in _ways_to_ask(port)}
    for text in texts:
        for port in parse_option(text):
            if port in there:
                continue
            there |= {port, replace(port, name="")}
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


def unpublish(service: types.Service, texts: Iterable[str]) -> None:
    """Take ports out of a service's spec: by the container's port, or with all that is said of them.

    A number may be one that the cluster chose. InvalidError for a port that is not there; nothing is taken out then.
    """
    spec = service.spec
    left = [(port, _as_answered(port, service)) for port in _published(spec)]
    for text in texts:
        for wanted in parse_option(text):
            kept = [(port, answered) for port, answered in left if not _is(wanted, answered)]
            if len(kept) == len(left):
                has = ", ".join(port_text(p, _note(p)) for _, p in left) or "no ports"
                raise InvalidError(f"the service does not publish '{text}': it has {has}{_meant(wanted, left)}")
            left = kept
    everywhere = [port for port, _ in left if isinstance(port, types.PortSpec)]
    own = [port for port, _ in left if isinstance(port, types.HostPort)]
    del spec.endpoint.ports[:], spec.task.host_ports[:]
    spec.endpoint.ports.extend(everywhere)
    spec.task.host_ports.extend(own)


def _meant(wanted: Publication, left: "Sequence[tuple[object, types.PortSpec | types.HostPort]]") -> str:
    """Say how to name a port of the nodes, where one was given as if it were one of the tasks."""
    ports = [] if wanted.published else [port for _, port in left if number_of(port) == wanted.target]
    if not ports:
        return ""
    number = wanted.target
    return f"; for the nodes' port {number} write {number}:{ports[0].target}"


def _published(spec: types.ServiceSpec) -> Sequence[types.PortSpec | types.HostPort]:
    return [*spec.endpoint.ports, *spec.task.host_ports]


def _ways_to_ask(port: types.PortSpec | types.HostPort) -> Iterator[Publication]:
    """Yield what asks for a port of a spec: with its name or without one.

    A port of tasks that was asked for without a number stands there with the one that the cluster chose.
    """
    own, number = isinstance(port, types.HostPort), number_of(port)
    for published in (number, 0) if own and FIRST_CHOSEN <= number <= LAST_CHOSEN else (number,):
        for name in (port.name, ""):
            yield Publication(port.target, published, port.protocol, plain_host_ip(port.host_ip), own, name)


def _as_answered(port: types.PortSpec | types.HostPort, service: types.Service) -> types.PortSpec | types.HostPort:
    """Return a port of a service's spec with its number, where the cluster chose one: as `service ls` shows it."""
    if number_of(port):
        return port
    for has in service.ports:
        if has not in service.spec.endpoint.ports and port == _without_number(has):
            return has
    return port


def _without_number(port: types.PortSpec) -> types.PortSpec:
    return types.PortSpec(name=port.name, protocol=port.protocol, target=port.target, host_ip=port.host_ip)


def _is(wanted: Publication, port: types.PortSpec | types.HostPort) -> bool:
    """Whether a port is meant that is to go: what was left out fits anything."""
    return (
        (wanted.target, wanted.protocol) == (port.target, port.protocol)
        and wanted.published in (0, number_of(port))
        and wanted.host_ip in ("", port.host_ip)
        and wanted.name in ("", port.name)
        and (not wanted.host_mode or isinstance(port, types.HostPort))
    )


def _note(port: types.PortSpec | types.HostPort) -> str:
    return "host" if isinstance(port, types.HostPort) else ""
