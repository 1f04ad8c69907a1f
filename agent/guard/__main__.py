"""Entry point: `python -I -m argosy.agent.guard --run-dir … --cgroup-parent …`."""

import sys

from argosy.agent.guard.guard import main

main(sys.argv[1:])
