# SPDX-License-Identifier: Apache-2.0
"""Every injected fault: a clear exception in time, nothing left allocated, the next run works."""

import time
from contextlib import contextmanager

import pytest

from nuq.board.driver import Accelerator
from nuq.board.errors import (
    AcceleratorTimeoutError,
    DesignError,
    MemoryShortageError,
    SelfTestError,
    StaleDataError,
)

TIMEOUT_S = 1.0
MARGIN_S = 0.5  # Python, loading the bitstream again

# Field of Faults, its value, the exception, its text; set before the accelerator is opened.
NO_ROOM = "^0.0 MB of contiguous memory must be free for fea"
AT_OPENING = [
    ("wrong_id", True, DesignError, "^the bitstream must be of engine .*, not deadbeef"),
    ("fail_allocation", 1, MemoryShortageError, NO_ROOM),
    ("corrupt", 1, StaleDataError, "^weights of layer conv3 must be in memory"),
    ("corrupt", 2, StaleDataError, "^words of layer conv3 must be in memory as in param"),
    ("corrupt", 3, StaleDataError, "^the input must be in memory as it was written"),
    ("lost_flush", True, StaleDataError, "^weights of layer conv1 must be in memory"),
    ("lost_invalidate", True, StaleDataError, "^the output of layer fc5 must be written"),
    ("hang_layer", 2, AcceleratorTimeoutError, "^the accelerator must finish conv3 within"),
    ("break_weights", True, StaleDataError, "^weights of layer fc5 must be in memory"),
]
# The same while it is in use.
IN_USE = [
    ("hang_layer", 0, AcceleratorTimeoutError, "^the accelerator must finish conv1 within"),
    ("hang_layer", 4, AcceleratorTimeoutError, "^the accelerator must finish fc5 within"),
    ("corrupt", 1, StaleDataError, "^the input must be in memory as it was written"),
    ("lost_flush", True, StaleDataError, "^the input must be in memory as it was written"),
    ("lost_invalidate", True, StaleDataError, "^the output of layer fc5 must be written"),
]


def clear(device, fault):
    setattr(device.faults, fault, type(getattr(device.faults, fault))())
    device.faults.hang_layer = None


def check_next_run(device, bundle, golden):
    assert device.live_buffers == 0
    with Accelerator(bundle) as board:
        assert (board.predict(golden["images"][:5]) == golden["logits"][:5]).all()


@contextmanager
def failing_in_time(device, bundle, golden, fault, value, kind, text):
    """The block fails because of a fault, in time and as it must; the next run works."""
    setattr(device.faults, fault, value)
    begin = time.monotonic()
    with pytest.raises(kind, match=text):
        yield
    assert time.monotonic() - begin < TIMEOUT_S + MARGIN_S
    clear(device, fault)
    check_next_run(device, bundle, golden)


@pytest.mark.parametrize("fault", AT_OPENING)
def test_fault_at_opening(bundle, golden, device, fault):
    with failing_in_time(device, bundle, golden, *fault):
        Accelerator(bundle, timeout_s=TIMEOUT_S)


@pytest.mark.parametrize("by_layer", [False, True])
@pytest.mark.parametrize("fault", IN_USE)
def test_fault_in_use(bundle, golden, device, fault, by_layer):
    """No `with` around it: the failed run itself frees the buffers."""
    board = Accelerator(bundle, timeout_s=TIMEOUT_S)
    board.predict(golden["images"][:2])
    with failing_in_time(device, bundle, golden, *fault):
        board.predict(golden["images"][2:4], by_layer)


def test_weights_that_change_in_use_are_found_by_the_self_test(bundle, golden, device):
    board = Accelerator(bundle)
    device.faults.break_weights = True
    board.predict(golden["images"][:1])
    with pytest.raises(StaleDataError, match="^weights of layer fc5 must be in memory"):
        board.self_test()
    check_next_run(device, bundle, golden)


def test_time_out_says_what_the_registers_said(bundle, golden, device):
    board = Accelerator(bundle, timeout_s=0.2)
    device.faults.hang_layer = 3
    with pytest.raises(AcceleratorTimeoutError, match="AP_DONE=0x0, AP_IDLE=0x0") as found:
        board.predict(golden["images"][:2])
    assert found.value.layer == "fc4"
    assert found.value.registers["first"] == found.value.registers["last"] == 3
    assert found.value.registers["images"] == 2


def test_a_hang_that_does_not_come_back_is_still_an_error(bundle, golden, device, monkeypatch):
    board = Accelerator(bundle, timeout_s=0.4)
    device.faults.hang_layer = 1
    load = board.overlay.download
    monkeypatch.setattr(
        board.overlay, "download", lambda: (setattr(device.faults, "hang_layer", None), load())
    )
    with pytest.raises(AcceleratorTimeoutError, match="repeated layer by layer, every layer fin"):
        board.predict(golden["images"][:2])
    check_next_run(device, bundle, golden)


def test_never_done_at_the_first_call(bundle, golden, device, monkeypatch):
    """A design without a clock: not even the ID can be read."""
    monkeypatch.setattr("nuq.board.driver.ID_TIMEOUT_S", 0.1)
    monkeypatch.setattr(device.fabric, "_finish", lambda *_: None)
    text = "^the accelerator must finish a call without"
    with pytest.raises(AcceleratorTimeoutError, match=text):
        Accelerator(bundle)
    monkeypatch.undo()
    check_next_run(device, bundle, golden)


def test_wrong_results_with_right_memory_blame_the_bitstream(bundle, golden, device, monkeypatch):
    finish = device.fabric._finish

    def flip_maps(*result) -> None:
        """Feature maps only, which are allocated first; before the host sees that it is done."""
        start = min(device.bank.taken, default=0)
        device.bank.data[start : start + 2048] ^= 1
        finish(*result)

    monkeypatch.setattr(device.fabric, "_finish", flip_maps)
    with pytest.raises(SelfTestError, match="^test image 0 must give the reference's logits"):
        Accelerator(bundle, batch=1)
    monkeypatch.undo()
    check_next_run(device, bundle, golden)


def test_bus_errors_hang_as_on_a_board(bundle, golden, device, caplog):
    with Accelerator(bundle, timeout_s=0.2) as board:
        address = board.buffers._arena.device_address
        board.buffers._arena.device_address = address + (1 << 20)
        try:
            with pytest.raises(AcceleratorTimeoutError):
                board.predict(golden["images"][:1])
        finally:
            device.bank.taken.clear()
    assert "bus error, the engine hangs: fm_in at" in caplog.text
    check_next_run(device, bundle, golden)
