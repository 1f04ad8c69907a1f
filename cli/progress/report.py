"""What to say of a failure: the tasks that explain it, why they ended, and the last that they wrote."""

from typing import TYPE_CHECKING, Final

from argosy.cli.progress.lines import TaskLine, describe
from argosy.cli.progress.picture import Picture
from argosy.core.task import Task
from argosy.core.task_state import TaskState

if TYPE_CHECKING:
    from argosy.cli.session import Session

LOG_LINES: Final = 20
MOST_TASKS: Final = 2
"""Of tasks that failed in the same way one would do; the second shows whether they did."""
_LOG_TIMEOUT_S: Final = 5.0


def failure_report(session: "Session", culprits: tuple[Task, ...], picture: Picture) -> list[str]:
    """Return the lines that explain a failure by the tasks that show it."""
    lines: list[str] = []
    for task in culprits[:MOST_TASKS]:
        line = TaskLine(
            picture.task_name(task),
            picture.node_name(task.node_id),
            task.status.state,
            task.desired_state,
            task.status.reason or ("killed: out of memory" if task.status.oom_killed else ""),
            task.status.exit_code,
            bool(task.running_since),
        )
        lines.append(f"{line.name}: {describe(line)}")
        if task.status.state is not TaskState.REJECTED or task.running_since:
            lines += _last_lines(session, task)
    return lines


def _last_lines(session: "Session", task: Task) -> list[str]:
    import grpc

    from argosy.proto.argosy.v1 import control_pb2 as pb

    request = pb.LogsRequest(project=session.project, task=task.meta.id, tail=LOG_LINES)
    text, notices = b"", []
    try:
        for entry in session.control.Logs(request, timeout=_LOG_TIMEOUT_S):
            text += b"".join(output.data for output in entry.output)
            if entry.notice:
                notices.append(f"  ({entry.notice})")
    except grpc.RpcError:
        notices.append("  (its output cannot be had)")
    lines = [f"  | {line}" for line in text.decode("utf-8", "replace").removesuffix("\n").split("\n")] if text else []
    if not lines and not notices:
        return ["  (it wrote nothing)"]
    return ["  the last lines that it wrote:", *lines[-LOG_LINES:], *notices]
