"""Ids of objects: 13 letters and digits, the first a letter, 66 bits of chance.

Short enough to type a beginning of, lower case so that they may stand in host, device and file names.
"""

import hashlib
import re
import secrets

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ALPHABET = _LETTERS + "0123456789"
ID_LENGTH = 13
ID_PATTERN = re.compile(rf"[a-z][a-z0-9]{{{ID_LENGTH - 1}}}")


def successor_id(task_id: str) -> str:
    """Return the id of the task that follows one without a controller's doing.

    It is as good as issued ahead: whoever asks gets the same, so that an agent that is killed between deciding on a
    restart and noting it down does not restart twice.
    """
    return _spelled(int.from_bytes(hashlib.blake2s(task_id.encode(), person=b"argosy-s").digest()))


def _spelled(number: int) -> str:
    number, letter = divmod(number, len(_LETTERS))
    text = _LETTERS[letter]
    for _ in range(ID_LENGTH - 1):
        number, sign = divmod(number, len(_ALPHABET))
        text += _ALPHABET[sign]
    return text


def new_id() -> str:
    """Return a fresh id."""
    return _spelled(secrets.randbits(128))  # so many more bits than there are ids that all are as likely
