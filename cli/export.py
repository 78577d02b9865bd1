"""``fastgan export``."""

from __future__ import annotations

import click

from fastgan.cli.common import check_out, echo_path, open_run, run_argument, write_arrays


@click.command("export")
@run_argument
@click.option("--out", required=True, metavar="FILE", help="A .npz file.")
def command(run: str | None, runs_dir: str, checkpoint: str, out: str) -> None:
    """Write a trained generator as a plain .npz file, for use without fastgan.

    The file holds, for layer i from 0: W<i> (inputs, outputs) and b<i> (outputs,), float32, and activations (text, a
    layer each: identity, relu or sigmoid); noise ("uniform" on (-√3, √3), or "normal") and image_shape (C, H, W).
    Nothing in it is pickled. In NumPy, uniform noise becomes 24 images by

    \b
      G, rng = np.load("G.npz"), np.random.default_rng()
      z = rng.uniform(-(3**0.5), 3**0.5, (24, len(G["W0"])))
      f = {"identity": lambda a: a, "relu": lambda a: np.maximum(a, 0), "sigmoid": lambda a: 1 / (1 + np.exp(-a))}
      for i, name in enumerate(G["activations"]):
          z = f[str(name)](z @ G[f"W{i}"] + G[f"b{i}"])
      images = z.reshape(-1, *G["image_shape"])
    """  # noqa: D301
    path = check_out(out, (".npz",))
    loaded = open_run(run, runs_dir, checkpoint)

    import numpy as np

    from fastgan.errors import RunError
    from fastgan.layers import Linear

    generator = loaded.generator
    arrays = {}
    activations = []
    for i, layer in enumerate(generator.layers):
        if not isinstance(layer, Linear):
            raise RunError(
                f"Layer {i} of the generator of {loaded.path} is no linear layer; the .npz layout has only those"
            )
        arrays[f"W{i}"] = generator.device.download(layer.W)
        arrays[f"b{i}"] = generator.device.download(layer.b)
        activations.append(layer.config.activation)
    arrays["activations"] = np.array(activations)
    arrays["noise"] = np.array(generator.noise)
    arrays["image_shape"] = np.array(loaded.image_shape)
    write_arrays(path, arrays)
    echo_path(path)
