"""What `argosy run` ends with: the status of its program, as `docker run` has it."""

import os
import signal
import threading
from collections.abc import Callable

import grpc
import pytest

from argosy.cli.commands.run import exit_status
from argosy.core.meta import Meta
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState as S

from .conftest import Ran
from .fake_cluster import FakeCluster


def ended(state: S, code: int | None, reason: str = "", at: float = 5.0) -> Task:
    return Task(Meta(f"t{at}"), "r", 1, "n1", 1, status=TaskStatus(state, at=at, reason=reason, exit_code=code))


@pytest.mark.parametrize(
    ("tasks", "status", "said"),
    [
        ([ended(S.COMPLETE, 0)], 0, ""),
        ([ended(S.FAILED, 42, "exit code 42")], 42, ""),
        ([ended(S.FAILED, 137, "exit code 137: ended by signal 9")], 137, "once: exit code 137: ended by signal 9"),
        ([ended(S.FAILED, 143, "exit code 143: ended by signal 15")], 143, "once: exit code 143: ended by signal 15"),
        ([ended(S.FAILED, 127, "no such program: x")], 127, "once: no such program: x"),
        ([ended(S.REJECTED, None, "no such user")], 125, "once: no such user"),
        ([ended(S.FAILED, None, "nobody knows how it ended")], 1, "once: nobody knows how it ended"),
        ([ended(S.FAILED, 3, at=6.0), ended(S.FAILED, 9, at=5.0)], 3, ""),  # the last one counts
        ([ended(S.FAILED, 3, at=6.0), ended(S.COMPLETE, 0, at=5.0)], 0, ""),
    ],
)
def test_the_status_of_a_run(capsys: pytest.CaptureFixture[str], tasks: list[Task], status: int, said: str) -> None:
    assert exit_status("once", tasks) == status
    assert said in capsys.readouterr().err


def test_a_run_that_may_have_been_begun_is_named(argosy: Callable[..., Ran], cluster: FakeCluster) -> None:
    cluster.fail["CreateService"] = [(grpc.StatusCode.DEADLINE_EXCEEDED, "it may or may not have been applied")]
    ran = argosy("run", "--name", "once", "web")
    assert ran.status == 3
    assert cluster.calls["CreateService"] == 1
    assert "'argosy service rm once'" in ran.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("options", [(), ("-i",)])
def test_ctrl_c_while_a_run_is_begun_leaves_nothing_of_it(
    argosy: Callable[..., Ran], cluster: FakeCluster, options: tuple[str, ...], number: signal.Signals
) -> None:
    def interrupt() -> None:
        os.kill(os.getpid(), number)
        threading.Event().wait(0.5)  # the answer comes after it

    cluster.meanwhile["CreateService"] = interrupt
    ran = argosy("run", "--name", "once", *options, "web")
    assert (ran.status, cluster.all("service")) == (130, [])
    assert "once: stopped and removed" in ran.err


def test_ctrl_c_twice_while_a_run_is_begun_gives_up_and_names_it(
    argosy: Callable[..., Ran], cluster: FakeCluster
) -> None:
    def interrupt() -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(0.5)

    cluster.meanwhile["CreateService"] = interrupt
    ran = argosy("run", "--name", "once", "web")
    assert ran.status == 130
    assert "'argosy service rm once'" in ran.err


def test_ctrl_c_while_a_detached_run_is_begun_says_what_goes_on(
    argosy: Callable[..., Ran], cluster: FakeCluster
) -> None:
    cluster.meanwhile["CreateService"] = lambda: (os.kill(os.getpid(), signal.SIGINT), threading.Event().wait(0.5))
    ran = argosy("run", "-d", "--name", "once", "web")
    assert (ran.status, ran.out) == (130, "once\n")
    assert "what the cluster was asked for goes on" in ran.err


def test_what_may_have_been_done_is_not_done_again(argosy: Callable[..., Ran], cluster: FakeCluster) -> None:
    assert argosy("service", "create", "--name", "web", "web").status == 0
    cluster.fail["RollbackService"] = [(grpc.StatusCode.DEADLINE_EXCEEDED, "it may or may not have been applied")]
    ran = argosy("service", "rollback", "web")
    assert (ran.status, cluster.calls["RollbackService"]) == (3, 1)
    assert "look before you try again" in ran.err
