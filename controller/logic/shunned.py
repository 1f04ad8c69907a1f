"""Nodes on which a service keeps failing, or that rejected a task of it: the scheduler puts them last for that service.

A rejection is the host's own word that it cannot run the task (a port of its is taken, say): one is enough. Read from
the tasks that are kept as history, so a new leader knows as much as the old one did.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from argosy.core.task import Task
from argosy.core.task_state import TaskState, is_failure

WINDOW_S: Final = 300.0
"""How long a failure counts (Docker Swarm: 5 min)."""
FAILURES: Final = 3
"""So many within the window are too many. Swarm says 5, but restarts at a flat 5 s; our delay grows, so in the same
time there are fewer."""


def shunned_nodes(tasks: Iterable[Task], now: float) -> Mapping[str, frozenset[str]]:
    """Return, by service id, the ids of the nodes that its tasks had better avoid. `now`: seconds since 1970."""
    failures: Counter[tuple[str, str]] = Counter()
    for task in tasks:
        if task.node_id and is_failure(task.status.state) and task.status.at > now - WINDOW_S:
            failures[task.service_id, task.node_id] += FAILURES if task.status.state is TaskState.REJECTED else 1
    result: defaultdict[str, set[str]] = defaultdict(set)
    for (service_id, node_id), count in failures.items():
        if count >= FAILURES:
            result[service_id].add(node_id)
    return {service_id: frozenset(nodes) for service_id, nodes in result.items()}
