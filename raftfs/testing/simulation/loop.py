"""An asyncio event loop on virtual time, and the processes that live on it.

Time passes only when nothing is left to do at this instant, and then jumps to the next timer. Every callback belongs
to the process in whose context it was made (a context variable says so), which is how several nodes share one loop
and still die, stand still and keep clocks of their own: nothing of a dead process runs any more, what is due in a
process that stands still waits, and each process sees its own clock. Work for threads is done on the loop as well, at
the end of a time that the process's random source says.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, NoReturn

_current: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class ProcessEnded(BaseException):
    """Unwinds what a process was doing at the instant of its death. Nothing in a node may catch it."""


class Stuck(Exception):
    """Nothing is left that could ever happen."""


def current_process() -> Process:
    """The process whose code is running."""
    process = _current.get()
    assert process is not None, "only a simulated process may come here"
    return process


class Job:
    """Work for a thread, under way."""

    def __init__(self, work: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self.work, self.future = work, future


class Process:
    """One life of one node. ``started_s``: what its clock shows now; ``rate``: how fast it goes."""

    def __init__(self, loop: VirtualLoop, name: str, rng: random.Random, *, started_s: float, rate: float) -> None:
        self.loop, self.name, self.rng = loop, name, rng
        self.alive = True
        self.slowness = 1.0
        self.disk: Any = None
        self.ran: Callable[[], None] = lambda: None
        """called after each of its steps"""
        self.died: Callable[[], None] = lambda: None
        self._base = (loop.now_s, started_s)
        self.rate = rate
        self._held: list[asyncio.Handle] = []
        self._paused = False
        self._tasks: list[asyncio.Task[Any]] = []
        self._free_at: dict[Any, float] = {}
        self.jobs: dict[int, Job] = {}
        self._job_number = 0
        self.context = contextvars.copy_context()
        self.context.run(_current.set, self)

    # --- its clock -----------------------------------------------------------------------------------------------

    def clock(self) -> float:
        """Its monotonic clock, in seconds."""
        world, own = self._base
        return own + (self.loop.now_s - world) * self.rate

    def to_world(self, own_s: float) -> float:
        world, own = self._base
        return world + (own_s - own) / self.rate

    def set_rate(self, rate: float) -> None:
        self._base, self.rate = (self.loop.now_s, self.clock()), rate

    # --- its life ------------------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin a task in this process."""
        return self.loop.create_task(work, context=self.context)

    @property
    def paused(self) -> bool:
        return self._paused

    def pause(self) -> None:
        """As SIGSTOP does."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self.loop.make_ready(self._held)
        self._held = []

    def end(self) -> NoReturn:
        """The process ends in the middle of what it is doing."""
        self.die()
        raise ProcessEnded(self.name)

    def die(self) -> None:
        """From now on, nothing of it runs."""
        if self.alive:
            self.alive = False
            self._held = []
            self.died()

    def bury(self) -> None:
        """End its coroutines, so that Python does not do it at a time of its own choice."""
        for task in self._tasks:
            if task.done():
                _ = task.cancelled() or task.exception()  # whoever would have asked is dead
            else:
                waits_for = task._fut_waiter  # type: ignore[attr-defined]
                if waits_for is not None and waits_for.done():
                    _ = waits_for.cancelled() or waits_for.exception()  # it died before it could see that
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with suppress(RuntimeError, ProcessEnded):
                    task.get_coro().close()
        self._tasks = []

    # --- called by the loop --------------------------------------------------------------------------------------

    def made(self, task: asyncio.Task[Any]) -> None:
        self._tasks.append(task)

    def run(self, handle: asyncio.Handle) -> None:
        if not self.alive:
            return
        if self._paused:
            self._held.append(handle)
            return
        handle._run()
        if self.alive:
            self.ran()

    def work_in_thread(self, executor: Any, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """Done after a while; the jobs of one executor one after the other."""
        future: asyncio.Future[Any] = self.loop.create_future()
        begins = max(self.clock(), self._free_at.get(executor, 0.0))
        ends = begins + self._job_s()
        self._free_at[executor] = ends
        self._job_number += 1
        number = self._job_number
        self.jobs[number] = Job(work, future)
        self.loop.call_at(ends, self._end_job, number, context=self.context)
        return future

    def _job_s(self) -> float:
        rng = self.rng
        stall = 0.0
        if rng.random() < self.loop.stalls:
            self.loop.seen["disk: hung"] += 1
            stall = rng.uniform(0.05, 0.4)
            if stall > 0.37:
                stall *= 20  # a disk that hangs for longer than a leader may wait for it
        return rng.uniform(0.0001, 0.002) * self.slowness + stall

    def _end_job(self, number: int) -> None:
        job = self.jobs.pop(number)
        try:
            result = job.work()
        except ProcessEnded:
            return
        except BaseException as error:
            if not job.future.done():
                job.future.set_exception(error)
        else:
            if not job.future.done():
                job.future.set_result(result)


class VirtualLoop(asyncio.BaseEventLoop):
    """``now_s`` is the world's time; ``time()`` is that of the process that asks."""

    _ready: deque[asyncio.Handle]

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.steps = 0
        self.stalls = 0.005
        """part of the work in threads that hangs for a while"""
        self.seen: Counter[str] = Counter()
        """how often each kind of fault has come"""
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        """when, which one (timers of one instant go in the order in which they were made), what"""
        self._timer_number = 0
        self.failure: BaseException | None = None
        self.set_task_factory(self._make_task)
        self.set_exception_handler(self._failed)

    def time(self) -> float:
        process = _current.get()
        return self.now_s if process is None else process.clock()

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        process = _current.get()
        when_s = self.now_s + max(delay, 0.0) / (1.0 if process is None else process.rate)
        return self.call_at_world(when_s, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        process = _current.get()
        world = when if process is None else process.to_world(when)
        return self.call_at_world(max(world, self.now_s), callback, *args, context=context)

    def call_at_world(
        self, when_s: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """At a time of the world's clock."""
        timer = asyncio.TimerHandle(when_s, callback, args, self, context)
        self._timer_number += 1
        heapq.heappush(self._timers, (when_s, self._timer_number, timer))
        return timer

    def make_ready(self, handles: list[asyncio.Handle]) -> None:
        self._ready.extend(handles)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        return current_process().work_in_thread(executor, lambda: func(*args))

    def _make_task(self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
        context = options.get("context")
        process = _current.get() if context is None else context.get(_current)
        if process is not None:
            process.made(task)
        return task

    def _failed(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Nothing that goes wrong unseen is let go: the simulation ends with it."""
        error = context.get("exception")
        if not isinstance(error, ProcessEnded) and self.failure is None:
            self.failure = error or RuntimeError(context["message"])

    def _run_once(self) -> None:
        if not self._ready:
            self._let_time_pass()
        ready = self._ready
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            self.steps += 1
            process = handle._context.get(_current)  # type: ignore[attr-defined]
            if process is None:
                handle._run()
            else:
                process.run(handle)
            if self.failure is not None:
                self._stopping = True
                return

    def _let_time_pass(self) -> None:
        while self._timers:
            when_s, _, timer = heapq.heappop(self._timers)
            if not timer._cancelled:
                if when_s > self.now_s:
                    self.now_s = when_s
                self._ready.append(timer)
                return
        raise Stuck("no timer is left")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Left where it is until its time comes."""

    def _process_events(self, event_list: Any) -> None:
        """There are none: no sockets."""

    def _write_to_self(self) -> None:
        """There is nobody to wake: no threads."""
