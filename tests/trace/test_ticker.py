"""The thread behind the writer: started once, and never left waiting for what nobody sends any more."""

import threading

from moetui.trace.ticker import Ticker


def test_a_stop_at_any_moment_ends_the_thread():
    for _ in range(300):
        called = threading.Event()
        ticker = Ticker(called.set, 0.0)
        ticker.wind()
        thread = ticker._thread
        assert thread is not None
        stopper = threading.Thread(target=ticker.stop, daemon=True)
        stopper.start()
        stopper.join(10)
        assert not stopper.is_alive()
        assert not thread.is_alive()


def test_a_stop_between_the_wait_and_the_call_is_not_lost():
    ticker = Ticker(lambda: None, 0.0)
    clear = ticker._wound.clear

    def stop_just_before():
        ticker._stopped.set()
        ticker._wound.set()
        clear()

    ticker._wound.clear = stop_just_before
    ticker.wind()
    thread = ticker._thread
    assert thread is not None
    thread.join(10)
    assert not thread.is_alive()


def test_many_who_wind_at_once_start_one_thread():
    for _ in range(50):
        ticker = Ticker(lambda: None, 60.0)
        barrier = threading.Barrier(4)
        before = {thread for thread in threading.enumerate() if thread.name == "moetui-trace-flush"}

        def wind(ticker=ticker, barrier=barrier):
            barrier.wait()
            ticker.wind()

        winders = [threading.Thread(target=wind) for _ in range(4)]
        for winder in winders:
            winder.start()
        for winder in winders:
            winder.join()
        found = {thread for thread in threading.enumerate() if thread.name == "moetui-trace-flush"} - before
        ticker.stop()
        assert len(found) == 1


def test_the_time_until_a_call_can_be_changed():
    called = threading.Event()
    ticker = Ticker(called.set, 60.0)
    ticker.seconds = 0.0
    ticker.wind()
    assert called.wait(10)
    ticker.stop()
