"""What `depends_on` means for a change: what may not be accepted, and which other services a change restarts."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from argosy.controller.changes.services import updated
from argosy.controller.store import Op, Snapshot
from argosy.controller.store import check as unchanged
from argosy.core.dependencies import find_cycle, spell
from argosy.core.errors import InvalidError, about
from argosy.core.service import Service, ServiceSpec


def check(snap: Snapshot, project: str, specs: Sequence[ServiceSpec], leaving: Collection[str] = ()) -> list[Op]:
    """Refuse dependencies on what is not there, and services that wait for each other; InvalidError.

    `specs` are created or changed together, `leaving` the names of services that the same request removes. Returns what
    the commit has to compare, so that two requests at once cannot close a cycle: all that the changed ones wait for.
    """
    have = {s.spec.name: s for s in _alive(snap, project) if s.spec.name not in leaving}
    after = {**{name: s.spec for name, s in have.items()}, **{spec.name: spec for spec in specs}}
    changed = [spec for spec in specs if spec.name not in have or spec.depends_on != have[spec.name].spec.depends_on]
    for spec in changed:
        known = have[spec.name].spec.depends_on if spec.name in have else ()
        for i, wanted in enumerate(spec.depends_on):
            with about("service", spec.name, f"depends_on[{i}]"):
                if not wanted.optional and wanted.service not in after and wanted not in known:
                    raise InvalidError(
                        f"service {spec.name} depends on {wanted.service}, and there is no such service: create it "
                        "first, or make the dependency optional (required: false)"
                    )
    if not changed:
        return []
    edges = {name: [d.service for d in spec.depends_on] for name, spec in after.items()}
    cycle = find_cycle(edges)
    if cycle:
        raise InvalidError(f"services wait for each other, {spell(cycle)}: take one of these dependencies out")
    own = {spec.name for spec in specs}
    reached = _reachable(edges, [spec.name for spec in changed])
    return [unchanged(have[name]) for name in sorted(reached - own) if name in have]


def with_restarts(
    snap: Snapshot, project: str, specs: Sequence[ServiceSpec]
) -> tuple[list[ServiceSpec], list[Service]]:
    """Return the specs, and other services, with those told to restart that want it when a dependency is changed.

    A service that says `restart: true` of a dependency runs anew, as by `--force`, when what the tasks of that one run
    is changed; and so on along the chain.
    """
    have = {s.spec.name: s for s in _alive(snap, project)}
    after = {spec.name: spec for spec in specs}
    others = {name: s.spec for name, s in have.items() if name not in after}
    changed = {name for name, spec in after.items() if name in have and spec.task != have[name].spec.task}
    ahead = list(changed)
    while ahead:
        cause = ahead.pop()
        for known in (after, others):
            for name, spec in known.items():
                follows = any(d.restart and d.service == cause for d in spec.depends_on)
                if follows and name in have and name not in changed:
                    known[name] = replace(spec, task=replace(spec.task, force_update=spec.task.force_update + 1))
                    changed.add(name)
                    ahead.append(name)
    moved = [replace(have[name], spec=spec) for name, spec in others.items() if name in changed]
    return [after[spec.name] for spec in specs], moved


def restarts(snap: Snapshot, project: str, spec: ServiceSpec, now: float) -> list[Op]:
    """Return the operations that restart the services which want it when one gets another spec."""
    _, moved = with_restarts(snap, project, [spec])
    return restart_all(snap, moved, now)


def restart_all(snap: Snapshot, moved: Sequence[Service], now: float) -> list[Op]:
    """Return the operations that give services the specs which they hold."""
    ops: list[Op] = []
    for service in moved:
        present = snap.get(Service, service.meta.id)
        if present is not None:
            ops += updated(snap, present, service.spec, now)[0]
    return ops


def _alive(snap: Snapshot, project: str) -> list[Service]:
    return [s for s in snap.all(Service, project=project) if not s.removing]


def _reachable(edges: Mapping[str, Sequence[str]], names: Sequence[str]) -> set[str]:
    found: set[str] = set()
    ahead = list(names)
    while ahead:
        for name in edges.get(ahead.pop(), ()):
            if name not in found:
                found.add(name)
                ahead.append(name)
    return found
