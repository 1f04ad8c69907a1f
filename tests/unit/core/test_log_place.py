"""What is new of lines that are told again."""

from hypothesis import given
from hypothesis import strategies as st

from argosy.core.log_place import MARGIN_S, LogPlace

TIMES = st.lists(st.integers(0, 3), max_size=12).map(
    lambda gaps: [float(1000 + sum(gaps[: i + 1])) for i in range(len(gaps))]
)


@given(st.dictionaries(st.sampled_from(["a", "b"]), st.tuples(TIMES, TIMES)), st.lists(st.integers(0, 24), max_size=6))
def test_each_line_is_new_once_however_often_reading_breaks_off(written, breaks):
    lines = [
        (at, task, stderr, number)
        for task, streams in written.items()
        for stderr, times in enumerate(streams)
        for number, at in enumerate(times)
    ]
    lines.sort(key=lambda line: line[0])
    place, told = LogPlace(), []
    for read in (*breaks, len(lines)):
        since = place.since(written)
        for at, task, stderr, number in [line for line in lines if line[0] >= since][:read]:
            if place.is_new(task, bool(stderr), at):
                told.append((at, task, stderr, number))
        place.begin_again()
    assert sorted(told) == sorted(lines)


def test_what_has_to_be_read_again():
    place = LogPlace()
    assert not place.begin_again()
    assert place.since() == place.since(["a"]) == 0.0
    assert place.is_new("a", False, 1000.0)
    assert place.since() == place.since(["a"]) == 1000.0 - MARGIN_S
    assert place.since(["a", "b"]) == 0.0
    assert place.begin_again()
    assert not place.is_new("a", False, 1000.0)
    assert not place.begin_again()
