"""Published ports in a spec: everything that can be judged without a cluster."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from argosy.core import ports
from argosy.core.problem import Problem, Problems, between, when
from argosy.core.service import HostPort, PortSpec, ServiceSpec

OWN_PORTS: Final[Mapping[tuple[str, int], str]] = {("udp", 14789): "the overlay's VXLAN"}
MOST_PORTS: Final = 1000
"""Each is a socket, and some lines of rules, on every node."""


@dataclass(frozen=True, slots=True)
class _Taken:
    """A port of the host, with where in the spec it stands; `field` is that of its number."""

    where: str
    field: str
    target: int
    protocol: str
    number: int
    host_ip: str


def ports_problems(spec: ServiceSpec) -> Problems:
    """Yield what is wrong with the ports that a service publishes on every node or on those of its tasks."""
    everywhere, own = "endpoint.ports", "task.host_ports"
    yield from between(everywhere, len(spec.endpoint.ports), 0, MOST_PORTS, "the number of ports")
    yield from between(own, len(spec.task.host_ports), 0, MOST_PORTS, "the number of ports")
    taken = [
        *(_Taken(f"{everywhere}[{i}]", "published", *_place(p)) for i, p in enumerate(spec.endpoint.ports)),
        *(_Taken(f"{own}[{i}]", "port", *_place(p)) for i, p in enumerate(spec.task.host_ports)),
    ]
    for i, port in enumerate(spec.endpoint.ports):
        yield from between(f"{everywhere}[{i}].target", port.target, 1, 65535, "the port in the container")
    for i, host_port in enumerate(spec.task.host_ports):
        where = f"{own}[{i}]"
        yield from between(f"{where}.target", host_port.target, 0, 65535, "the port in the container")
        if not host_port.target:  # kept for the task, which then has to know its number
            yield from between(f"{where}.port", host_port.port, 1, 65535, "the port")
    for one in taken:
        yield from _one(one)
    yield from _twice(taken)


def _place(port: PortSpec | HostPort) -> tuple[int, str, int, str]:
    return port.target, port.protocol, port.published if isinstance(port, PortSpec) else port.port, port.host_ip


def _one(port: _Taken) -> Problems:
    yield from when(
        port.protocol not in ports.PROTOCOLS,
        f"{port.where}.protocol",
        f'there is no protocol "{port.protocol}" for ports: use tcp or udp',
    )
    yield from between(f"{port.where}.{port.field}", port.number, 0, 65535, "the port")
    owner = OWN_PORTS.get((port.protocol, port.number))
    number = f"{port.number}/{port.protocol}"
    yield from when(owner is not None, f"{port.where}.{port.field}", f"port {number} is {owner}'s: use another")
    if port.host_ip:
        yield from _host_ip(f"{port.where}.host_ip", port.host_ip)


def _host_ip(where: str, host_ip: str) -> Problems:
    try:
        IPv4Address(host_ip)
    except AddressValueError:
        try:
            IPv6Address(host_ip.strip("[]"))
        except AddressValueError:
            yield Problem(where, f'"{host_ip}" is no address of a host: write it like 127.0.0.1, or leave it out')
        else:
            yield Problem(where, f"{host_ip}: ports are published on IPv4 addresses alone: give one, or leave it out")


def _twice(taken: Iterable[_Taken]) -> Problems:
    numbered: dict[tuple[str, int], list[_Taken]] = {}
    others: set[tuple[str, int, str]] = set()
    for port in taken:
        if not port.number:
            key = (port.protocol, port.target, port.host_ip)
            what = f"port {port.target}/{port.protocol} of the container is published without a number more than once"
            yield from when(key in others, port.where, f"{what}: keep one")
            others.add(key)
            continue
        same = numbered.setdefault((port.protocol, port.number), [])
        yield from when(
            any(ports.same_place(port.host_ip, other.host_ip) for other in same),
            f"{port.where}.{port.field}",
            f"port {port.number}/{port.protocol} is given more than once: keep one",
        )
        same.append(port)
