"""Play and pause: one worker and no more, nothing left over, and an error that is seen."""

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import threading
import time

import pytest

from kdlab.live import player as module
from kdlab.live.player import Player

HANGS = 120.0  # seconds that nothing here takes, on the busiest machine


@pytest.fixture(autouse=True)
def nobody_plays(monkeypatch):
    """Each test begins without a player, and ends with its workers gone."""
    monkeypatch.setattr(Player, "playing_now", None)
    yield
    if Player.playing_now is not None:
        Player.playing_now._go.clear()
    deadline = time.monotonic() + HANGS
    while workers() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not workers(), "a worker outlived its player"


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("kdlab-play")]


async def until(fact, seconds=HANGS):
    """Let the loop turn until fact() holds."""
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, "it did not come to that"
        await asyncio.sleep(0.002)


class Steps:
    """A step of about `long` seconds that notices when another is under way; `most` of them."""

    def __init__(self, long=0.002, most=100_000):
        self.long, self.most, self.taken = long, most, 0
        self.inside, self.overlaps, self.threads, self.drawn = 0, 0, set(), []
        self.player = None

    def __call__(self):
        self.inside += 1
        self.overlaps += self.inside != 1
        self.threads.add(threading.current_thread())
        time.sleep(self.long)
        self.taken += 1
        self.inside -= 1
        return self.taken < self.most

    def draw(self, noted):
        self.drawn.append((noted, threading.current_thread()))

    def note(self):
        self.threads.add(threading.current_thread())
        return self.taken

    def play(self, chunk=0.02):
        self.player = Player(self, self.draw, self.note, chunk)
        self.player.play()
        return self.player


def played(scene):
    """Run a coroutine function to its end on a loop of its own."""

    async def limited():
        await asyncio.wait_for(scene(), 30)

    asyncio.run(limited())


def test_steps_are_taken_in_one_worker_and_drawn_on_the_main_thread():
    steps = Steps()

    async def scene():
        player = steps.play()
        assert player.state == "playing" and steps.taken == 0, "play returns at once"
        await until(lambda: len(steps.drawn) >= 4)
        assert len(workers()) == 1
        player.pause()
        await until(lambda: not workers())

    played(scene)
    assert threading.main_thread() not in steps.threads and len(steps.threads) == 1
    assert {thread for _, thread in steps.drawn} == {threading.main_thread()}
    noted = [taken for taken, _ in steps.drawn]
    assert noted == sorted(noted) and len(set(noted)) >= 4 and noted[-1] == steps.taken, "the last chunk is drawn too"
    assert steps.overlaps == 0


def test_the_loop_stays_free_while_it_plays():
    steps = Steps(long=0.6)

    async def scene():
        player = steps.play()
        await until(lambda: steps.inside)
        turns = 0
        while steps.inside and turns < 10_000:
            await asyncio.sleep(0)
            turns += 1
        assert turns > 20, "other cells waited for a step"
        player.pause()

    played(scene)


def test_pause_stops_after_the_step_under_way_and_leaves_no_thread():
    steps = Steps(long=0.25)

    async def scene():
        player = steps.play(chunk=25.0)  # the chunk alone would go on for seconds
        await until(lambda: steps.taken >= 2 and steps.inside)
        player.pause()
        at = steps.taken
        assert player.state == "paused"
        await until(lambda: not workers())
        assert steps.taken == at + 1
        await asyncio.sleep(0.5)
        assert steps.taken == at + 1 and player._task.done() and steps.drawn[-1][0] == at + 1

    played(scene)


@pytest.mark.parametrize("wait", [0.0, 0.01])
def test_pause_and_play_within_a_chunk_go_on_with_one_worker(wait):
    steps = Steps()

    async def scene():
        player = steps.play(chunk=0.1)
        await until(lambda: steps.taken > 3)
        for _ in range(20):
            player.pause()
            await asyncio.sleep(wait)
            player.play()
            await asyncio.sleep(wait)
        at = steps.taken
        await until(lambda: steps.taken > at + 20)
        assert player.state == "playing" and len(workers()) == 1
        player.pause()
        await until(lambda: not workers())

    played(scene)
    assert steps.overlaps == 0


def test_buttons_pressed_in_many_threads_leave_one_worker_and_the_last_word():
    steps = Steps(long=0.0005)

    async def scene():
        player = steps.play()

        def press(seed):
            for i in range(150):
                (player.play if (i * seed) % 3 else player.pause)()
                time.sleep(0.0003)

        hands = [threading.Thread(target=press, args=(seed,)) for seed in (1, 2, 4)]
        for hand in hands:
            hand.start()
        await until(lambda: not any(hand.is_alive() for hand in hands))
        player.play()
        at = steps.taken
        await until(lambda: steps.taken > at + 5)
        player.pause()
        await until(lambda: not workers())
        at = steps.taken
        await asyncio.sleep(0.05)
        assert steps.taken == at and player.state == "paused"

    played(scene)
    assert steps.overlaps == 0


def test_play_twice_is_play_once():
    steps = Steps()

    async def scene():
        player = steps.play()
        for _ in range(5):
            player.play()
        await until(lambda: steps.taken > 10)
        assert len(workers()) == 1
        player.pause()

    played(scene)
    assert steps.overlaps == 0


def test_it_ends_when_there_are_no_more_steps_and_draws_the_last():
    steps = Steps(most=25)

    async def scene():
        player = steps.play()
        await until(lambda: not workers() and player.state != "playing")
        assert player.state == "ended" and player.error is None
        await asyncio.sleep(0.05)

    played(scene)
    assert steps.taken == 25 and steps.drawn[-1][0] == 25


def test_a_second_player_pauses_the_first():
    first, second = Steps(), Steps()

    async def scene():
        one = first.play()
        await until(lambda: first.taken > 3)
        two = second.play()  # made: the first is paused already
        assert one.state == "paused" and two.state == "playing"
        await until(lambda: second.taken > 5)
        at = first.taken
        await until(lambda: second.taken > 15)
        assert first.taken == at
        one.play()
        assert two.state == "paused"
        await until(lambda: first.taken > at + 5)
        one.pause()

    played(scene)


# ---- between steps


def test_nothing_runs_between_steps_which_nest_and_it_goes_on_after():
    steps = Steps()

    async def scene():
        player = steps.play(chunk=0.1)
        await until(lambda: steps.taken > 3)
        for _ in range(5):
            with player.between_steps():
                assert steps.inside == 0
                at = steps.taken
                with player.between_steps():
                    time.sleep(0.03)
                time.sleep(0.03)  # the inner block's end must not let it go on
                assert steps.taken == at and player.state == "playing"
            await until(lambda at=at: steps.taken > at + 3)
        player.pause()

    played(scene)
    assert steps.overlaps == 0


def test_it_goes_on_after_an_exception_between_steps():
    steps = Steps()

    async def scene():
        player = steps.play()
        await until(lambda: steps.taken > 3)
        with pytest.raises(ZeroDivisionError), player.between_steps():
            at = steps.taken
            raise ZeroDivisionError
        await until(lambda: steps.taken > at + 10)
        player.pause()

    played(scene)


def test_a_pause_between_steps_holds_and_a_paused_player_stays_so():
    steps = Steps()

    async def scene():
        player = steps.play()
        await until(lambda: steps.taken > 3)
        with player.between_steps():
            hand = threading.Thread(target=player.pause)  # another thread: a button's callback
            hand.start()
            hand.join(HANGS)
            assert not hand.is_alive(), "pause waits for nothing"
        await until(lambda: not workers())
        at = steps.taken
        with player.between_steps():
            pass
        await asyncio.sleep(0.05)
        assert steps.taken == at and player.state == "paused"

    played(scene)


def test_a_play_pressed_between_steps_waits_for_the_block_to_end():
    steps = Steps()

    async def scene():
        player = steps.play()
        player.pause()
        await until(lambda: not workers())
        with player.between_steps():
            at = steps.taken
            player.play()
            time.sleep(0.03)
            assert steps.taken == at
        await until(lambda: steps.taken > at + 3)
        player.pause()

    played(scene)


def test_steps_taken_here_while_it_plays_wait_for_the_worker():
    steps = Steps(long=0.005)

    async def scene():
        player = steps.play(chunk=0.1)
        await until(lambda: steps.taken > 3)
        player.run(10)
        player.pause()
        await until(lambda: not workers())

    played(scene)
    assert steps.overlaps == 0


# ---- what goes wrong


@pytest.fixture
def users_own(tmp_path):
    """A file of the user's, as a notebook's cell would be, whose objective breaks."""
    file = tmp_path / "cell.py"
    file.write_text("def objective(n):\n    if n == 3:\n        return 1 / 0  # the user's own line\n    return n\n")
    spec = importlib.util.spec_from_file_location("cell", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_error_in_a_step_is_kept_shown_and_told_with_the_users_own_line(users_own):
    steps = Steps()

    def step():
        users_own.objective(steps.taken)
        return steps()

    async def scene():
        player = Player(step, steps.draw, steps.note)
        player.play()
        await until(lambda: player.state != "playing" and not workers())
        assert player.state == "error" and isinstance(player.error, ZeroDivisionError)
        assert module.describe_error(player.error) == (
            "ZeroDivisionError: division by zero\nline 3: return 1 / 0  # the user's own line"
        )
        assert steps.taken == 3 and steps.drawn[-1] == (None, threading.main_thread())
        await asyncio.sleep(0.05)
        assert steps.taken == 3, "it goes on silently"
        player.pause()
        assert player.state == "error"
        steps.taken = 4  # the user mended it
        player.play()
        assert player.error is None
        await until(lambda: steps.taken > 8)
        assert player.state == "playing"
        player.pause()

    played(scene)


@pytest.mark.parametrize("where", ["note", "draw"])
def test_an_error_in_noting_or_drawing_stops_it_too(where):
    steps = Steps()

    def broken(*noted):
        if noted != (None,) and steps.taken > 5:
            raise KeyError(where)
        return steps.drawn.append(noted)

    async def scene():
        parts = {"draw": steps.draw, "note": steps.note} | {where: broken}
        player = Player(steps, chunk=0.01, **parts)
        player.play()
        await until(lambda: player.state == "error" and not workers())
        assert isinstance(player.error, KeyError)
        at = steps.taken
        await asyncio.sleep(0.05)
        assert steps.taken == at

    played(scene)


def test_told_names_the_users_call_and_not_the_library_inside_it():
    assert module.describe_error(ValueError("never raised")) == "ValueError: never raised"
    with pytest.raises(ValueError) as caught:
        json.loads("{")
    said = module.describe_error(caught.value)
    assert said.startswith("JSONDecodeError: ") and said.endswith('json.loads("{")')


def test_told_names_the_users_call_and_not_the_frozen_library_inside_it():
    with pytest.raises(AttributeError) as caught:
        importlib.util.module_from_spec(None)
    assert module.describe_error(caught.value).endswith("importlib.util.module_from_spec(None)")


def test_a_page_not_seen_for_long_pauses_and_a_page_seen_does_not():
    steps = Steps()

    async def scene():
        player = steps.play()
        player.seen = time.monotonic()
        await until(lambda: len(steps.drawn) > 3)
        assert player.state == "playing"
        player.seen = time.monotonic() - module.UNSEEN - 1
        await until(lambda: not workers())
        assert player.state == "paused: no page shows this any more"
        at = steps.taken
        await asyncio.sleep(0.05)
        assert steps.taken == at
        player.seen = time.monotonic()
        player.play()
        await until(lambda: steps.taken > at + 3)
        player.pause()

    played(scene)


# ---- the interrupt button


@contextlib.contextmanager
def interrupts(handler):
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signal that a process sends itself")
def test_an_interrupt_between_cells_pauses_and_the_handler_is_put_back():
    steps = Steps()

    async def scene():
        with interrupts(signal.SIG_IGN):  # as ipykernel leaves it between cells
            player = steps.play()
            await until(lambda: steps.taken > 3)
            os.kill(os.getpid(), signal.SIGINT)
            await until(lambda: not workers())
            assert player.state == "paused"
            await until(player._task.done)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN

    played(scene)


def test_a_cells_own_interrupt_is_left_to_the_cell():
    steps = Steps()

    def cells(*_):
        raise AssertionError("never called")

    async def scene():
        with interrupts(cells):
            player = steps.play()
            await until(lambda: steps.taken > 3)
            assert signal.getsignal(signal.SIGINT) is cells
            player.pause()
            await until(player._task.done)
            assert signal.getsignal(signal.SIGINT) is cells

    played(scene)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signal that a process sends itself")
def test_an_interrupt_pauses_the_one_that_plays_though_another_ended_during_a_cell():
    first, second = Steps(), Steps()

    async def scene():
        with interrupts(signal.SIG_IGN):
            one = first.play()
            await until(lambda: first.taken > 3)
            ours = signal.signal(signal.SIGINT, signal.default_int_handler)  # ipykernel, as a cell begins
            one.pause()
            await until(one._task.done)
            signal.signal(signal.SIGINT, ours)  # ipykernel, as the cell ends
            two = second.play()
            await until(lambda: second.taken > 3)
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.05)
            state = two.state
            two.pause()
            await until(lambda: not workers())
        assert state == "paused"

    played(scene)


# ---- without a loop


def test_run_takes_n_steps_here_and_draws_once():
    steps = Steps(long=0, most=12)
    player = Player(steps, steps.draw, steps.note)
    player.run(5)
    here = threading.current_thread()
    assert steps.taken == 5 and steps.drawn == [(5, here)] and steps.threads == {here}
    assert player.state == "paused"
    player.run(100)
    assert steps.taken == 12 and player.state == "ended" and steps.drawn[-1] == (12, here)


def test_run_raises_what_a_step_raises():
    steps = Steps(long=0)
    with pytest.raises(ZeroDivisionError):
        Player(lambda: 1 / 0, steps.draw).run(3)


def test_play_without_a_loop_says_what_to_do():
    player = Player(lambda: True, print)
    with pytest.raises(RuntimeError, match=r"no running loop to play on.*use run\(n\)"):
        player.play()
    assert player.state == "paused" and Player.playing_now is None and not workers()


def test_what_is_wanted_on_the_loop_is_done_there_or_at_once_where_there_is_none():
    done = []
    Player(lambda: True, print).on_loop(lambda: done.append("now"))
    assert done == ["now"]

    async def scene():
        player = Player(lambda: True, print)
        hand = threading.Thread(target=player.on_loop, args=(lambda: done.append(threading.current_thread()),))
        hand.start()
        hand.join()
        assert len(done) == 1
        await until(lambda: len(done) == 2)

    played(scene)
    assert done[1] is threading.main_thread()
