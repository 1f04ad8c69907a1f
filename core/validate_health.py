"""Validation of health checks: one way to ask, and one that can be asked."""

import re
from collections.abc import Mapping
from typing import Final

from argosy.core.problem import Problem, Problems, between, duration, said, when
from argosy.core.service import Healthcheck

_TESTS: Final = ("NONE", "CMD", "CMD-SHELL")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""What the name of an http field is made of (RFC 9110, section 5.6.2)."""
SHORTEST_CHECK_S: Final = 0.001
LONGEST_GRPC_SERVICE: Final = 100
HIGHEST_PORT: Final = 65535


def healthcheck_problems(check: Healthcheck, where: str) -> Problems:
    """Yield what is wrong with a liveness check; without a way to ask it takes the image's."""
    yield from said(f"{where}.test", _test(check.test))
    if check.test[:1] == ("NONE",):
        yield from when(
            bool(_ways(check)), where, "NONE switches the check off, and there is another way to ask: keep one"
        )
        return
    yield from _one_way(check, where)
    yield from _times(check, where)


def readiness_problems(check: Healthcheck, where: str) -> Problems:
    """Yield what is wrong with a readiness check."""
    if check.test[:1] == ("NONE",):
        yield Problem(f"{where}.test", "NONE asks nothing: leave the readiness check out")
        return
    if not check.test and not _ways(check):
        yield Problem(where, "it does not say how to ask the task: give one of test, http, tcp and grpc")
    yield from said(f"{where}.test", _test(check.test))
    yield from _one_way(check, where)
    yield from _times(check, where)


def asks_nothing(check: Healthcheck | None, image: Healthcheck | None) -> bool:
    """Whether a service says how often its liveness is asked, but not how, and its image has no check either.

    Docker accepts that, so it is no error to have it; but whoever writes it expects something of it.
    """
    if check is None or check.test or _ways(check):
        return False
    return image is None or not image.test or image.test[0] == "NONE"


def _ways(check: Healthcheck) -> list[str]:
    return [name for name in ("http", "tcp", "grpc") if getattr(check, name) is not None]


def _one_way(check: Healthcheck, where: str) -> Problems:
    ways = [*(["test"] if check.test else []), *_ways(check)]
    yield from when(len(ways) > 1, where, f"{' and '.join(ways)} are more than one way to ask: keep one")
    if check.http is not None:
        yield from between(f"{where}.http.port", check.http.port, 1, HIGHEST_PORT, "the port")
        yield from said(f"{where}.http.path", _path(check.http.path))
        yield from _headers(check.http.headers, f"{where}.http.headers")
    if check.tcp is not None:
        yield from between(f"{where}.tcp.port", check.tcp.port, 1, HIGHEST_PORT, "the port")
    if check.grpc is not None:
        yield from between(f"{where}.grpc.port", check.grpc.port, 1, HIGHEST_PORT, "the port")
        too_long = len(check.grpc.service.encode()) > LONGEST_GRPC_SERVICE
        yield from when(
            too_long, f"{where}.grpc.service", f"the service's name is longer than {LONGEST_GRPC_SERVICE} bytes"
        )


def _path(path: str) -> str | None:
    if path and not path.startswith("/"):
        return f'the path "{path}" has to begin with "/": write "/{path}"'
    if not path.isascii() or any(c.isspace() or not c.isprintable() for c in path):
        return "the path has a blank or a character that an http request cannot hold: write it %-encoded"
    return None


def _headers(headers: Mapping[str, str], where: str) -> Problems:
    for name, value in headers.items():
        yield from when(not _TOKEN.fullmatch(name), where, f'"{name}" is not the name of an http header')
        yield from when(
            not value.isprintable(), f"{where}[{name}]", "the value of a header is one line of printable characters"
        )


def _times(check: Healthcheck, where: str) -> Problems:
    yield from duration(f"{where}.interval", check.interval, "the interval", SHORTEST_CHECK_S)
    yield from duration(f"{where}.timeout", check.timeout, "the timeout", SHORTEST_CHECK_S)
    yield from duration(f"{where}.start_period", check.start_period, "the start period")
    yield from duration(f"{where}.start_interval", check.start_interval, "the start interval", SHORTEST_CHECK_S)
    yield from between(f"{where}.retries", check.retries, 1, 1000, "the number of retries")


def _test(test: tuple[str, ...]) -> str | None:
    if not test:
        return None
    kind, rest = test[0], test[1:]
    if any("\0" in word for word in test):
        return "a word of a command cannot hold a zero byte"
    if kind not in _TESTS:
        return f"a test begins with NONE, CMD or CMD-SHELL, not with {kind!r}: did you mean [CMD, {kind}, …]?"
    if kind == "NONE" and rest:
        return "after NONE nothing may follow: it switches the health check off"
    if kind == "CMD" and not (rest and rest[0]):
        return "after CMD the program and its arguments are missing: write [CMD, curl, -f, http://localhost/]"
    if kind == "CMD-SHELL" and (len(rest) != 1 or not rest[0].strip()):
        return "after CMD-SHELL exactly one line for the shell is needed: write [CMD-SHELL, curl -f http://localhost/]"
    return None
