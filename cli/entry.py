"""Where the installed `argosy` begins: Ctrl-C while its modules are still imported ends it without a traceback."""

import signal
from typing import NoReturn


def main() -> NoReturn:
    """Import the command line and run it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from argosy.cli.interrupt import handle
    from argosy.cli.main import main as run

    signal.signal(signal.SIGINT, handle)
    run()
