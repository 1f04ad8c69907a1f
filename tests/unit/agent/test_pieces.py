"""Pieces by key and by kind, against a plain dict."""

from hypothesis import given
from hypothesis import strategies as st

from argosy.agent.logic.network_services import difference
from argosy.agent.logic.pieces import Pieces
from argosy.core.assignment import NamesAssignment, SecretAssignment, UnreadableAssignment, key_of

KINDS = (NamesAssignment, SecretAssignment, UnreadableAssignment)
KEYS = ("names/n/a", "names/n/b", "secret/a", "secret/b")


def piece(key, readable, number):
    """A piece of a key that can be read, or one that cannot."""
    if not readable:
        return UnreadableAssignment(key, f"problem {number}")
    kind, _, rest = key.partition("/")
    return (
        NamesAssignment("n", rest[2:], (str(number),)) if kind == "names" else SecretAssignment(rest, bytes([number]))
    )


pieces = st.builds(piece, st.sampled_from(KEYS), st.booleans(), st.integers(0, 9))


@given(st.lists(pieces), st.lists(st.tuples(st.lists(pieces, max_size=3), st.lists(st.sampled_from(KEYS), max_size=2))))
def test_what_is_there_after_changes_is_what_a_dict_has(first, changes):
    model = {key_of(one): one for one in first}
    found = Pieces(first)
    for put, remove in changes:
        before, had = found, dict(found)
        for key in remove:
            model.pop(key, None)
        model |= {key_of(one): one for one in put}
        found = found.changed({key_of(one): one for one in put}, remove)
        assert dict(before) == had
    assert dict(found) == model
    assert len(found) == len(model)
    for kind in KINDS:
        assert {key_of(one): one for one in found.of(kind)} == {k: p for k, p in model.items() if type(p) is kind}


@given(
    st.lists(pieces),
    st.lists(st.tuples(st.lists(pieces, max_size=3), st.lists(st.sampled_from(KEYS), max_size=2))),
    st.integers(0, 3),
)
def test_what_differs_between_two_sets_is_what_a_comparison_finds(first, changes, seen_each):
    """Also where those in between were never looked at, and are gone."""
    found = seen = Pieces(first)
    for number, (put, remove) in enumerate(changes):
        found = found.changed({key_of(one): one for one in put}, remove)
        if number % (seen_each + 1):
            continue
        for kind in KINDS:
            old, new = seen.of(kind), found.of(kind)
            gone, fresh = difference(old, new)
            assert set(gone) == set(old) - set(new)
            assert set(fresh) == set(new) - set(old)
            assert len(gone) + len(fresh) == len({*gone, *fresh})
        seen = found


def test_a_kind_in_which_nothing_changed_is_the_same_list():
    one = Pieces((piece("names/n/a", True, 1), piece("secret/a", True, 1)))
    names = one.of(NamesAssignment)
    other = one.changed({"secret/a": piece("secret/a", True, 2)})
    assert other.of(NamesAssignment) is names
    assert one.of(SecretAssignment) != other.of(SecretAssignment)


def test_a_kind_knows_how_it_differs_from_the_one_before():
    one = Pieces(piece(f"names/n/{number}", True, number % 10) for number in range(10))
    other = one.changed({"names/n/3": piece("names/n/3", True, 5)}, ["names/n/7"])
    (gone, fresh) = other.of(NamesAssignment).since(one.of(NamesAssignment))
    assert (gone, fresh) == ([one["names/n/7"], one["names/n/3"]], [other["names/n/3"]])
    assert one.of(NamesAssignment).since(other.of(NamesAssignment)) is None
