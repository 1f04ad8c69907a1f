"""Durations and sizes: read as Compose writes them, written so that they read back the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.core.errors import InvalidError
from argosy.core.units import (
    format_bytes,
    format_cpus,
    format_duration,
    human_bytes,
    nano_cpus,
    parse_bytes,
    parse_cpus,
    parse_duration,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1m30s", 90),
        ("2.5s", 2.5),
        ("10s", 10),
        ("2h32m", 9120),
        ("5h34m56s", 20096),
        ("500ms", 0.5),
        ("20us", 20e-6),
        ("20µs", 20e-6),
        ("1d", 86400),
        ("0", 0),
        ("0s", 0),
        (" 3s ", 3),
        (".5s", 0.5),
    ],
)
def test_durations_are_read(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("90", 'did you mean "90s"'),
        ("-1s", "negative"),
        ("10x", "units: d, h, m, s"),
        ("", "not a duration"),
        ("1s 2s", "not a duration"),
        ("s", "not a duration"),
        ("1s1", "not a duration"),
        ("1.2.3s", "not a duration"),
    ],
)
def test_a_bad_duration_says_what_would_be_right(text, says):
    with pytest.raises(InvalidError, match=says):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (90, "1m30s"), (0.25, "250ms"), (1.5, "1.5s"), (3600, "1h"), (90000, "25h"), (61.25, "1m1.25s")],
)
def test_durations_are_written(seconds, text):
    assert format_duration(seconds) == text


@given(st.integers(0, 10**13))
def test_a_written_duration_reads_back(micros):
    assert parse_duration(format_duration(micros / 1e6)) == pytest.approx(micros / 1e6, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("512m", 512 << 20),
        ("512M", 512 << 20),
        ("2gb", 2 << 30),
        ("1.5g", 3 << 29),
        ("64KiB", 65536),
        ("100b", 100),
        ("100", 100),
        ("1 t", 1 << 40),
        ("0", 0),
    ],
)
def test_sizes_are_read(text, amount):
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "m", "-1m", "12q", "ib", "1e3", "1.5.2g", "1mm", "9999999p"])
def test_bad_sizes_are_refused(text):
    with pytest.raises(InvalidError, match="bytes"):
        parse_bytes(text)


@given(st.integers(0, (1 << 63) - 1))
def test_a_written_size_reads_back_exactly(amount):
    assert parse_bytes(format_bytes(amount)) == amount


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (512 << 20, "512 MiB"), (3 << 29, "1.5 GiB"), (5 << 40, "5 TiB")],
)
def test_sizes_are_written_for_people(amount, text):
    assert human_bytes(amount) == text


def test_cpus():
    assert parse_cpus("0.5") == 0.5
    assert (format_cpus(4.0), format_cpus(1.5), format_cpus(0.125), format_cpus(0)) == ("4", "1.5", "0.125", "0")
    assert sum(nano_cpus(0.1) for _ in range(10)) == nano_cpus(1.0)
    for text in ("many", "nan", "inf", "-1", ""):
        with pytest.raises(InvalidError, match="number of CPUs"):
            parse_cpus(text)
