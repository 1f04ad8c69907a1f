"""For all tests: how Hypothesis runs. Examples have no deadline: how long one takes is the machine's business."""

from hypothesis import settings

settings.register_profile("argosy", deadline=None)
settings.load_profile("argosy")
