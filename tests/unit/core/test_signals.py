"""Names of signals; the numbers are those of this kernel's C library."""

import signal

import pytest

from argosy.core.errors import InvalidError
from argosy.core.signals import SIGNALS, parse_signal


def test_numbers_are_the_kernels():
    theirs = {s.name.removeprefix("SIG"): s.value for s in signal.Signals if not s.name.startswith("SIGRT")}
    theirs.pop("CLD", None)
    assert {k: v for k, v in SIGNALS.items() if k in theirs} == theirs


@pytest.mark.parametrize(
    ("text", "number"),
    [("SIGTERM", 15), ("term", 15), ("15", 15), ("SIGRTMIN", 34), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), (" int ", 2)],
)
def test_signals_are_read(text, number):
    assert parse_signal(text) == number


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("SIGTREM", "did you mean SIGTERM"),
        ("0", "1 to 64"),
        ("65", "1 to 64"),
        ("SIG15", ""),
        ("RTMIN+31", ""),
        ("", ""),
    ],
)
def test_what_is_no_signal_is_refused(text, says):
    with pytest.raises(InvalidError, match=f"there is no signal.*{says}"):
        parse_signal(text)
