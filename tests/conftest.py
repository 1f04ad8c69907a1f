"""For all tests: how Hypothesis runs, and what runs beside what.

Examples have no deadline: how long one takes is the machine's business.
"""

import os
import signal

import pytest
from hypothesis import settings

# A shell starts what it runs in the background deaf to Ctrl-C, and so would be all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples every time, so that a failure is the change's and not the day's; `make test-long` searches further.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("searching", deadline=None)
settings.load_profile("searching" if os.environ.get("ARGOSY_SEARCH") else "repeatable")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `-n 2` one process runs the end-to-end tests, one after the other, and the other one all else, by file.

    The former mostly wait (for beats that do not come, for tasks that stop) and their clusters want the processors
    for themselves when they do not; the latter mostly compute.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Lanes(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return "tests/e2e" if nodeid.startswith("tests/e2e/") else nodeid.partition("::")[0]

    return Lanes(config, log)
