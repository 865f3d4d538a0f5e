"""Work in a thread while the kernel stays free: play and pause at any moment, from any thread, with nothing left over.

A cell that shows a panel returns at once. The steps are taken in a worker thread, a chunk of some milliseconds at a
time; everything that touches widgets happens on the kernel's main loop. Callbacks of sliders and buttons may run in
any thread (ipykernel 7 runs them in subshells), so they only set flags, and hand what they want done to that loop.
"""

import asyncio
import contextlib
import linecache
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kdlab.place import PACKAGE

UNSEEN = 90.0  # seconds; a browser lets a hidden page's timers run once a minute


class Player:
    """Calls step() again and again in a worker thread, and draw() on the main loop after each chunk of steps.

    step: takes one step; returns False when there are no more. draw: shows what is new; it runs while the next chunk
    is under way, and so reads only what `note` put aside.
    note: runs in the worker after each chunk; what it returns is given to draw.

    Made where no loop runs (a script, a test), it does all in the caller's thread: `run(n)`.
    """

    playing_now: "Player | None" = None  # one a process: two would halve each other's speed, unseen

    def __init__(
        self,
        step: Callable[[], bool],
        draw: Callable[[Any], None],
        note: Callable[[], Any] = lambda: None,
        chunk: float = 0.15,
    ):
        self._step, self._draw, self._note, self.chunk = step, draw, note, chunk
        self.error: Exception | None = None
        self.state = "paused"  # playing, paused, ended, error
        self.seen: float | None = None  # when a page last said that it shows this; None: no page ever did
        self._go, self._between = threading.Event(), threading.RLock()
        self._task: asyncio.Task | None = None
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None
        if Player.playing_now is not None:
            Player.playing_now.pause()  # the cell was run again, or another panel opened

    def play(self) -> None:
        """Go on. Returns at once."""
        if self._loop is None:
            raise RuntimeError("there is no running loop to play on, as a notebook's kernel has; use run(n)")
        if Player.playing_now is not None and Player.playing_now is not self:
            Player.playing_now.pause()
        Player.playing_now, self.state, self.error = self, "playing", None
        self._go.set()
        self._loop.call_soon_threadsafe(self._ensure)

    def pause(self, state: str = "paused") -> None:
        """Stop after the step under way. Returns at once; nothing runs on once that step is done."""
        self._go.clear()
        if self.state == "playing":
            self.state = state

    def run(self, n: int) -> None:
        """Take n steps here and now; an error is raised. Where there is a main loop: on it only."""
        self.forget()
        with self.between_steps():
            for _ in range(n):
                if not self._step():
                    self.state = "ended"
                    break
            self._draw(self._note())

    def forget(self) -> None:
        """Forget an error, or an end, that need not hold any more."""
        if self.state != "playing":
            self.state, self.error = "paused", None

    def on_loop(self, action: Callable[[], None]) -> None:
        """Do `action` on the main loop, soon; here and now where there is none."""
        if self._loop is None:
            action()
        else:
            self._loop.call_soon_threadsafe(action)

    @contextlib.contextmanager
    def between_steps(self) -> Iterator[None]:
        """On the main loop only: no step is under way inside the block, and playing goes on after it. Nests."""
        going = self._go.is_set()
        self._go.clear()  # ends the chunk under way after its step; the next is handed out by this same loop
        try:
            with self._between:
                yield
        finally:
            if going and self.state == "playing":
                self._go.set()
                self._ensure()

    def _ensure(self) -> None:
        """Have one task, and one only, that plays. It ends without waiting once it has seen the flag down, so that a
        play that comes at that very moment finds it either still looking or done."""
        if self._loop is not None and self._go.is_set() and (self._task is None or self._task.done()):
            self._task = self._loop.create_task(self._play())

    async def _play(self) -> None:
        pool = ThreadPoolExecutor(1, thread_name_prefix="kdlab-play")
        with _interrupts_pause():
            try:
                under_way = self._loop.run_in_executor(pool, self._chunk)
                while True:
                    noted = await under_way
                    going = self._go.is_set()
                    if going:
                        under_way = self._loop.run_in_executor(pool, self._chunk)  # it trains while we draw
                    self._draw(noted)
                    if not going:
                        break
                    if self.seen is not None and time.monotonic() - self.seen > UNSEEN:
                        self.pause("paused: no page shows this any more")
            except Exception as error:  # of the objective, or of drawing: shown, and nothing goes on silently
                self._go.clear()
                self.error, self.state = error, "error"
                self._draw(None)
            finally:
                pool.shutdown(wait=False)
        if self._go.is_set():  # a play that came while we were leaving
            self._loop.call_soon(self._ensure)

    def _chunk(self) -> Any:
        """In the worker: steps for `chunk` seconds, or until the flag falls."""
        with self._between:
            end = time.perf_counter() + self.chunk
            while self._go.is_set() and time.perf_counter() < end:
                if not self._step():
                    self.pause("ended")
            return self._note()


@contextlib.contextmanager
def _interrupts_pause() -> Iterator[None]:
    """Inside the block the notebook's interrupt button pauses what plays also while no cell runs.

    ipykernel ignores the signal between cells; only there do we listen, so that a cell's own interrupt is a cell's.
    """
    with contextlib.suppress(ValueError):  # not the main thread
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, _pause_what_plays)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _pause_what_plays:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _pause_what_plays(*_) -> None:
    if Player.playing_now is not None:
        Player.playing_now.pause()


def describe_error(error: BaseException) -> str:
    """An error in two lines: what it says, and the line of the user's own code that it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _library(frame.filename)]
    where = f"\nline {own[-1].lineno}: {linecache.getline(own[-1].filename, own[-1].lineno).strip()}" if own else ""
    return f"{type(error).__name__}: {error}{where}"


def _library(filename: str) -> bool:
    path = Path(filename)
    inside = {"site-packages", "lib"} & set(path.parts)
    return filename.startswith("<frozen") or bool(inside) or PACKAGE in path.parents
