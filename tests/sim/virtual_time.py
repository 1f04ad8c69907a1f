"""An event loop in a time of its own, and processes in it that can be paused and killed at any instant.

Time stands still while anything is ready to run, and then jumps to the next timer: an hour with nothing in it costs
nothing. Every callback belongs to the process in whose context it was made. A paused process's callbacks wait until it
goes on (SIGSTOP); those of a dead one are dropped where they stand, without any `finally` being run (kill -9).

What would differ from run to run is made not to: tasks hash by their number, since asyncio keeps them in sets.
"""

import asyncio
import contextvars
import heapq
import itertools
import warnings
from collections import deque
from collections.abc import Coroutine
from typing import Any

PROCESS: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("PROCESS", default=None)
START_S = 1000.0
EPOCH_S = 1_700_000_045.0
"""Wall time at loop time 0: a minute, in which schedules fire, is over 15 s after START_S."""
STALL_S = 1.6
"""A pause that a process is sure to notice: a second over the longest it sleeps."""
BUSY_LIMIT = 200_000
"""Rounds of the loop without any time going by after which it counts as spinning."""


class Spinning(Exception):
    """Something runs for ever without waiting for anything."""


class NothingLeft(Exception):
    """Nobody waits for any time: the world stands still for ever."""


class Process:
    """What is paused, resumed and killed as a whole."""

    def __init__(self, loop: "VirtualLoop", name: str) -> None:
        self.name = name
        self.paused = False
        self.dead = False
        self.stalled_until = 0.0
        self._paused_at = 0.0
        self._loop = loop
        self._held: deque[asyncio.Handle] = deque()
        self._remains: list[asyncio.Task[Any]] = []
        self.context = contextvars.copy_context()
        self.context.run(PROCESS.set, self)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str | None = None) -> asyncio.Task[Any]:
        """Run a coroutine as a part of the process."""
        return self._loop.create_task(work, name=name, context=self.context.copy())

    def call(self, function: Any, *args: Any) -> None:
        """Have a function called in the process, when it runs."""
        self._loop.call_soon(function, *args, context=self.context)

    def pause(self) -> None:
        self.paused = True
        self._paused_at = self._loop.time()

    def resume(self) -> None:
        if self.paused:
            self.paused = False
            if self._loop.time() - self._paused_at >= STALL_S:
                self.stalled_until = self._loop.time()
            self._loop.put_back(self._held)
            self._held = deque()

    def kill(self) -> None:
        self.dead = True
        self._held.clear()
        # What it was doing stays where it was: nothing of it may run when its objects are collected.
        self._remains = [t for t in asyncio.all_tasks(self._loop) if getattr(t, "process", None) is self]

    def hold(self, handle: asyncio.Handle) -> None:
        """Keep a callback back that the process cannot run now."""
        if not self.dead:
            self._held.append(handle)


class _Task(asyncio.Task):  # type: ignore[type-arg]
    numbers = itertools.count()

    def __new__(cls, *_args: Any, **_more: Any) -> "_Task":
        task = super().__new__(cls)
        task.number = next(cls.numbers)
        return task

    def __hash__(self) -> int:
        return self.number  # type: ignore[no-any-return]


class VirtualLoop(asyncio.BaseEventLoop):
    """`now` is the time; everything runs in one thread, in an order that only the seed decides."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START_S
        self.rounds = 0
        self.world = contextvars.copy_context()
        """The context of what belongs to no process: the network, etcd, the kernels."""
        self._busy = 0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = itertools.count()
        _Task.numbers = itertools.count()
        self.set_task_factory(_make_task)

    def time(self) -> float:
        return self.now

    def wall(self) -> float:
        """Return the time as people have it."""
        return EPOCH_S + self.now

    def later(self, delay_s: float, function: Any, *args: Any) -> asyncio.TimerHandle:
        """Call a function of the world after a while."""
        return self.call_at(self.now + delay_s, function, *args, context=self.world)

    def put_back(self, handles: "deque[asyncio.Handle]") -> None:
        self._ready.extend(handles)  # type: ignore[attr-defined]

    def _write_to_self(self) -> None:
        pass

    def _process_events(self, event_list: Any) -> None:
        pass

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def _run_once(self) -> None:
        ready, timers = self._ready, self._timers  # type: ignore[attr-defined]
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not ready:
            if not timers:
                raise NothingLeft
            if timers[0][0] > self.now:
                self.now = timers[0][0]
                self._busy = 0
        while timers and timers[0][0] <= self.now:
            ready.append(heapq.heappop(timers)[2])
        self.rounds += 1
        self._busy += 1
        if self._busy > BUSY_LIMIT:
            raise Spinning(f"{BUSY_LIMIT} rounds at {self.now}")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(PROCESS)
            if process is None or not (process.paused or process.dead):
                handle._run()
            else:
                process.hold(handle)

    def abandon(self) -> None:
        """End all that is left, in whatever state it is."""
        self.set_exception_handler(lambda *_: None)
        left = sorted(asyncio.all_tasks(self), key=hash)
        self._ready.clear()  # type: ignore[attr-defined]
        self._timers.clear()
        for task in left:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine = task.get_coro()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for _ in range(3):
                    try:
                        coroutine.close()  # type: ignore[union-attr]
                        break
                    except BaseException:  # a cleanup that awaits, or fails in a world that is gone
                        continue
        self._ready.clear()  # type: ignore[attr-defined]
        self._timers.clear()

    def __del__(self) -> None:
        """There is nothing to close."""


def _make_task(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> asyncio.Task[Any]:
    task = _Task(work, loop=loop, **more)
    context = more.get("context")
    task.process = context.get(PROCESS) if context is not None else PROCESS.get()
    return task
