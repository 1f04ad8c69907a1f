"""Envelopes: what opens them, what does not, and which key files are taken."""

import base64

import pytest

from argosy.controller.secrets.keyring import Keyring, binding_of, load
from argosy.core.errors import InvalidError, PreconditionError

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
HERE = binding_of("default", "db", 1)
SECRET = b"a secret"


def test_an_envelope_opens_with_its_key_and_binding_and_shows_nothing():
    sealed = Keyring((OLD,)).seal(SECRET, HERE)
    assert Keyring((NEW, OLD)).open(sealed, HERE) == SECRET
    assert SECRET not in sealed.content + sealed.wrapped_key
    assert OLD.hex() not in repr(Keyring((OLD,)))


def test_the_first_key_seals_and_all_open():
    both = Keyring((NEW, OLD))
    sealed = both.seal(SECRET, HERE)
    assert Keyring((NEW,)).open(sealed, HERE) == SECRET
    with pytest.raises(PreconditionError, match="lacks the key"):
        Keyring((OLD,)).open(sealed, HERE)


@pytest.mark.parametrize("other", [("default", "db", 2), ("default", "web", 1), ("team", "db", 1)])
def test_an_envelope_does_not_open_as_another_secret(other):
    keys = Keyring((OLD,))
    with pytest.raises(PreconditionError, match="damaged or exchanged"):
        keys.open(keys.seal(SECRET, HERE), binding_of(*other))


def test_two_envelopes_of_the_same_content_differ():
    keys = Keyring((OLD,))
    assert keys.seal(SECRET, HERE) != keys.seal(SECRET, HERE)


def test_without_a_key_nothing_is_sealed():
    assert not Keyring().can_seal
    with pytest.raises(PreconditionError, match="--secrets-key"):
        Keyring().seal(SECRET, HERE)


def _file(tmp_path, text, mode=0o600):
    path = tmp_path / "keys"
    path.write_text(text)
    path.chmod(mode)
    return path


def _line(key):
    return base64.b64encode(key).decode()


def test_a_file_may_hold_several_keys_and_comments(tmp_path):
    path = _file(tmp_path, f"# made in May\n\n{_line(NEW)}\n{_line(OLD)}  # until all is created anew\n")
    keys = load(path)
    assert keys.open(Keyring((OLD,)).seal(SECRET, HERE), HERE) == SECRET
    assert Keyring((NEW,)).open(keys.seal(SECRET, HERE), HERE) == SECRET


@pytest.mark.parametrize(
    ("text", "mode", "what"),
    [
        (_line(OLD), 0o640, "chmod 600"),
        ("", 0o600, "no key in it"),
        ("# nothing\n", 0o600, "no key in it"),
        (_line(OLD) + "\n" + _line(OLD[:16]), 0o600, "line 2 is not 32 bytes"),
        ("secret!", 0o600, "line 1 is not 32 bytes"),
    ],
)
def test_other_files_are_refused_without_showing_what_they_hold(tmp_path, text, mode, what):
    with pytest.raises(InvalidError, match=what) as error:
        load(_file(tmp_path, text, mode))
    assert not text.strip("# \n") or text not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InvalidError, match="No such file"):
        load(tmp_path / "nowhere")
