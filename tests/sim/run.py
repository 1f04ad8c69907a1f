"""Runs seeds and tells of the first that fails: the seed, the step, the invariant, and the last events before it."""

import argparse
import gc
import hashlib
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from tests.sim.cluster import Violation, World
from tests.sim.scenario import Scenario

BROKEN = "the simulation broke"
"""How a failure begins that is none of an invariant: no mutant is caught by it."""
TAIL = 30
"""Events that are shown of a seed that failed."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a seed went; `events` is its whole log."""

    seed: int
    events: tuple[str, ...]
    virtual_s: float
    rounds: int
    error: BaseException | None

    @property
    def digest(self) -> str:
        """What is the same whenever the seed is run."""
        return hashlib.sha256("\n".join(self.events).encode()).hexdigest()[:16]

    def report(self) -> str:
        """Tell of a failure."""
        error = self.error
        what = f"{error.invariant}: {error.text}" if isinstance(error, Violation) else f"{BROKEN}: {error!r}"
        lines = [
            f"seed {self.seed} fails at step {len(self.events)}",
            f"  {what}",
            *("    " + e for e in self.events[-TAIL:]),
        ]
        cause = error.__cause__ if isinstance(error, Violation) else error
        if cause is not None:
            lines += traceback.format_exception(cause)
        lines.append(f"  again: make sim SEED={self.seed}")
        return "\n".join(lines)


def run_seed(seed: int, *, echo: bool = False, verbose: bool = False) -> Result:
    """Run one seed to its end or first violation."""
    base = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="argosy-sim-", dir=base))
    random.seed(seed)
    gc.disable()
    world = World(seed, folder, echo=echo)
    _configure_log(world, verbose)
    error: BaseException | None = None
    try:
        world.run(Scenario(world).run())
    except KeyboardInterrupt:
        raise
    except BaseException as failure:
        error = failure
    finally:
        events = tuple(world.log)
        world.loop.abandon()
        for host in world.agents.values():
            if host._state is not None:
                host._state.abandon()
        shutil.rmtree(folder, ignore_errors=True)
        gc.enable()
    return Result(seed, events, world.loop.now, world.loop.rounds, error)


def _configure_log(world: World, verbose: bool) -> None:
    """Have the parts' own log drop everything but what tells of a bug."""
    level = 20 if verbose else 40

    def emit(_logger: Any, method: str, event: dict[str, Any]) -> Any:
        text = event.pop("event")
        error = event.pop("exc_info", None)
        world.note(f"log {method}: {text} {event}")
        if "a bug" in text or "differed" in text or "back in time" in text:
            world.watcher.fail("no bug", f"{text} {event}", error if isinstance(error, BaseException) else None)
        raise structlog.DropEvent

    structlog.configure(
        processors=[emit],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )


def seeds_of(text: str) -> Iterator[int]:
    """Read "7", "1..500", or several of these with commas between."""
    for part in text.split(","):
        first, dots, last = part.partition("..")
        yield from range(int(first), int(last) + 1) if dots else (int(first),)


def main(arguments: list[str]) -> int:
    """Run what the command line says; the exit status is 1 when a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("seeds", help="N, FIRST..LAST, or several of these with commas between")
    parser.add_argument("--log", action="store_true", help="print every event")
    parser.add_argument("--verbose", action="store_true", help="with what the parts log themselves")
    parser.add_argument("--twice", action="store_true", help="run each seed twice; the logs must be the same")
    parser.add_argument("--digest", action="store_true", help="print what is the same whenever a seed is run")
    parser.add_argument("--slow", action="store_true", help="name the seeds that take over a second of processor time")
    parser.add_argument("--keep-going", action="store_true", help="do not end at the first seed that fails")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore", RuntimeWarning)
    sys.unraisablehook = lambda _: None  # what was abandoned complains when it is collected
    began, failed, count, virtual_s = time.process_time(), 0, 0, 0.0
    for seed in seeds_of(options.seeds):
        before = time.process_time()
        result = run_seed(seed, echo=options.log, verbose=options.verbose)
        if options.slow and (spent := time.process_time() - before) > 1:
            print(f"seed {seed}: {spent:.1f} s", flush=True)
        count, virtual_s = count + 1, virtual_s + result.virtual_s - 1000
        if options.digest:
            print(f"seed {seed} digest {result.digest}")
        if options.twice and (again := run_seed(seed)).digest != result.digest:
            print(_first_difference(result, again))
            failed += 1
        if result.error is not None:
            print(result.report(), flush=True)
            failed += 1
        if failed and not options.keep_going:
            break
        if count % 20 == 0:
            gc.collect()
    spent = time.process_time() - began
    print(f"{count} seeds, {failed} failed, {virtual_s:.0f} s of virtual time in {spent:.1f} s of processor time")
    return 1 if failed else 0


def _first_difference(one: Result, other: Result) -> str:
    for number, (a, b) in enumerate(zip(one.events, other.events, strict=False)):
        if a != b:
            return f"seed {one.seed} is not the same twice, at event {number}:\n    {a}\n    {b}"
    return f"seed {one.seed} is not the same twice: {len(one.events)} and {len(other.events)} events"
