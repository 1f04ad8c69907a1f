"""Breaks the real code in named ways, one at a time, and demands that the simulator sees each within 500 seeds.

`make sim-mutants` copies the tree, replaces the exact text that a mutant names (a text that is not there exactly once
is an error: the mutant has to follow the code), and runs seeds until one fails.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.sim.run import BROKEN

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("agent", "cli", "controller", "core", "proto", "src", "tests/sim", "pyproject.toml")


@dataclass(frozen=True, slots=True)
class Mutant:
    """Texts to replace in a file: (old, new), each found exactly once.

    `first`: seeds that are tried before all others, since they saw it once. What they do changes with every change of
    the generator: they only save time.
    """

    name: str
    path: str
    edits: tuple[tuple[str, str], ...]
    first: tuple[int, ...] = ()


def _mutant(name: str, path: str, *edits: tuple[str, str], first: tuple[int, ...] = ()) -> Mutant:
    return Mutant(name, path, edits, first)


MUTANTS = (
    _mutant(
        "leader comparison dropped from writes",
        "controller/store/txn.py",
        (
            "        _compare(txn, fence.key, pb.Compare.CREATE).create_revision = fence.create_revision\n",
            "",
        ),
        first=(20,),
    ),
    _mutant(
        "address quarantine skipped",
        "controller/logic/address_pool.py",
        ("        released = task.status.released\n", "        released = task.desired_state > 512\n"),
        # Else it shows only where a node has gone through all its addresses.
        ("        last = self.last_given.get(node_id, -1)\n", "        last = -1\n"),
        first=(6,),
    ),
    _mutant(
        "budget ignored",
        "controller/logic/availability.py",
        ("        allowed = limit is None or budget.missing + takes <= limit\n", "        allowed = True\n"),
        first=(14,),
    ),
    _mutant(
        "drain stops before the heir serves",
        "controller/logic/slot.py",
        (
            "    if not serves(old) or view.is_overdue(old) or (is_available",
            "    if not serves(old) or view.is_leaving(old) or (is_available",
        ),
    ),
    _mutant(
        "tasks on nodes not heard yet are free to stop",
        "controller/logic/slot.py",
        ("    if not may_be_available(view, old) or", "    if not is_available(view, old) or"),
        first=(70,),
    ),
    _mutant(
        "status accepted out of order",
        "controller/logic/status_report.py",
        (" or not may_follow(old.state, status.state):", ":"),
    ),
    _mutant(
        "epoch check in the agent dropped",
        "agent/logic/assignments.py",
        ("    if (leader.epoch, leader.revision) < (highest.epoch, highest.revision):", "    if leader.epoch < 0:"),
    ),
    _mutant(
        "ambiguous transaction retried blindly",
        "controller/store/store.py",
        (
            "            if not can_settle(parts):\n                raise\n"
            "            return await self._settle(parts, fence, error)\n",
            "            response = await self.client.txn(request(parts, fence))\n",
        ),
        first=(161,),
    ),
    _mutant(
        "watch resumes one revision too late",
        "controller/store/watch.py",
        ("            start_revision=watch.next_revision,\n", "            start_revision=watch.next_revision + 1,\n"),
    ),
    _mutant(
        "no new list after a compaction",
        "controller/store/cache.py",
        (
            "                await self._list()\n                self._ready.set()\n",
            "                if not self._ready.is_set():\n                    await self._list()\n"
            "                self._ready.set()\n",
        ),
        (
            '                        log.warning("the watch was compacted away",',
            "                        self._publish(Step(oldest, ()))\n"
            '                        log.warning("the watch was compacted away",',
        ),
        first=(21,),
    ),
    _mutant(
        "task deleted before the agent confirmed",
        "controller/logic/reap.py",
        (
            "    ended = is_terminal(task.status.state) and task.status.released\n",
            "    ended = is_terminal(task.status.state)\n",
        ),
    ),
    _mutant(
        "what is over is not told",
        "controller/logic/assign.py",
        ("over=task.status.released and task.desired_state <= TaskState.RUNNING,", "over=False,"),
        first=(93,),
    ),
    _mutant(
        "parallelism ignored",
        "controller/logic/update.py",
        ("room = config.parallelism - occupied", "room = config.parallelism"),
    ),
    _mutant(
        "new leader declares DOWN without grace",
        "controller/logic/node_state.py",
        (
            "        agent_lost_at = listening_since + timing.grace_s\n",
            "        agent_lost_at = listening_since + 0.1\n",
        ),
    ),
    _mutant(
        "report acknowledged before commit",
        "controller/session/status_writer.py",
        (
            "        await self._commit(changes)\n        for report in reports:\n            if not report.left:\n",
            "        for report in reports:\n            if True:\n",
        ),
        (
            "                report.acknowledge()\n",
            "                report.acknowledge()\n        await self._commit(changes)\n",
        ),
    ),
    _mutant(
        "replaced task not stopped",
        "controller/logic/slot.py",
        (
            "    for task in surplus:\n        draft.stop(task)\n",
            "",
        ),
    ),
    _mutant(
        "agent stops what an unsynced view lacks",
        "agent/tasks/tasks.py",
        ("        if assignments.synced:\n", "        if True:\n"),
        first=(143,),
    ),
    _mutant(
        "what has run is made anew",
        "agent/logic/task_step.py",
        (
            "ContainerState.STOPPED if seen.status.state < TaskState.STARTING:",
            "ContainerState.STOPPED if seen.status.state < TaskState.COMPLETE:",
        ),
    ),
    _mutant(
        "a time of the schedule starts two runs",
        "controller/logic/cron.py",
        ("        return _begun(replace(job, next_at=following), now)\n", "        return _begun(job, now)\n"),
        first=(104,),
    ),
    _mutant(
        "max_concurrent ignored",
        "controller/logic/jobs.py",
        ("room = max(0, most - run.busy - run.leaving) if most else len(run.ready)", "room = len(run.ready)"),
    ),
    _mutant(
        "fence ignored",
        "controller/logic/view.py",
        (
            "            return _cannot_be_granted(node) and self.fence_left(task) <= 0\n",
            "            return _cannot_be_granted(node)\n",
        ),
        first=(106,),
    ),
    _mutant(
        "kept tasks replaced",
        "controller/logic/view.py",
        ("        if not self._keeps or task.desired_state > TaskState.RUNNING:\n", "        if True:\n"),
        first=(54,),
    ),
    _mutant(
        "stops for what has no place",
        "controller/logic/slot.py",
        ("    if heir.status.state < TaskState.READY and not heir.status.waits_for_old:\n", "    if False:\n"),
    ),
    _mutant(
        "no brake on mass losses",
        "controller/logic/node_state.py",
        ("        if lost > 1 and 3 * lost > of_how_many:\n", "        if lost > of_how_many:\n"),
    ),
    _mutant(
        "dependencies ignored",
        "controller/logic/dependencies.py",
        ("        unmet = [held for held in found if held.reason]\n", "        unmet: list[Held] = []\n"),
        first=(19,),
    ),
    _mutant(
        "what went with its host restarted without a controller",
        "agent/logic/succession.py",
        ("    if dependent and before_boot and alone_s < LEFT_S:\n", "    if False:\n"),
        first=(105,),
    ),
    _mutant(
        "what nobody vouches for counts as running",
        "controller/logic/dependencies.py",
        ("        return node.spec.name or task.node_id\n", '        return ""\n'),
        first=(365,),
    ),
    _mutant(
        "canaries promoted by themselves",
        "controller/logic/update.py",
        ("        if well and spec.auto_promote:\n", "        if well:\n"),
        first=(27,),
    ),
    _mutant(
        "a drain's pace ignored",
        "controller/logic/departures.py",
        ("        return self._room.get(node_id, 1) > 0\n", "        return True\n"),
        first=(385,),
    ),
    _mutant(
        "new versions of files not followed",
        "controller/changes/files.py",
        (
            "    if latest is None or latest.meta.version <= since or latest.meta.id == ref.id:\n",
            "    if latest is None or latest.meta.version > since or latest.meta.id == ref.id:\n",
        ),
        first=(38,),
    ),
    _mutant(
        "a node does not wait for what a task follows",
        "agent/logic/task_step.py",
        (
            "            if assigned.desired_state < TaskState.RUNNING or waits:\n",
            "            if assigned.desired_state < TaskState.RUNNING:\n",
        ),
        first=(12,),
    ),
)


def plant(mutant: Mutant, root: Path) -> None:
    """Apply a mutant to a copy of the tree; ValueError when it does not fit the code any more."""
    path = root / mutant.path
    text = path.read_text()
    for old, new in mutant.edits:
        if text.count(old) != 1:
            raise ValueError(f"{mutant.name}: {mutant.path} has this {text.count(old)} times, not once:\n{old}")
        text = text.replace(old, new)
    path.write_text(text)


def copy_tree(source: Path, root: Path) -> None:
    """Copy what the simulator needs; links stay links."""
    for part in PARTS:
        target = root / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (source / part).is_dir():
            shutil.copytree(source / part, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source / part, target)


def catch(mutant: Mutant, source: Path, seeds: int) -> tuple[int | None, str]:
    """Run a mutant until a seed fails; return the seed and what was violated, or None and what was seen instead."""
    with tempfile.TemporaryDirectory(prefix="argosy-mutant-") as folder:
        root = Path(folder)
        copy_tree(source, root)
        plant(mutant, root)
        own = {"PYTHONPATH": f"{root / 'src'}:{root}", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
        env = {**os.environ, **own}
        order = ",".join((*map(str, mutant.first), f"1..{seeds}"))
        command = [sys.executable, "-m", "tests.sim", order]
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    found = re.search(r"seed (\d+) fails at step \d+\n\s+(.*)", done.stdout)
    if found is None or found[2].startswith(BROKEN):
        return None, (done.stdout + done.stderr)[-2000:]
    return int(found[1]), found[2][:90]


def main(arguments: list[str]) -> int:
    """Run all mutants, or those that are named; the exit status is 1 when one was not caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.mutants", description=__doc__)
    parser.add_argument("only", nargs="*", help="run only mutants whose name contains one of these")
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--processes", type=int, default=2, help="mutants that are run at once")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the tree to copy")
    options = parser.parse_args(arguments)
    chosen = [m for m in MUTANTS if not options.only or any(word in m.name for word in options.only)]
    with ThreadPoolExecutor(options.processes) as pool:
        caught = list(pool.map(lambda mutant: _tell(mutant, options.tree, options.seeds), chosen))
    missed = caught.count(False)
    print(f"{missed} of {len(chosen)} mutants escaped" if missed else "every mutant was caught")
    return 1 if missed else 0


def _tell(mutant: Mutant, source: Path, seeds: int) -> bool:
    began = time.monotonic()
    try:
        seed, what = catch(mutant, source, seeds)
    except ValueError as error:
        print(f"DOES NOT APPLY  {error}", flush=True)
        return False
    verdict = f"seed {seed}" if seed is not None else "NOT CAUGHT"
    print(f"{mutant.name:<48} {verdict:<11} {time.monotonic() - began:5.0f} s  {what}", flush=True)
    return seed is not None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
