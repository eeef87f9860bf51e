"""Stopping by signal: asked for, not torn down; and only where Python can hear it."""

from __future__ import annotations

import os
import signal
import threading

from kdfast.stop import StopRequest


def test_a_signal_is_remembered_and_its_handler_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_another_thread_signals_stay_as_they_are() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with StopRequest() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGTERM) is before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, True)]
