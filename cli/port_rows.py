"""Published ports as tables show them. Works on protobuf messages as they come."""

from collections.abc import Iterable

from argosy.proto.argosy.v1 import types_pb2 as types


def number_of(port: types.PortSpec | types.HostPort) -> int:
    """Return the port of the hosts; 0 while none is chosen."""
    return port.published if isinstance(port, types.PortSpec) else port.port


def port_text(port: types.PortSpec | types.HostPort, note: str = "") -> str:
    """Return a port as tables show it: "*:8080->80/tcp", "127.0.0.1:53->53/udp (host)"."""
    number = str(number_of(port) or "?")
    return f"{port.host_ip or '*'}:{number}->{port.target}/{port.protocol}{f' ({note})' if note else ''}"


def port_texts(service: types.Service) -> list[str]:
    """Return the ports of a service as tables show them: those that it has, those of tasks, and those that it lacks."""
    has = [port_text(port) for port in service.ports]
    lacks = max(0, len(service.spec.endpoint.ports) - len(service.ports))
    own = [port_text(port, "host") for port in service.spec.task.host_ports if port.target]
    return [*has, *own, *([f"({lacks} not open)"] if lacks else [])]


def nodes_port_problems(nodes: Iterable[tuple[str, types.Node]]) -> dict[str, list[str]]:
    """Return by service what stands in the way of its ports, and on which nodes, given with their names."""
    found: dict[str, dict[str, set[str]]] = {}
    for name, node in nodes:
        for problem in node.port_problems:
            found.setdefault(problem.service_id, {}).setdefault(problem.reason, set()).add(name)
    return {
        service: [f"{reason} ({', '.join(sorted(names))})" for reason, names in sorted(reasons.items())]
        for service, reasons in found.items()
    }
