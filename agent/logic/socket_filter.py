"""Programs by which the kernel drops what a socket is not to be woken for: classic BPF (linux/filter.h). Pure."""

from collections.abc import Sequence
from typing import Final, TypeAlias

Program: TypeAlias = list[tuple[int, int, int, int]]
"""Instructions: code, jump if true, jump if false, operand."""
Test: TypeAlias = tuple[int, int, int]
"""How much to load, from which offset, in network byte order; and the value that it is to have."""

WORD: Final = 0x20
HALF: Final = 0x28
BYTE: Final = 0x30
_JUMP_IF_EQUAL: Final = 0x15
_RETURN: Final = 0x06
_ALL_BYTES: Final = 0xFFFFFFFF

NOTHING: Final[Program] = [(_RETURN, 0, 0, 0)]


def taking(wanted: Sequence[Test] = (), unwanted: Sequence[Test] = ()) -> Program:
    """Return a program that takes what passes all tests of the wanted, but for what passes all of the unwanted."""
    take = 2 * (len(wanted) + len(unwanted))
    refuse = take + 1
    program: Program = []
    for number, (load, offset, value) in enumerate((*wanted, *unwanted)):
        following = 2 * number + 2
        failed = refuse if number < len(wanted) else take
        passed = refuse if unwanted and following == take else following
        program += [(load, 0, 0, offset), (_JUMP_IF_EQUAL, passed - following, failed - following, value)]
    return [*program, (_RETURN, 0, 0, _ALL_BYTES), *NOTHING]
