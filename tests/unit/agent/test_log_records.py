"""What records say, and which are the last lines."""

from hypothesis import given
from hypothesis import strategies as st

from argosy.agent.launcher.logformat import encode
from argosy.agent.logs.records import Output, Tail, last_lines, parse

WRITTEN = st.lists(st.tuples(st.booleans(), st.text("ab\n", min_size=1, max_size=8)), max_size=30)
"""Pieces that a program wrote, to stderr or not."""


def outputs_of(written):
    return [Output(float(at), stderr, text.encode()) for at, (stderr, text) in enumerate(written)]


def test_records_of_one_time_are_one_output():
    first, second = "2026-11-21T00:00:01.123456789Z stdout ", "2026-11-21T00:00:02.000000000Z stderr "
    text = f"{first}F one\n{first}F \n{first}F {first}F two\n{first}P thr\n"
    text += f"{second}P x\n{second}P y\nnonsense\n\n{second}F z\n"
    one, rest, begun, end = parse(text.encode())
    assert (one.data, one.stderr, round(one.at % 60, 6)) == (f"one\n\n{first}F two\n".encode(), False, 1.123456)
    assert (rest.data, begun.data, begun.stderr, end.data) == (b"thr", b"xy", True, b"z\n")


@given(st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=40), st.integers(0, 2)), max_size=10))
def test_what_was_written_is_what_is_read(written):
    text = b"".join(encode(data, b"stderr" if stderr else b"stdout", at) for stderr, data, at in written)
    for stream in (False, True):
        expected = b"".join(data for stderr, data, _ in written if stderr == stream)
        assert b"".join(output.data for output in parse(text) if output.stderr == stream) == expected


@given(WRITTEN, st.integers(0, 12))
def test_the_last_lines_are_those_that_began_last(written, count):
    line, begun, kept = {False: 0, True: 0}, 0, []
    for stderr, text in written:
        for letter in text:
            if not line[stderr]:
                line[stderr] = begun = begun + 1
            kept.append((line[stderr], stderr, letter))
            if letter == "\n":
                line[stderr] = 0
    expected = [(stderr, letter) for number, stderr, letter in kept if number > begun - count]
    found = last_lines(outputs_of(written), count)
    assert [(output.stderr, chr(letter)) for output in found for letter in output.data] == expected


@given(WRITTEN, st.integers(0, 12))
def test_a_tail_forgets_what_is_not_in_it(written, count):
    tail, lines = Tail(count), [(stderr, f"{text}\n") for stderr, text in written]
    for output in outputs_of(lines):
        tail.extend([output])
        assert sum(kept.data.count(b"\n") for kept in tail._kept) <= count + 2 + output.data.count(b"\n") + 9
    assert tail.lines() == last_lines(outputs_of(lines), count)
