"""The thread that turns what the hooks saw into steps, and hands them on in order."""

from __future__ import annotations

import atexit
import functools
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import thread_time_ns

import torch
from torch import Tensor

from moetui.engine.assemble import Assembler
from moetui.engine.extras import Extras
from moetui.engine.gather import Gathered, Gatherer, each_tensor
from moetui.engine.glance import Glance
from moetui.engine.one_thread import work_alone
from moetui.engine.predict import Predictor, join_predictions
from moetui.engine.raw import RawStep
from moetui.engine.study import Study
from moetui.engine.transfer import Transfer
from moetui.engine.uninterrupted import uninterrupted
from moetui.routing.steps import Steps

_RUN = 160  # passes worked out together at most
_AT_EXIT = 2.0  # seconds that the interpreter's end waits for what is queued
_GONE = torch.empty(0)


class Recorder:
    """Owns a daemon thread; ``put`` is called in the generating thread, every callable given here in its own.

    A bounded queue lies between the two: only when the recorder is that many steps behind does ``put`` wait. Who needs
    a pass's steps before going on calls ``record`` instead, which works in the calling thread: to hand it over and wait
    for it would take longer.

    Args:
        gatherer, predictor, assembler: the parts of the work; without a predictor there are no predictions.
        study: looks at each pass before its steps are handed on.
        extras: takes what its hooks noted.
        on_steps: called with the steps of each pass, or of several alike ones.
        on_error: called with the pass's number and what went wrong with it.
        queue_size: steps that may wait.
        hosted: there is nothing but the host for tensors to lie on, so that no pass is looked through for others.
        linger: seconds that a pass may wait for those after it: worked out together they cost a fraction.

    Attributes:
        linger: may be changed at any time.
        work_ns: processor time that the thread has spent on passes so far, nanoseconds.
    """

    def __init__(
        self,
        gatherer: Gatherer,
        predictor: Predictor | None,
        assembler: Assembler,
        study: Study,
        extras: Extras,
        on_steps: Callable[[Steps], None],
        on_error: Callable[[int, Exception], None],
        queue_size: int = 256,
        hosted: bool = False,
        linger: float = 0.0,
    ) -> None:
        self._gatherer, self._predictor, self._assembler = gatherer, predictor, assembler
        self._study, self._extras, self._on_steps, self._on_error = study, extras, on_steps, on_error
        self._hosted = hosted
        self._size, self._room = queue_size, threading.Condition()
        self._queue: deque[RawStep] = deque()  # put, and not handed on yet
        self._flushes: deque[threading.Event] = deque()
        self._asleep = self._closed = False
        self._wake, self._hurry = threading.Event(), threading.Event()
        self._working = threading.Lock()
        self._worker = 0  # the thread that holds it
        self._spent: deque[RawStep] = deque(maxlen=2 * _RUN)
        self.work_ns = 0
        self._enough = min(_RUN, queue_size) - 1  # with the one that comes
        self.linger = linger
        # Neither the thread nor the interpreter's end holds what was dropped, and with it the model.
        me = weakref.ref(self)
        self._thread = threading.Thread(target=_work, args=(me, self._wake), name="moetui-recorder", daemon=True)
        self._thread.start()
        weakref.finalize(self, self._wake.set).atexit = False
        self._at_exit = functools.partial(_close, me)
        atexit.register(self._at_exit)

    def put(self, raw: RawStep) -> None:
        """Take a finished pass. Off the host, or with a graph attached, it is gathered here and now."""
        spent = self._spent
        if spent:
            # Small tensors are freed where they were made: what another thread freed costs this one several times more.
            try:  # noqa: SIM105 - which would cost a call
                spent.popleft()
            except IndexError:  # another thread took the last
                pass
        if torch.is_grad_enabled() or not (self._hosted or raw.on_host):
            self._send(raw)
        if len(self._queue) >= self._enough:
            self._catch_up()
        self._queue.append(raw)
        if self._asleep:
            self._wake.set()

    def record(self, raw: RawStep) -> None:
        """Take a finished pass, and hand its steps on before returning; those put before come first.

        The main thread works through an interrupt from the keyboard: half a step would spoil what comes after it.
        """
        if torch.is_grad_enabled() or not (self._hosted or raw.on_host):
            self._send(raw)
        self.flush()
        with uninterrupted(), self._at_work(), torch.no_grad():
            self._record_safely([raw])

    def glance(self, raw: RawStep) -> Glance:
        """A look at a finished pass that is neither put nor recorded yet."""
        return Glance(raw, self._gatherer, self._assembler)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was put before is handed on; False if it took longer than ``timeout`` seconds."""
        if not self._thread.is_alive() or self._worker == threading.get_ident():
            return True
        if not self._queue and self._working.acquire(blocking=False):
            self._working.release()
            return True
        done = threading.Event()
        self._flushes.append(done)
        self._rouse()
        return done.wait(timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Hand on all that was put and end the thread; False if it took longer than ``timeout`` seconds."""
        self._closed = True
        self._rouse()
        if self._worker != threading.get_ident():
            self._thread.join(timeout)
        ended = not self._thread.is_alive()
        if ended:  # else the interpreter's end waits for it: a thread that torch holds then aborts the process
            atexit.unregister(self._at_exit)
        return ended

    def _catch_up(self) -> None:
        self._hurry.set()
        with self._room:
            self._room.wait_for(lambda: len(self._queue) < self._size)

    def _rouse(self) -> None:
        self._hurry.set()
        self._wake.set()

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        with self._working:
            self._worker = threading.get_ident()
            try:
                yield
            finally:
                self._worker = 0

    @torch.no_grad()
    def _send(self, raw: RawStep) -> None:
        """Gather a pass in the generating thread and start its way to the host."""
        gathered = self._gatherer.gather(raw)
        if self._predictor is not None:
            gathered.prediction = self._predictor.predict(raw)
        tensors: list[Tensor] = []

        def take(tensor: Tensor) -> Tensor:
            tensors.append(tensor.detach())
            return _GONE

        # The device's memory, and the graph, must not wait for the recorder.
        each_tensor(gathered, take)
        raw.release()
        raw.sent = gathered, Transfer(tensors)

    def idle(self) -> bool:
        """Whether nothing is there to do; ``put`` then says when something is."""
        self._asleep = True
        if self._queue or self._flushes or self._closed:
            self._asleep = False
        return self._asleep

    def turn(self) -> bool:
        """Record what was put, and tell those who wait for that; False when it was the last time.

        A function of its own, so that nothing holds on to these passes until the next ones come.
        """
        self._hurry.wait(self.linger)
        self._hurry.clear()
        last, flushes = self._closed, list(self._flushes)  # before the passes: these have all that was put before
        began = thread_time_ns()
        with self._at_work():
            for run in _runs(list(self._queue), alone=self._study.open):
                self._record_safely(run)
                self._done(run)
        self.work_ns += thread_time_ns() - began
        for flush in flushes:
            self._flushes.popleft()
            flush.set()
        return not last

    def _done(self, run: list[RawStep]) -> None:
        for raw in run:
            raw.logits = None
        if len(run) > 1:  # one token each
            self._spent.extend(run)
        with self._room:
            for _ in run:
                self._queue.popleft()
            self._room.notify_all()

    def _record_safely(self, run: list[RawStep]) -> None:
        try:
            self._record(run)
        except Exception as error:  # noqa: BLE001 - one bad step must not silence those after it
            self._on_error(run[0].index, error)

    def _record(self, raws: list[RawStep]) -> None:
        sent = raws[0].sent is not None
        columns = self._gatherer.columns(raws) if len(raws) > 1 and not sent else None
        if columns is not None:
            prediction = None if self._predictor is None else self._predictor.predict_run(raws)
            self._hand_on(raws, [self._assembler.alike_steps(raws, columns, prediction)])
            return
        passes = [self._arrived(raw) for raw in raws]
        prediction = None
        if sent:
            prediction = join_predictions([gathered.prediction for gathered in passes])
        elif self._predictor is not None:
            prediction = self._predictor.predict_run(raws)
        if self._study.open:
            self._study(passes[0])
        self._hand_on(raws, list(self._assembler.steps(passes, prediction)))

    def _hand_on(self, raws: list[RawStep], stacks: list[Steps]) -> None:
        for number, raw in enumerate(raws):
            if raw.extras:
                self._extras.take(raw, {steps.stack: steps.pad.reshape(len(raws), -1)[number] for steps in stacks})
        for steps in stacks:
            self._on_steps(steps)

    def _arrived(self, raw: RawStep) -> Gathered:
        if raw.sent is None:
            return self._gatherer.gather(raw)
        gathered: Gathered
        gathered, transfer = raw.sent
        raw.sent = None  # these two refer to each other
        arrived = iter(transfer.arrived())
        each_tensor(gathered, lambda _: next(arrived))
        return gathered


def _work(recorder: weakref.ref[Recorder], wake: threading.Event) -> None:
    """The thread: it ends with its recorder, which it does not hold while it waits."""
    torch.set_grad_enabled(False)  # of this thread alone
    work_alone()
    while True:
        held = recorder()
        if held is None:
            return
        if not held.idle():
            if not held.turn():
                return
            continue
        del held
        wake.wait()
        wake.clear()


def _close(recorder: weakref.ref[Recorder]) -> None:
    held = recorder()
    if held is not None:
        held.close(_AT_EXIT)


def _runs(raws: list[RawStep], *, alone: bool) -> Iterator[list[RawStep]]:
    """Consecutive passes that can be worked out together."""
    run: list[RawStep] = []
    key: object = None
    for raw in raws:
        here = None if alone else _key(raw)
        if run and (here is None or here != key):
            yield run
            run = []
        run.append(raw)
        key = here
    if run:
        yield run


def _key(raw: RawStep) -> object:
    """What passes that can be worked out together share; None for a pass that stands alone.

    They add one token to each sequence of the one decoder, at the same sites, and the same sites' routing was changed.
    """
    inputs = raw.inputs.get("decoder")
    if inputs is None or len(raw.inputs) != 1 or inputs.shape is None or inputs.shape[1] != 1:
        return None
    if raw.probes or isinstance(inputs.past, Tensor) or inputs.past == 0:
        return None
    if raw.earlier:
        return None
    times = raw.times
    numbers = [number for number, time in enumerate(times) if time] if 0 in times else None
    changed = [(number, getattr(raw.routing(number)[0], "shape", None)) for number in raw.before]
    return raw.sent is None, inputs.shape, inputs.ids is None, numbers, changed
