"""What may be given as a config or secret on the command line."""

import pytest

from argosy.cli.content import labels_of, read_content
from argosy.cli.errors import InvalidInputError


@pytest.mark.parametrize("data", [b"text\n", b"\xff\0", b""])
def test_a_file_is_taken_as_it_is(tmp_path, data):
    (tmp_path / "f").write_bytes(data)
    assert read_content(str(tmp_path / "f"), secret=False) == data


@pytest.mark.parametrize(
    ("size", "secret", "what"),
    [
        (2_000_000, False, "f: it has 2,000,000 bytes, and a config at most 1,024,000 (1000 KiB)"),
        (600_000, True, "f: it has 600,000 bytes, and a secret at most 512,000 (500 KiB)"),
        (0, True, "it is empty"),
    ],
)
def test_what_does_not_fit_is_refused_before_it_is_sent(tmp_path, size, secret, what):
    (tmp_path / "f").write_bytes(b"x" * size)
    with pytest.raises(InvalidInputError) as error:
        read_content(str(tmp_path / "f"), secret=secret)
    assert what in error.value.message


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InvalidInputError, match="nowhere: No such file"):
        read_content(str(tmp_path / "nowhere"), secret=False)
    with pytest.raises(InvalidInputError, match="Is a directory"):
        read_content(str(tmp_path), secret=False)


def test_labels():
    assert labels_of(["a=b", "c"]) == {"a": "b", "c": ""}
    with pytest.raises(InvalidInputError, match="has no name"):
        labels_of(["=b"])
