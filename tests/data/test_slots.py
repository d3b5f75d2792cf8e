"""What goes into shared memory comes out on the other side, and the memory is free again when nobody looks at it."""

import gc
import mmap
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from pocketclip.data.slots import Slot, open_memory

UNIT = mmap.ALLOCATIONGRANULARITY


@pytest.fixture
def pair():
    """Two views of one slot, as two processes have them."""
    memory = open_memory(2 * UNIT)
    yield tuple(Slot(memory, start=UNIT, num_bytes=UNIT) for _ in range(2))
    os.close(memory)


def test_arrays_arrive_without_a_copy_where_they_were_made_in_the_slot(pair):
    there, here = pair
    made = there.empty((3, 5, 7), np.uint8)
    made[:] = np.arange(105, dtype=np.uint8).reshape(3, 5, 7)
    parcel = there.pack({"pixels": made[:2], "rows": np.arange(6.0).reshape(2, 3), "keys": ("a", "b")})
    assert len(parcel.pickled) < 1000
    found = here.lend(parcel, returned=lambda: None)
    assert found["keys"] == ("a", "b")
    np.testing.assert_array_equal(found["pixels"], made[:2])
    np.testing.assert_array_equal(found["rows"], np.arange(6.0).reshape(2, 3))
    made[1] = 9  # the very memory
    assert (found["pixels"][1] == 9).all()


def test_a_copy_has_nothing_to_do_with_the_slot(pair):
    there, here = pair
    made = there.empty((4,), np.int64)
    made[:] = 5
    found = here.unpack(there.pack([made]))[0]
    made[:] = 6
    assert found.tolist() == [5] * 4
    found[:] = 7  # and may be written to
    assert made.tolist() == [6] * 4


def test_what_does_not_fit_goes_by_the_pipe(pair):
    there, here = pair
    large = there.empty((UNIT + 1,), np.uint8)
    large[:] = 3
    small = there.empty((UNIT - 100,), np.uint8)
    small[:] = 4
    more = np.full(200, 5, np.int16)
    found = here.unpack(there.pack((large, small, more)))
    for array, expected in zip(found, (large, small, more), strict=True):
        np.testing.assert_array_equal(array, expected)
    there.clear()
    assert there.empty((UNIT,), np.uint8).ctypes.data == small.ctypes.data


def test_a_slot_comes_back_when_the_last_array_is_gone(pair):
    there, here = pair
    made = there.empty((8,), np.float32)
    made[:] = 1
    back = threading.Event()
    found = here.lend(there.pack([made, np.ones(3)]), returned=back.set)
    part = found[0].reshape(2, 4)[1]
    del found
    gc.collect()
    assert not back.is_set()
    assert part.tolist() == [1] * 4
    del part
    gc.collect()
    assert back.is_set()


def test_memory_has_no_name_and_another_process_can_open_it():
    memory = open_memory(UNIT)
    slot = Slot(memory, start=0, num_bytes=UNIT)
    array = slot.empty((4,), np.uint8)
    code = f"import mmap; mmap.mmap({memory}, {UNIT})[:4] = b'abcd'"
    subprocess.run([sys.executable, "-c", code], pass_fds=(memory,), check=True)
    assert bytes(array) == b"abcd"
    os.close(memory)
