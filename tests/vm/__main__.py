"""`python -m tests.vm [PYTEST ARGUMENT...]`: run the kernel tests in the virtual machine (see `machine.py`).

Without arguments that name tests: the runtime's, the overlay's, and what `tests/vm/inside` asks of the machine itself.
Options of our own come first: `--timeout SECONDS` (default 3600), `--shell COMMAND` to run that instead of pytest.
"""

import argparse
import signal
import sys
from pathlib import Path

from tests.vm import machine

SUITE = ("tests/vm/inside", "tests/kernel/runtime", "tests/kernel/network")


def main() -> int:
    """Run and return the exit status: the guest's, 124 for a machine that ended without one, 2 if none could start."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.vm", description="Run the kernel tests in a virtual machine."
    )
    parser.add_argument("--timeout", type=float, default=3600, metavar="SECONDS")
    parser.add_argument("--shell", metavar="COMMAND", help="run this shell command instead of pytest")
    own, pytest_arguments = parser.parse_known_args()
    for number in (signal.SIGTERM, signal.SIGINT):  # so that the machine ends with us
        signal.signal(number, lambda ended_by, _: sys.exit(128 + ended_by))
    named = any(Path(argument.partition("::")[0]).exists() for argument in pytest_arguments)
    arguments = (*pytest_arguments, *(() if named else SUITE))
    command = ["bash", "-c", own.shell] if own.shell else machine.pytest_command(*arguments)
    try:
        outcome = machine.run(command, timeout_s=own.timeout, echo=True)
    except machine.VmUnavailable as error:
        print(f"test-vm: {error}", file=sys.stderr)
        return 2
    if outcome.exit_code is None:
        print(outcome.console[-8000:], file=sys.stderr)
        print(f"test-vm: the machine ended without a result after {outcome.seconds:.0f} s", file=sys.stderr)
        return 124
    return outcome.exit_code


if __name__ == "__main__":
    sys.exit(main())
