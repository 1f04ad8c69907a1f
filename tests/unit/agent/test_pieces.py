"""Pieces by key and by kind, against a plain dict."""

from hypothesis import given
from hypothesis import strategies as st

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


def test_a_kind_in_which_nothing_changed_is_the_same_list():
    one = Pieces((piece("names/n/a", True, 1), piece("secret/a", True, 1)))
    names = one.of(NamesAssignment)
    other = one.changed({"secret/a": piece("secret/a", True, 2)})
    assert other.of(NamesAssignment) is names
    assert one.of(SecretAssignment) != other.of(SecretAssignment)
