"""For all tests: how Hypothesis runs. Examples have no deadline: how long one takes is the machine's business."""

import os

from hypothesis import settings

# The same examples every time, so that a failure is the change's and not the day's; `make test-long` searches further.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("searching", deadline=None)
settings.load_profile("searching" if os.environ.get("ARGOSY_SEARCH") else "repeatable")
