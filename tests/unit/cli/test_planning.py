"""How plans are printed."""

from argosy.cli.planning import LINES_SHOWN, plan_lines
from argosy.proto.argosy.v1 import control_pb2 as pb


def test_nothing():
    assert list(plan_lines(pb.GetPlanResponse(id="x"))) == ["nothing would change"]


def test_every_verb():
    plan = pb.GetPlanResponse(id="5f0c")
    update = plan.specs.add(verb=pb.PLAN_VERB_UPDATE, kind="service", name="web")
    update.fields.add(path="replicas", old="3", new="5")
    update.fields.add(path="task.container.user", old="", new="1000")
    create = plan.specs.add(verb=pb.PLAN_VERB_CREATE, kind="network", name="front")
    create.fields.add(path="name", new="front")
    plan.specs.add(verb=pb.PLAN_VERB_REMOVE, kind="service", name="old")
    plan.tasks.add(verb=pb.PLAN_VERB_CREATE, task="web.4", new_node="b")
    plan.tasks.add(verb=pb.PLAN_VERB_MOVE, task="web.1", old_node="a", new_node="b")
    plan.tasks.add(verb=pb.PLAN_VERB_REPLACE, task="web.2", old_node="a", new_node="a")
    plan.tasks.add(verb=pb.PLAN_VERB_STOP, task="old.1", old_node="a")
    plan.tasks.add(verb=pb.PLAN_VERB_WAIT, task="web.5", reason="no node has 4 CPUs free")
    assert list(plan_lines(plan)) == [
        "~ service web",
        "    replicas             3 -> 5",
        "    task.container.user  (not set) -> 1000",
        "+ network front",
        "    name  front",
        "- service old",
        "",
        "+ web.4: create on b",
        "~ web.1: move a -> b",
        "~ web.2: replace on a",
        "- old.1: stop on a",
        "! web.5: cannot be placed: no node has 4 CPUs free",
        "",
        "plan 5f0c: 3 specs and 5 tasks would change; --plan-id 5f0c does just this or nothing",
    ]


def test_of_many_tasks_the_first_are_shown():
    plan = pb.GetPlanResponse(id="1")
    for slot in range(LINES_SHOWN + 5):
        plan.tasks.add(verb=pb.PLAN_VERB_STOP, task=f"web.{slot}", old_node="a")
    assert "  … and 5 more tasks (--format json has them all)" in list(plan_lines(plan))
