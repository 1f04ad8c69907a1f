"""Updates on three hosts: canaries, promotion, pause, resume, history, rollback, stop, and a leader killed meanwhile.

Which programs run is looked at in the kernel (cgroups and /proc): who is not touched keeps its process.
"""

import pytest

from tests.e2e.dev_cluster import wait_until
from tests.e2e.host_view import is_alive

COMMAND = "sleep\000100000"
REPLICAS = 4


@pytest.fixture(scope="module")
def web(cluster):
    """A service of four tasks that tries each update in a canary first; its name."""
    cluster.argosy(
        *("service", "create", "--name", "web", "--replicas", str(REPLICAS), "--init", "--stop-grace-period", "1s"),
        *("--canary", "1", "--update-monitor", "0s", "--update-delay", "500ms", "--rollback-monitor", "0s"),
        *("--rollback-parallelism", "0", "-e", "V=1", "busybox:1", "sleep", "100000"),
    )
    yield "web"
    cluster.argosy("service", "rm", "web")


def shown(cluster):
    """Return the service as `service ls` shows it."""
    return next(s for s in cluster.json("service", "ls") if s["name"] == "web")


def revisions(cluster):
    """Return the revision of each task that runs and is to, by slot."""
    return {t["slot"]: t["revision"] for t in cluster.running("web")}


def made_since(cluster, before):
    """Return (slot, revision) of all tasks that are not among some ids, ended ones too."""
    return sorted((t["slot"], t["revision"]) for t in cluster.tasks("web", ended=True) if t["id"] not in before)


def wait_update(cluster, state):
    wait_until(
        lambda: shown(cluster)["update"] == state, 60, lambda: f"{state}: {shown(cluster)}: {revisions(cluster)}"
    )


def pace(cluster, delay):
    """Have the next slot wait for so long: an update is to be in the middle for longer than commands take."""
    cluster.argosy("service", "update", "--detach", "--update-delay", delay, "web")


def test_a_leader_killed_in_the_middle_of_an_update_with_a_canary_changes_nothing_of_it(cluster, web):
    before = cluster.wait_programs(REPLICAS, command=COMMAND)
    cluster.argosy("service", "update", "--detach", "--env-add", "V=2", web)
    wait_until(lambda: shown(cluster)["update"] == "UPDATING", 20, "the update has begun")
    old = cluster.kill("controller-1")
    cluster.wait_restarted("controller-1", old)
    wait_until(lambda: shown(cluster)["to_promote"], 60, lambda: f"the canary does well: {shown(cluster)}")
    assert revisions(cluster) == {1: 1, 2: 1, 3: 1, 4: 1, 5: 2}
    assert all(is_alive(program) for program in before.values()), "no old task was touched"
    assert "4/4 +1 canary" in cluster.argosy("service", "ls")
    assert "(canary)" in cluster.argosy("service", "ps", web)

    pace(cluster, "10s")
    cluster.argosy("service", "promote", "--detach", web)
    wait_until(lambda: sorted(revisions(cluster).values()).count(2) > 1, 60, lambda: f"{revisions(cluster)}")
    old = cluster.kill("controller-1")
    cluster.wait_restarted("controller-1", old)
    assert 1 in revisions(cluster).values(), "it was killed in the middle"
    pace(cluster, "500ms")
    wait_update(cluster, "COMPLETED")
    wait_until(lambda: revisions(cluster) == {1: 2, 2: 2, 3: 2, 4: 2}, 20, lambda: f"{revisions(cluster)}")
    cluster.wait_programs(REPLICAS, command=COMMAND)
    assert {slot for slot, _ in made_since(cluster, before)} <= {1, 2, 3, 4, 5}
    assert [made for made in made_since(cluster, before) if made[0] <= REPLICAS] == [(n, 2) for n in (1, 2, 3, 4)]


def test_an_update_is_paused_resumed_and_rolled_back_to_a_revision_of_the_history(cluster, web):
    cluster.argosy("service", "update", "--canary", "0", web)
    newest = cluster.json("service", "history", web)[0]["revision"]
    pace(cluster, "10s")
    cluster.argosy("service", "update", "--detach", "--env-add", "V=3", "--limit-pids", "50", web)
    wait_until(lambda: newest + 1 in revisions(cluster).values(), 30, lambda: f"{revisions(cluster)}")
    cluster.argosy("service", "pause", web)
    again = cluster.run("service", "update", "--limit-pids", "50", web)
    assert (again.returncode, "argosy service resume web" in again.stderr) == (1, True), again.stderr
    paused_at = revisions(cluster)
    assert set(paused_at.values()) == {newest, newest + 1}
    assert shown(cluster)["update"] == "PAUSED"
    pace(cluster, "500ms")
    assert "runs revision" in cluster.argosy("service", "resume", web)
    assert set(revisions(cluster).values()) == {newest + 1}

    history = cluster.json("service", "history", web)
    changed = history[0]["changed"]
    assert (changed[0].endswith("+V=3"), changed[1:]) == (True, ["limits.pids 0 -> 50"])
    assert (history[0]["current"], history[0]["tasks"]) == (True, REPLICAS)
    too_far = cluster.run("service", "rollback", "--to", "99", web)
    assert (too_far.returncode, "it has 1" in too_far.stderr) == (1, True), too_far.stderr
    cluster.argosy("service", "rollback", "--to", "1", web)
    spec = cluster.json("service", "inspect", web)[0]["spec"]["task"]
    assert (spec["container"]["env"], spec["limits"]["pids"]) == (["V=1"], 0)
    task = cluster.running("web")[0]
    assert "V=1" in cluster.inside(task, "cat", "/proc/1/environ").split("\0")


def test_a_stopped_service_runs_nothing_and_starts_again(cluster, web):
    cluster.argosy("service", "stop", web)
    assert "0/4 stopped" in cluster.argosy("service", "ls")
    cluster.wait_programs(0, command=COMMAND)
    cluster.argosy("service", "start", web)
    before = cluster.wait_programs(REPLICAS, command=COMMAND)
    cluster.argosy("service", "update", "--update-parallelism", "0", "--update-delay", "0s", web)
    cluster.argosy("service", "restart", web)
    after = cluster.wait_programs(REPLICAS, command=COMMAND)
    assert not set(before) & set(after)


def test_what_no_node_has_room_for_stops_nothing_and_what_fits_in_the_old_ones_place_takes_it(cluster):
    command = "sleep\000200000"
    cluster.argosy("network", "create", "big")
    port = ("--network", "big", "-p", "published=8470,target=80,mode=host")
    cluster.argosy(
        *("service", "create", "--name", "big", "--replicas", str(len(cluster.nodes)), "--init", *port),
        *("--update-progress-deadline", "3s", "--update-monitor", "0s", "busybox:1", "sleep", "200000"),
    )
    before = cluster.wait_programs(len(cluster.nodes), command=command)
    refused = cluster.run("service", "update", "--reserve-cpu", "500", "big")
    assert refused.returncode == 1
    assert "1 lacks 500 CPUs (" in refused.stderr, refused.stderr
    assert next(s for s in cluster.json("service", "ls") if s["name"] == "big")["update"] == "PAUSED"
    assert all(is_alive(program) for program in before.values()), "no task was stopped for one that cannot run"

    cluster.argosy("service", "update", "--reserve-cpu", "0.1", "--env-add", "V=2", "big")
    after = cluster.wait_programs(len(cluster.nodes), command=command)
    assert not set(before) & set(after), "each node's port was taken over"
    cluster.argosy("service", "rm", "big")
    cluster.argosy("network", "rm", "big")
