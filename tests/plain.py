"""The training step once more, as plainly as the paper and the recipe say it, in float64, to hold the trainer against.

Nothing is shared with the trainer but the randomness: two backward passes, real gradients of the logits, no buffers.
"""

import numpy as np

from fastgan.kernels import dropout, gather, noise
from fastgan.kernels.common.philox import Purpose, stream_id
from fastgan.kernels.dropout import Dropout
from tests import plain_convolutions


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


class PlainTraining:
    """Parameters as lists of [W, b, vW, vb], changed by ``step``."""

    def __init__(self, config, dataset, generator, discriminator):
        self.config = config
        self.image_shape = dataset.image_shape
        split = dataset.splits["train"]
        self.data = split.pixels / split.divisor if split.contrast is None else split.as_float32().astype(np.float64)
        self.G = [[a.astype(np.float64) for a in layer] for layer in generator]
        self.D = [[a.astype(np.float64) for a in layer] for layer in discriminator]
        self.t = 0
        # Of D's loss, G's loss, D(x) and D(G(z)), over the updates that they are of.
        self.sums = np.zeros(4)

    def step(self):
        c, B, k = self.config, self.config.batch_size, self.config.d_steps
        steps_per_epoch = len(self.data) // (k * B)
        epoch, iteration = self.t // steps_per_epoch + 1, self.t % steps_per_epoch
        self.rate = max(c.learning_rate / c.learning_rate_decay**self.t, c.min_learning_rate)
        ramp = min(1.0, (epoch - 1) / (c.momentum_epochs - 1))
        self.momentum = c.momentum + (c.final_momentum - c.momentum) * ramp
        for j in range(k):
            start = (iteration * k + j) * B
            rows = gather.order(len(self.data), seed=c.seed, epoch=epoch, start=start, count=B, backend="reference")
            D_gradients, G_gradients = self.gradients(self.data[rows], j)
            if c.update == "simultaneous":
                self.descend(self.G, c.generator, G_gradients)
            self.descend(self.D, c.discriminator, D_gradients)
        if c.update == "alternating":
            self.descend(self.G, c.generator, self.gradients(None, k)[1])
        self.t += 1

    def gradients(self, real, substep):
        """Give D's gradients (None without real rows) and G's, with the noise and the masks of a sub-step."""
        c, B = self.config, self.config.batch_size
        z = np.empty((B, c.noise_dim))
        shared = {"seed": c.seed, "stream": stream_id(Purpose.NOISE, substep=substep), "step": self.t}
        if c.noise == "normal":
            noise.normal(z, backend="reference", **shared)
        else:
            noise.uniform(z, low=-(3**0.5), high=3**0.5, backend="reference", **shared)
        images, G_saved = self.forward_generator(z)
        generated, D_saved = self.forward_discriminator(images, substep, B)
        d_generated = sigmoid(generated)[:, None]
        minimax = c.objective == "minimax"
        d_logit = -(d_generated if minimax else 1 - d_generated) / B
        _, d_images = self.backward_discriminator(d_logit, D_saved)
        G_gradients = self.backward_generator(d_images, G_saved)
        if real is None or c.update == "simultaneous":
            self.sums[1] += (np.log(1 - d_generated) if minimax else -np.log(d_generated)).mean()
        if real is None:
            return None, G_gradients
        of_generated, _ = self.backward_discriminator(0.5 * d_generated / B, D_saved)
        logits, D_saved = self.forward_discriminator(real, substep, 0)
        d_real = sigmoid(logits)
        self.sums[0] -= 0.5 * (np.log(d_real).mean() + np.log(1 - d_generated).mean())
        self.sums[2] += d_real.mean()
        self.sums[3] += d_generated.mean()
        of_real, _ = self.backward_discriminator(-0.5 * (1 - sigmoid(logits))[:, None] / B, D_saved)
        return [
            [a + b for a, b in zip(x, y, strict=True)] for x, y in zip(of_real, of_generated, strict=True)
        ], G_gradients

    def forward_generator(self, x):
        saved = []
        for (W, b, *_), config in zip(self.G, self.config.generator, strict=True):
            if config.layer == "conv-transpose":
                saved.append((x, None))
                x = plain_convolutions.put(x, W, config) + b.reshape(-1)
                continue
            z = x @ W + b
            y = {"relu": np.maximum(z, 0), "sigmoid": sigmoid(z), "identity": z}[config.activation]
            saved.append((x, y))
            x = y
        return x, saved

    def backward_generator(self, dy, saved):
        gradients = []
        layers = list(zip(self.G, self.config.generator, saved, strict=True))
        for (W, *_), config, (x, y) in reversed(layers):
            if config.layer == "conv-transpose":
                dW, dx = plain_convolutions.put_back(dy, x, W, config)
                gradients.append([dW, dy.sum(0).reshape(layers[-1][0][1].shape)])
                dy = dx
                continue
            dz = dy * {"relu": y > 0, "sigmoid": y * (1 - y), "identity": 1}[config.activation]
            gradients.append([x.T @ dz, dz.sum(0)])
            dy = dz @ W.T
        return gradients[::-1]

    def forward_discriminator(self, x, substep, row_offset):
        saved, shape = [], self.image_shape
        for i, ((W, b, *_), config) in enumerate(zip(self.D, self.config.discriminator, strict=True)):
            stream = stream_id(Purpose.DROPOUT, layer=i, substep=substep)
            settings = Dropout(config.dropout_keep, self.config.seed, stream, self.t, row_offset)
            factor = dropout.mask(*x.shape, settings, backend="reference") / config.dropout_keep
            x = x * factor
            if config.layer == "conv-maxout":
                y, kept = plain_convolutions.forward(x.reshape(len(x), *shape), W, b, config)
                saved.append((x, factor, kept))
                x, shape = y.reshape(len(x), -1), y.shape[1:]
                continue
            z = x @ W + b
            pieces = None
            if config.layer == "maxout":
                z = z.reshape(len(x), -1, config.num_pieces)
                pieces = z.argmax(-1)
                z = z.max(-1)
            saved.append((x, factor, pieces))
            x = z
        return x[:, 0], saved

    def backward_discriminator(self, dy, saved):
        gradients = []
        layers = list(zip(self.D, self.config.discriminator, saved, strict=True))
        for (W, *_), config, (x, factor, pieces) in reversed(layers):
            if config.layer == "conv-maxout":
                dW, db, dx = plain_convolutions.backward(dy, pieces, W, config)
                gradients.append([dW, db])
                dy = dx * factor
                continue
            if config.layer == "maxout":
                dy = (dy[:, :, None] * (np.arange(config.num_pieces) == pieces[:, :, None])).reshape(len(dy), -1)
            gradients.append([x.T @ dy, dy.sum(0)])
            dy = (dy @ W.T) * factor
        return gradients[::-1], dy

    def descend(self, network, configs, gradients):
        for layer, config, (dW, db) in zip(network, configs, gradients, strict=True):
            W, b, vW, vb = layer
            vW = self.momentum * vW - self.rate * dW
            vb = self.momentum * vb - self.rate * db
            W, b = W + vW, b + vb
            if getattr(config, "max_col_norm", None) is not None:
                norms = np.sqrt((W**2).sum(tuple(range(W.ndim - 1))))
                W = W * np.clip(norms, 0, config.max_col_norm) / (1e-7 + norms)
            layer[:] = W, b, vW, vb
