import numpy as np
import pytest

from fastgan.kernels.common.arrays import Workspace, aligned_empty


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (7, 13), (100, 1200)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_arrays_begin_with_a_line_of_the_cache(shape, dtype):
    array = aligned_empty(shape, dtype)
    assert array.shape == shape
    assert array.dtype == dtype
    assert array.ctypes.data % 64 == 0 or array.size == 0
    assert array.flags.c_contiguous
    assert array.flags.writeable


def test_a_workspace_gives_the_same_array_again():
    workspace = Workspace()
    first = workspace.array("dz", (3, 4), np.dtype(np.float32))
    assert workspace.array("dz", (3, 4), np.dtype(np.float32)) is first
    assert workspace.array("dz", (3, 4), np.dtype(np.float64)) is not first
