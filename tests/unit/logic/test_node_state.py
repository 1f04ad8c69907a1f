"""What silence means: agent and host apart, grace after a failover, the brake on mass loss, periods by size."""

from dataclasses import dataclass, field, replace

import pytest

from argosy.controller.logic.actions import SetNodeStatus
from argosy.controller.logic.node_state import Heard, NodeTiming, heartbeat_period, plan_nodes, timing_for
from argosy.core.meta import Meta
from argosy.core.node import Node, NodeState, NodeStatus

UNKNOWN, READY, AGENT_LOST, DOWN = NodeState.UNKNOWN, NodeState.READY, NodeState.AGENT_LOST, NodeState.DOWN
WALL = 1_700_000_000.0


@dataclass
class Ear:
    """A leader that listens: applies each plan and checks that a second one at the same time is empty."""

    count: int
    state: NodeState = READY
    now: float = 0.0
    listening_since: float = -1000.0
    nodes: dict[str, Node] = field(default_factory=dict)
    heard: dict[str, Heard] = field(default_factory=dict)
    wake_at: float | None = None

    def __post_init__(self) -> None:
        for n in range(1, self.count + 1):
            self.nodes[f"n{n}"] = Node(Meta(f"n{n}"), status=NodeStatus(self.state, since=WALL))

    @property
    def timing(self) -> NodeTiming:
        return timing_for(self.count)

    def hear(self, *names: str, agent: bool = True, host: bool = True) -> "Ear":
        for name in names:
            old = self.heard.get(name, Heard())
            self.heard[name] = Heard(self.now if agent else old.agent_at, self.now if host else old.host_at)
        return self

    def look(self) -> dict[str, NodeState]:
        for rounds in range(2):
            plan = plan_nodes(
                self.nodes.values(),
                self.heard,
                listening_since=self.listening_since,
                now=self.now,
                wall=WALL + self.now,
                timing=self.timing,
            )
            assert not rounds or plan.actions == ()
            for action in plan.actions:
                assert isinstance(action, SetNodeStatus)
                self.nodes[action.node_id] = replace(self.nodes[action.node_id], status=action.status)
        self.wake_at = plan.wake_at
        return {name: node.status.state for name, node in self.nodes.items()}

    def listen(self, until: float, *names: str, agent: bool = True, host: bool = True) -> dict[str, NodeState]:
        """Let time pass with beats of these nodes every tenth of a second."""
        while self.now < until - 1e-9:
            self.now = round(self.now + 0.1, 3)
            self.hear(*names, agent=agent, host=host)
            self.look()
        return self.look()


@pytest.mark.parametrize(
    ("nodes", "period"), [(1, 0.9), (3, 0.9), (100, 0.9), (900, 0.9), (1000, 1.0), (5000, 5.0), (10_000, 10.0)]
)
def test_the_leader_hears_at_most_2000_beats_a_second(nodes: int, period: float) -> None:
    assert heartbeat_period(nodes) == period
    assert 2 * nodes / heartbeat_period(nodes) <= 2000


def test_a_node_whose_agent_ended_says_what_its_host_tells_of_that() -> None:
    ear = Ear(1).hear("n1")
    ear.listen(3, "n1", agent=False)
    assert ear.nodes["n1"].status.message == "its host is up but its agent is away: nothing is replaced for 600 s"
    ear.heard["n1"] = replace(ear.heard["n1"], trouble="the disk is full")
    assert ear.look() == {"n1": AGENT_LOST}
    said = "its host is up but its agent is away (the disk is full): nothing is replaced for 600 s"
    assert ear.nodes["n1"].status.message == said
    ear.now = 700.0
    ear.heard["n1"] = Heard(0.0, ear.now, "the disk is full")
    assert ear.look() == {"n1": DOWN}
    assert ear.nodes["n1"].status.message == "its agent has been away for 600 s (the disk is full)"


def test_a_host_that_is_cut_off_is_down_in_under_three_seconds() -> None:
    ear = Ear(3).hear("n1", "n2", "n3")
    others = ("n2", "n3")
    assert ear.listen(2.6, *others)["n1"] is READY
    assert ear.listen(2.8, *others) == {"n1": DOWN, "n2": READY, "n3": READY}
    status = ear.nodes["n1"].status
    assert (status.message, status.since) == ("neither its agent nor its host is heard", WALL + 2.7)


def test_the_plan_names_the_moment_at_which_silence_becomes_loss() -> None:
    ear = Ear(2).hear("n1", "n2")
    ear.look()
    assert ear.wake_at == pytest.approx(2.7)


def test_a_dead_agent_is_not_a_dead_host_and_nothing_is_replaced_for_ten_minutes() -> None:
    ear = Ear(1).hear("n1")
    assert ear.listen(3, "n1", agent=False) == {"n1": AGENT_LOST}
    assert "nothing is replaced for 600 s" in ear.nodes["n1"].status.message
    ear.now = 602.0
    assert ear.hear("n1", agent=False).look() == {"n1": AGENT_LOST}
    ear.now = 602.8
    assert ear.hear("n1", agent=False).look() == {"n1": DOWN}


def test_a_lost_agent_whose_host_falls_silent_too_is_down() -> None:
    ear = Ear(1).hear("n1")
    ear.listen(10, "n1", agent=False)
    assert ear.listen(12.6) == {"n1": AGENT_LOST}
    assert ear.listen(12.8) == {"n1": DOWN}


def test_a_node_that_is_down_is_ready_again_only_by_its_agent() -> None:
    ear = Ear(1).hear("n1")
    ear.listen(5)
    assert ear.listen(6, "n1", agent=False) == {"n1": DOWN}
    assert ear.listen(7, "n1") == {"n1": READY}
    assert ear.nodes["n1"].status.message == ""


def test_the_agent_alone_is_enough_to_be_ready() -> None:
    ear = Ear(1).hear("n1", host=False)
    assert ear.listen(30, "n1", host=False) == {"n1": READY}


# After a failover


def test_a_new_leader_knows_nothing_of_a_node_until_it_hears_it_and_waits_before_it_says_down() -> None:
    ear = Ear(4, listening_since=0.0)
    assert set(ear.look().values()) == {UNKNOWN}
    assert ear.hear("n1").look()["n1"] is READY
    states = ear.listen(9.9, "n1", "n2", "n3")
    assert states == {"n1": READY, "n2": READY, "n3": READY, "n4": UNKNOWN}
    assert ear.listen(10.1, "n1", "n2", "n3")["n4"] is DOWN


def test_a_new_leader_leaves_down_and_agent_lost_as_they_were_with_their_time() -> None:
    ear = Ear(2, listening_since=0.0)
    ear.nodes["n1"] = replace(ear.nodes["n1"], status=NodeStatus(DOWN, "gone", 5.0))
    ear.nodes["n2"] = replace(ear.nodes["n2"], status=NodeStatus(AGENT_LOST, "its agent", WALL - 6))
    ear.look()
    ear.listen(60, "n2", agent=False)
    assert ear.nodes["n1"].status == NodeStatus(DOWN, "gone", 5.0)
    assert (ear.nodes["n2"].status.state, ear.nodes["n2"].status.since) == (AGENT_LOST, WALL - 6)


def test_a_lost_agent_gets_no_more_than_its_ten_minutes_from_any_number_of_leaders() -> None:
    ear = Ear(1, now=400.0, listening_since=400.0)
    ear.nodes["n1"] = replace(ear.nodes["n1"], status=NodeStatus(AGENT_LOST, "its agent", WALL + 2.7))
    assert ear.listen(602.6, "n1", agent=False) == {"n1": AGENT_LOST}
    assert ear.nodes["n1"].status.since == WALL + 2.7
    assert ear.wake_at == pytest.approx(602.7)
    assert ear.listen(602.8, "n1", agent=False) == {"n1": DOWN}


def test_an_agent_whose_time_ran_out_while_nobody_led_may_still_open_a_session() -> None:
    ear = Ear(1, now=700.0, listening_since=700.0)
    ear.nodes["n1"] = replace(ear.nodes["n1"], status=NodeStatus(AGENT_LOST, "its agent", WALL))
    assert ear.listen(709.9, "n1", agent=False) == {"n1": AGENT_LOST}
    assert ear.listen(710.1, "n1", agent=False) == {"n1": DOWN}


def test_a_former_leaders_clock_that_ran_ahead_gives_a_lost_agent_no_more_time() -> None:
    ear = Ear(1, listening_since=0.0)
    ear.nodes["n1"] = replace(ear.nodes["n1"], status=NodeStatus(AGENT_LOST, "its agent", WALL + 5000))
    assert ear.listen(609.9, "n1", agent=False) == {"n1": AGENT_LOST}
    assert ear.listen(610.1, "n1", agent=False) == {"n1": DOWN}


@pytest.mark.parametrize("state", [AGENT_LOST, DOWN])
def test_a_leader_that_was_stalled_itself_forgets_no_verdict(state: NodeState) -> None:
    ear = Ear(1).hear("n1")
    assert ear.listen(10, *(["n1"] if state is AGENT_LOST else []), agent=False) == {"n1": state}
    ear.now = ear.listening_since = 60.0
    assert ear.look() == {"n1": state}
    ear.listen(602.6, "n1", agent=False)
    assert ear.nodes["n1"].status.state is state
    assert ear.nodes["n1"].status.since == WALL + 2.7
    assert ear.listen(602.8, "n1", agent=False) == {"n1": DOWN}


def test_a_leader_that_was_stalled_itself_blames_nobody() -> None:
    ear = Ear(1).hear("n1")
    ear.now = ear.listening_since = 60.0
    assert ear.look() == {"n1": READY}
    assert ear.listen(62.8) == {"n1": DOWN}


# The brake


def test_one_node_of_many_or_of_few_is_replaced_without_a_brake() -> None:
    for count in (2, 3, 50):
        ear = Ear(count)
        ear.hear(*ear.nodes)
        assert ear.listen(3, *(n for n in ear.nodes if n != "n1"))["n1"] is DOWN


def test_over_a_third_lost_at_once_waits_thirty_seconds_and_says_so() -> None:
    ear = Ear(5)
    ear.hear(*ear.nodes)
    rest = ("n3", "n4", "n5")
    states = ear.listen(4, *rest)
    assert (states["n1"], states["n2"]) == (UNKNOWN, UNKNOWN)
    assert "lost together with many other nodes" in ear.nodes["n1"].status.message
    assert ear.listen(32.6, *rest)["n1"] is UNKNOWN
    states = ear.listen(32.8, *rest)
    assert (states["n1"], states["n2"]) == (DOWN, DOWN)


def test_a_third_is_not_over_a_third() -> None:
    ear = Ear(6)
    ear.hear(*ear.nodes)
    states = ear.listen(4, "n3", "n4", "n5", "n6")
    assert (states["n1"], states["n2"]) == (DOWN, DOWN)


def test_nodes_beat_out_of_step_and_still_count_as_lost_together() -> None:
    ear = Ear(3).hear("n1")
    ear.now = 0.8
    ear.hear("n2", "n3")
    states = ear.listen(3, "n3")
    assert (states["n1"], states["n2"]) == (UNKNOWN, READY)
    assert ear.listen(4, "n3")["n2"] is UNKNOWN


def test_when_the_others_return_the_brake_lets_go_of_the_one_that_does_not() -> None:
    ear = Ear(3)
    ear.hear(*ear.nodes)
    ear.listen(5, "n3")
    states = ear.listen(8, "n2", "n3")
    assert states == {"n1": DOWN, "n2": READY, "n3": READY}


def test_nodes_that_come_back_one_after_the_other_are_all_waited_for() -> None:
    ear = Ear(3)
    ear.hear(*ear.nodes)
    ear.listen(5, "n3")
    assert ear.listen(7, "n2", "n3") == {"n1": UNKNOWN, "n2": READY, "n3": READY}
    assert ear.listen(7.2, "n1", "n2", "n3") == {"n1": READY, "n2": READY, "n3": READY}


def test_nodes_lost_one_after_the_other_are_not_braked() -> None:
    ear = Ear(3)
    ear.hear(*ear.nodes)
    ear.listen(15, "n2", "n3")
    assert ear.listen(20, "n3") == {"n1": DOWN, "n2": DOWN, "n3": READY}


def test_nodes_that_were_down_before_do_not_count_for_the_brake() -> None:
    ear = Ear(4, listening_since=0.0)
    for name in ("n2", "n3"):
        ear.nodes[name] = replace(ear.nodes[name], status=NodeStatus(DOWN, "", 0.0))
    ear.hear("n1", "n4")
    ear.look()
    assert ear.listen(3, "n4")["n1"] is DOWN


def test_five_thousand_nodes_are_judged_in_milliseconds() -> None:
    import time

    ear = Ear(5000)
    ear.hear(*ear.nodes)
    began = time.process_time()
    ear.look()
    assert time.process_time() - began < 0.5
