# Ctrl-C within a step: the first is a request, the second acts at once.
import signal
import threading

import pytest

from runtime.interrupts import deferred_interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_interrupt_only_sets_a_flag(number):
    before = signal.getsignal(number)
    with deferred_interrupt() as interrupt:
        assert not interrupt.requested
        signal.raise_signal(number)
        assert interrupt.requested
        assert signal.getsignal(number) == before  # a second one acts at once
    assert signal.getsignal(number) == before


@pytest.fixture
def python_s_own_ctrl_c():
    """Programs that a shell or a test runner starts in the background have SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_s_own_ctrl_c")
def test_a_second_ctrl_c_stops_at_once():
    with pytest.raises(KeyboardInterrupt), deferred_interrupt():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_handlers_return_after_an_error():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError), deferred_interrupt():
        raise RuntimeError
    assert signal.getsignal(signal.SIGINT) == before


def test_other_threads_run_without_handlers():
    requested = []

    def work():
        with deferred_interrupt() as interrupt:
            requested.append(interrupt.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert requested == [False]
