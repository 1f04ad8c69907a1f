"""Signals by the names that people write for `stop_signal`: "SIGTERM", "term", "15", "SIGRTMIN+3"."""

import difflib
import re
from typing import Final

from argosy.core.errors import InvalidError

# Numbers of Linux on amd64 and arm64 (signal(7)). A table of our own: the CLI may run where numbers differ.
_IN_ORDER: Final = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT "
    "CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
)
SIGNALS: Final = {name: number for number, name in enumerate(_IN_ORDER.split(), start=1)} | {"IOT": 6, "POLL": 29}
_RTMIN, _RTMAX = 34, 64
"""As glibc and musl number them: the kernel's 32 and 33 belong to the C library."""
_REALTIME: Final = re.compile(r"RT(MIN|MAX)(?:([+-])(\d{1,2}))?")


def parse_signal(text: str) -> int:
    """Return the number of the signal that `text` names; InvalidError suggests the nearest one."""
    name = text.strip().upper().removeprefix("SIG")
    number = SIGNALS.get(name)
    if number is None and name.isascii() and name.isdigit() and len(name) <= len(str(_RTMAX)):
        number = int(name) if not text.strip().upper().startswith("SIG") else None
    realtime = _REALTIME.fullmatch(name)
    if realtime:
        offset = int(realtime[3] or 0) * (-1 if realtime[2] == "-" else 1)
        number = (_RTMIN if realtime[1] == "MIN" else _RTMAX) + offset
        number = number if _RTMIN <= number <= _RTMAX else None
    if number is None or not 1 <= number <= _RTMAX:
        near = difflib.get_close_matches(name, SIGNALS, 1, 0.6)
        hint = f"did you mean SIG{near[0]}?" if near else "use a name such as SIGTERM or a number from 1 to 64"
        raise InvalidError(f'there is no signal "{text}": {hint}')
    return number
