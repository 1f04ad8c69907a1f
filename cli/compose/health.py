"""Health of a service: `healthcheck`, and below `x-argosy` `liveness` and `readiness`, which may also ask by network.

`liveness` is `healthcheck` with more ways to ask, so a service has one of the two.
"""

from typing import Final

from argosy.cli.compose.cursor import Cursor
from argosy.cli.compose.extension import own
from argosy.core.service import GrpcProbe, Healthcheck, HttpProbe, TcpProbe

_DEFAULT: Final = Healthcheck()
_HIGHEST_PORT: Final = 65535
_WAYS: Final = ("http", "tcp", "grpc", "test")
_TIMES: Final = ("interval", "timeout", "retries", "start_period", "start_interval")


def liveness(service: Cursor) -> Healthcheck | None:
    """Return the check that decides over a restart; None where the image's counts."""
    standard, ours = service.get("healthcheck"), own(service, "liveness")
    if standard is not None and ours is not None:
        ours.problem("'healthcheck' and 'liveness' ask the same", "keep one of them")
        return None
    if ours is not None:
        return _probe(ours)
    return _healthcheck(standard) if standard is not None else None


def readiness(service: Cursor) -> Healthcheck | None:
    """Return the check that decides whether a task gets requests."""
    at = own(service, "readiness")
    return _probe(at) if at is not None else None


def _healthcheck(at: Cursor) -> Healthcheck | None:
    if not at.mapping():
        return None
    disable = at.get("disable")
    if disable is not None and disable.boolean():
        for key in (*_WAYS, *_TIMES):
            if (other := at.get(key)) is not None:
                other.notice("the check is disabled: it has no effect")
        return Healthcheck(test=("NONE",))
    retries = at.get("retries")
    return Healthcheck(
        test=_test(at.get("test")),
        interval=_duration(at, "interval", _DEFAULT.interval),
        timeout=_duration(at, "timeout", _DEFAULT.timeout),
        retries=(retries.integer(least=1) or 1) if retries is not None else _DEFAULT.retries,
        start_period=_duration(at, "start_period", _DEFAULT.start_period),
        start_interval=_duration(at, "start_interval", _DEFAULT.start_interval),
        http=_http(at.get("http")),
        tcp=_tcp(at.get("tcp")),
        grpc=_grpc(at.get("grpc")),
    )


def _probe(at: Cursor) -> Healthcheck | None:
    given = [way for way in _WAYS if at.get(way) is not None] if at.mapping() else ["nothing can be said of it"]
    if len(given) > 1:
        at.problem(f"{' and '.join(given)} are more than one way to ask", "keep one of them")
    elif not given:
        at.problem("it does not say how to ask the task", f"add one of {', '.join(_WAYS)}: 'tcp: {{port: 8080}}'")
    return _healthcheck(at)


def _http(at: Cursor | None) -> HttpProbe | None:
    if at is None or not at.mapping():
        return None
    path, headers = at.get("path"), at.get("headers")
    return HttpProbe(
        _port(at),
        (path.text() or "") if path is not None else "",
        headers.text_map() if headers is not None else {},
    )


def _tcp(at: Cursor | None) -> TcpProbe | None:
    return TcpProbe(_port(at)) if at is not None and at.mapping() else None


def _grpc(at: Cursor | None) -> GrpcProbe | None:
    if at is None or not at.mapping():
        return None
    service = at.get("service")
    return GrpcProbe(_port(at), (service.text() or "") if service is not None else "")


def _port(at: Cursor) -> int:
    """Return `port`; 1 after a problem was reported, so that it is reported once."""
    found = at.get("port")
    if found is None:
        at.problem("the port is missing", "add 'port: 8080', the one that the task listens on")
        return 1
    return found.integer(least=1, most=_HIGHEST_PORT) or 1


def _duration(at: Cursor, key: str, default: float) -> float:
    found = at.get(key)
    value = found.duration() if found is not None else None
    return default if value is None else value


def _test(at: Cursor | None) -> tuple[str, ...]:
    if at is None:
        return ()
    if at.is_text:
        return ("CMD-SHELL", at.text() or "")
    return at.texts()
