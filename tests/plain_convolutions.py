"""The convolutional layers as plainly as their formulas, in float64, for ``tests/plain.py``."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def forward(x, W, b, config):
    """Give the pooled output (B, U, H, W), and what ``backward`` needs."""
    pad, K, P, size, stride = config.pad, config.kernel_size, config.num_pieces, config.pool_size, config.pool_stride
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    patches = sliding_window_view(padded, (K, K), axis=(2, 3))
    z = np.einsum("bchwkl,cklo->bohw", patches, W, optimize=True) + b[:, None, None]
    z = z.reshape(len(x), -1, P, *z.shape[2:])
    y = z.max(2)
    # Over the edge the image goes on with -infinity.
    num_windows = [int(np.ceil((n - size) / stride)) + 1 for n in y.shape[2:]]
    more = [(n - 1) * stride + size - have for n, have in zip(num_windows, y.shape[2:], strict=True)]
    wide = np.pad(y, ((0, 0), (0, 0), (0, more[0]), (0, more[1])), constant_values=-np.inf)
    windows = sliding_window_view(wide, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]
    windows = windows.reshape(*windows.shape[:4], -1)
    return windows.max(-1), (patches, padded.shape, z.argmax(2), wide.shape, windows.argmax(-1))


def backward(dy, kept, W, config):
    """Give dW, db and the rows dx for the pooled output's gradient, in rows or images."""
    patches, padded_shape, pieces, wide_shape, places = kept
    pad, K, P, size, stride = config.pad, config.kernel_size, config.num_pieces, config.pool_size, config.pool_stride
    dwide = np.zeros(wide_shape)
    n, u, i, j = np.indices(places.shape)
    np.add.at(dwide, (n, u, i * stride + places // size, j * stride + places % size), dy.reshape(places.shape))
    dunpooled = dwide[:, :, : pieces.shape[2], : pieces.shape[3]]
    dz = dunpooled[:, :, None] * (np.arange(P)[:, None, None] == pieces[:, :, None])
    dz = dz.reshape(len(dz), -1, *pieces.shape[2:])
    dpadded = np.zeros(padded_shape)
    for k in range(K):
        for l in range(K):
            here = dpadded[:, :, k : k + dz.shape[2], l : l + dz.shape[3]]
            here += np.einsum("bohw,co->bchw", dz, W[:, k, l], optimize=True)
    inside = dpadded[:, :, pad : dpadded.shape[2] - pad, pad : dpadded.shape[3] - pad]
    dW = np.einsum("bchwkl,bohw->cklo", patches, dz, optimize=True)
    return dW, dz.sum((0, 2, 3)), inside.reshape(len(dy), -1)


def _side(x, config):
    return round((x.shape[1] / config.input_channels) ** 0.5)


def put(x, W, config):
    """Give the rows of the transposed convolution, without its bias."""
    h, K, stride = _side(x, config), config.kernel_size, config.stride
    images = x.reshape(len(x), -1, h, h)
    y = np.zeros((len(x), config.num_channels, stride * (h - 1) + K, stride * (h - 1) + K))
    for i in range(h):
        for j in range(h):
            here = y[:, :, i * stride : i * stride + K, j * stride : j * stride + K]
            here += np.einsum("bc,cokl->bokl", images[:, :, i, j], W, optimize=True)
    return y.reshape(len(x), -1)


def put_back(dy, x, W, config):
    """Give dW and the rows dx."""
    h, K, stride = _side(x, config), config.kernel_size, config.stride
    side = stride * (h - 1) + K
    images, dimages = x.reshape(len(x), -1, h, h), dy.reshape(len(dy), -1, side, side)
    dW, dx = np.zeros_like(W), np.zeros_like(images)
    for i in range(h):
        for j in range(h):
            here = dimages[:, :, i * stride : i * stride + K, j * stride : j * stride + K]
            dW += np.einsum("bc,bokl->cokl", images[:, :, i, j], here, optimize=True)
            dx[:, :, i, j] = np.einsum("bokl,cokl->bc", here, W, optimize=True)
    return dW, dx.reshape(len(dy), -1)
