"""Changes under depends_on: what is refused, what a commit compares, and which services restart."""

from dataclasses import replace

import pytest

from argosy.controller.changes import dependencies
from argosy.controller.store import Change, Check, Put, Snapshot
from argosy.core.errors import InvalidError
from argosy.core.meta import Meta
from argosy.core.service import ContainerSpec, Dependency, Service, ServiceSpec, TaskSpec


def spec(name: str, *needs: str | Dependency, image: str = "v1") -> ServiceSpec:
    depends = tuple(n if isinstance(n, Dependency) else Dependency(n) for n in needs)
    return ServiceSpec(name=name, task=TaskSpec(container=ContainerSpec(image=image)), depends_on=depends)


def cluster(*specs: ServiceSpec) -> Snapshot:
    services = [Service(Meta(f"id-{s.name}", "default", version=7), s, revision=1) for s in specs]
    return Snapshot().apply(7, [Change(Service, s.meta.id, None, s) for s in services])


RESTART = Dependency("db", restart=True)


@pytest.mark.parametrize(
    ("have", "changed", "says"),
    [
        ([], [spec("web", "db")], "web depends on db, and there is no such service"),
        ([spec("db", "web"), spec("web")], [spec("web", "db")], "db -> web -> db"),
        ([], [spec("a", "b"), spec("b", "c"), spec("c", "a")], "a -> b -> c -> a"),
    ],
)
def test_refused(have: list[ServiceSpec], changed: list[ServiceSpec], says: str) -> None:
    with pytest.raises(InvalidError, match=says):
        dependencies.check(cluster(*have), "default", changed)


def test_what_leaves_in_the_same_request_is_not_there() -> None:
    with pytest.raises(InvalidError, match="no such service"):
        dependencies.check(cluster(spec("db")), "default", [spec("web", "db")], leaving=["db"])


@pytest.mark.parametrize(
    ("have", "changed"),
    [
        ([], [spec("web", Dependency("db", optional=True))]),
        ([], [spec("web", "db"), spec("db")]),
        ([spec("web", "db")], [spec("web", "db", image="v2")]),  # db was removed since: that stops no update
    ],
)
def test_accepted(have: list[ServiceSpec], changed: list[ServiceSpec]) -> None:
    assert dependencies.check(cluster(*have), "default", changed) == []


def test_all_that_is_waited_for_is_compared_so_that_no_two_requests_close_a_cycle() -> None:
    have = cluster(spec("db", "disk"), spec("disk"), spec("other"))
    compared = dependencies.check(have, "default", [spec("web", "db")])
    assert [(op.id, op.expect) for op in compared if isinstance(op, Check)] == [("id-db", 7), ("id-disk", 7)]


def test_a_changed_dependency_restarts_those_that_say_so_and_so_on() -> None:
    chain = spec("front", Dependency("web", restart=True))
    have = cluster(spec("db"), spec("web", RESTART), spec("api", "db"), chain)
    ops = dependencies.restarts(have, "default", spec("db", image="v2"), now=9.0)
    services = {op.obj.spec.name: op.obj for op in ops if isinstance(op, Put) and isinstance(op.obj, Service)}
    assert {name: (s.spec.task.force_update, s.revision) for name, s in services.items()} == {
        "web": (1, 2),
        "front": (1, 2),
    }


def test_what_changes_anyway_restarts_once() -> None:
    have = cluster(spec("db"), spec("web", RESTART))
    changed = [spec("db", image="v2"), spec("web", RESTART, image="v2")]
    assert dependencies.with_restarts(have, "default", changed) == (changed, [])


def test_only_a_change_of_what_tasks_run_counts() -> None:
    have = cluster(spec("db"), spec("web", RESTART))
    assert dependencies.with_restarts(have, "default", [replace(spec("db"), replicas=3)])[1] == []
