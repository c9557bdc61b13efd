"""The step of CNN-6 by PyTorch, geotorch and deel-lip, for `python -m benchmarks.steps --peers`.

Each has the network, loss and optimizer of this project's step, in float32 on the CPU, with images
of the same shape and as many threads as there are cores.

PyTorch is timed plain and with kernels map(R) F of a trained R [n, n] and a fixed F, as OPT has
them: by `linalg.qr` (Gram-Schmidt), `linalg.solve` (Cayley's transform) and `linalg.svd` (the polar
factor), each with products as thin as PyTorch's gradients allow, and by geotorch. Each row has one
of two memory layouts. deel-lip rotates nothing: its layers make the trained kernel orthogonal.
"""

import functools
import os
from collections.abc import Callable, Sequence

import geotorch
import numpy as np
import torch
from torch import nn

from common.training.settings import Settings
from common.training.startup import CORES

RATE, MOMENTUM, WEIGHT_DECAY = Settings.base_lr, 0.9, Settings.weight_decay
EPSILON = 1e-3  # of batch normalization, Keras's default
AVERAGES = 0.001  # the share of a batch in batch normalization's averages
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

Map = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def gram_schmidt(r: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
    """Returns (Q F)^T for Q, the rows of R made orthonormal, and ``f``, which is F^T."""
    q, upper = torch.linalg.qr(r.mT)
    return f @ (q * upper.diagonal().sign())


def cayley(r: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
    """Returns (Q F)^T for Q = (I + S) (I - S)^-1, where S is the skew part of R's triangle."""
    s, identity = r.triu() - r.triu().mT, torch.eye(len(r))
    return torch.linalg.solve(identity + s, f - f @ s, left=False)


def polar(r: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
    """Returns (Q F)^T for R's polar factor Q."""
    u, _, vh = torch.linalg.svd(r)
    return (f @ vh.mT) @ u.mT


def by_geotorch(triv: str, n: int) -> Map:
    rotations = geotorch.SO((n, n), triv=triv)
    return lambda r, f: f @ rotations(r)


# by a kernel's name: its title, its map for n rows, and the scale at which R starts
KERNELS: dict[str, tuple[str, Callable[[int], Map], float]] = {
    "qr": ("linalg.qr", lambda n: gram_schmidt, 1),
    "solve": ("linalg.solve, Cayley", lambda n: cayley, 1),
    "svd": ("linalg.svd", lambda n: polar, 1),
    "geotorch_cayley": ("geotorch, Cayley", functools.partial(by_geotorch, "cayley"), 0),
    "geotorch_expm": ("geotorch, expm", functools.partial(by_geotorch, "expm"), 0),
}


class Rotated(nn.Module):
    """A parametrization of a convolution's weight: its first value, rotated by a trained R."""

    def __init__(self, kernel: str, layout: str, weight: torch.Tensor):
        super().__init__()
        # the order of entries in which the rotated kernel has the images' layout
        self.channels_last = layout == "channels_last"
        neurons = weight.detach().movedim(1, 3) if self.channels_last else weight.detach()
        self.shape = neurons.shape
        self.register_buffer("neurons", neurons.flatten(1).contiguous())
        _, make, self.stddev = KERNELS[kernel]
        self.map = make(self.neurons.shape[1])

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        n = self.neurons.shape[1]
        return self.stddev * torch.randn(n, n)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        kernel = self.map(r, self.neurons).view(self.shape)
        return kernel.movedim(3, 1) if self.channels_last else kernel


def network(kernel: str, layout: str, widths: Sequence[int]) -> nn.Sequential:
    """Returns CNN-6 with kernels of that name; "plain" ones are trained themselves."""

    def convolution(channels: int, width: int, size: int, padding: int = 0) -> nn.Conv2d:
        layer = nn.Conv2d(channels, width, size, padding=padding, bias=False)
        nn.init.kaiming_normal_(layer.weight)
        if kernel != "plain":
            rotated = Rotated(kernel, layout, layer.weight)
            nn.utils.parametrize.register_parametrization(layer, "weight", rotated)
        return layer

    layers: list[nn.Module] = []
    channels = 3
    for width in widths[:3]:
        for _ in range(2):
            layers += [
                convolution(channels, width, 3, padding=1),
                nn.BatchNorm2d(width, eps=EPSILON, momentum=AVERAGES),
                nn.ReLU(),
            ]
            channels = width
        layers.append(nn.MaxPool2d(2))
    scores = nn.Conv2d(widths[3], 100, 1, bias=False)
    nn.init.kaiming_normal_(scores.weight)
    layers += [convolution(channels, widths[3], 4), scores, nn.Flatten()]
    return nn.Sequential(*layers).to(memory_format=LAYOUTS[layout])


def torch_step(
    kernel: str, layout: str, widths: Sequence[int], images: np.ndarray, labels: np.ndarray
) -> Callable[[], torch.Tensor]:
    """Returns a function that updates PyTorch's network once and returns its loss."""
    torch.set_num_threads(CORES)
    return step_of(network(kernel, layout, widths), layout, images, labels)


def step_of(
    model: nn.Module, layout: str, images: np.ndarray, labels: np.ndarray
) -> Callable[[], torch.Tensor]:
    """Returns `torch_step` for a network that is there already."""
    optimizer = torch.optim.SGD(model.parameters(), RATE, MOMENTUM, weight_decay=WEIGHT_DECAY)
    x = torch.tensor(images).movedim(3, 1).contiguous(memory_format=LAYOUTS[layout])
    y = torch.tensor(labels)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = smoothed_cross_entropy(model((x - 127.5) / 128), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def smoothed_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns the mean of `common.losses.smoothed_cross_entropy` by PyTorch."""
    classes = logits.shape[1]
    target = 0.99 * nn.functional.one_hot(labels, classes) + 0.01 / classes
    return -(target * torch.log(logits.softmax(1) + 1e-4)).sum(1).mean()


def deel_step(widths: Sequence[int], images: np.ndarray, labels: np.ndarray) -> Callable:
    """Returns a function that updates a network of deel-lip's layers once and returns its loss."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"  # they are layers of Keras 2
    from common.training.startup import import_tensorflow

    tf = import_tensorflow()
    import tf_keras
    from deel.lip.layers import SpectralConv2D, SpectralDense

    from common.losses import smoothed_cross_entropy

    layers = tf_keras.layers
    parts = [tf_keras.Input(images.shape[1:]), layers.Rescaling(1 / 128, -127.5 / 128)]
    for width in widths[:3]:
        for _ in range(2):
            parts += [
                SpectralConv2D(width, 3, use_bias=False),
                layers.BatchNormalization(momentum=1 - AVERAGES, epsilon=EPSILON),
                layers.ReLU(),
            ]
        parts.append(layers.MaxPooling2D())
    # fc6 sees all that is left of an image
    parts += [layers.Flatten(), SpectralDense(widths[3], use_bias=False)]
    model = tf_keras.Sequential([*parts, layers.Dense(100, use_bias=False)])
    optimizer = tf_keras.optimizers.SGD(RATE, MOMENTUM)
    optimizer.build(model.trainable_variables)
    x, y = tf.constant(images), tf.constant(labels)

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            fit = tf.reduce_mean(smoothed_cross_entropy(y, model(x, training=True)))
            decay = tf.add_n([tf.nn.l2_loss(v) for v in model.trainable_variables])
            loss = fit + WEIGHT_DECAY * decay
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return fit

    return step


Step = Callable[[Sequence[int], np.ndarray, np.ndarray], Callable[[], object]]
PEERS: dict[str, tuple[str, Step]] = {
    f"torch_{kernel}_{layout}": (
        f"PyTorch, {title}, {layout}",
        functools.partial(torch_step, kernel, layout),
    )
    for kernel, title in [("plain", "plain"), *((k, title) for k, (title, *_) in KERNELS.items())]
    for layout in LAYOUTS
}
PEERS["deel_lip"] = ("deel-lip, Björck", deel_step)
