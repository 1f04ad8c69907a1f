"""Ids of objects: 13 letters and digits, the first a letter, 66 bits of chance.

Short enough to type a beginning of, lower case so that they may stand in host, device and file names.
"""

import re
import secrets

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ALPHABET = _LETTERS + "0123456789"
ID_LENGTH = 13
ID_PATTERN = re.compile(rf"[a-z][a-z0-9]{{{ID_LENGTH - 1}}}")


def new_id() -> str:
    """Return a fresh id."""
    return secrets.choice(_LETTERS) + "".join(secrets.choice(_ALPHABET) for _ in range(ID_LENGTH - 1))
