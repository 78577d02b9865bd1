"""What a velocity that is not finite does to the step's flag, for every operation that updates."""

import numpy as np

from fastgan.kernels import sgd
from fastgan.kernels.common import backends


def raised(backend):
    """Give what an update leaves in the flag: a GPU's a mark, which the next loss or the step's end makes the flag."""
    return sgd.MARK if backend in backends.ON_A_GPU else 1


def assert_marks(update, parameters, backend):
    """Hold an update to the flag: its velocities' first, middle and last element each raise it, and nothing else does.

    Parameters
    ----------
    update : callable
        ``update(W, b, vW, vb, skip=flag)`` updates on ``backend``, with gradients that are finite.
    parameters : (W, b, vW, vb)
        All finite.
    backend : str
    """
    flag = np.zeros(1, np.int64)
    update(*(array.copy() for array in parameters), skip=flag)
    assert flag[0] == 0
    for number in (2, 3):
        last = parameters[number].size - 1
        for place, bad in ((0, np.nan), (last // 2, np.inf), (last, -np.inf)):
            W, b, vW, vb = changed = [array.copy() for array in parameters]
            changed[number].reshape(-1)[place] = bad
            with np.errstate(invalid="ignore"):
                update(W, b, vW, vb, skip=flag)
            assert flag[0] == raised(backend), (number, place)
            assert not np.isfinite((vW, vb)[number - 2].reshape(-1)[place])
            # On the host b comes after W. A GPU's updates all go on until the mark has become the flag.
            again = [array.copy() for array in parameters]
            update(*again, skip=flag)
            unchanged = all((one == two).all() for one, two in zip(again, parameters, strict=True))
            assert unchanged == (backend not in backends.ON_A_GPU)
            flag[0] = 0
            # Without a flag there is nothing to raise.
            with np.errstate(invalid="ignore"):
                update(W, b, vW, vb, skip=None)
