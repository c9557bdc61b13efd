"""What a run was asked to do."""

import dataclasses
import pathlib
from typing import Any

# what a run did before these settings existed; older checkpoints do not name them
BEFORE = {
    "image_size": 32,
    "train_images": 0,
    "warmup_iterations": 0,
    "rotation_stddev": 1.0,
    "learn_neurons": False,
    "block_size": 0,
    "orthogonalize": "gram_schmidt",
    "precision": "float32",
}
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")  # Keras's dtype policies


@dataclasses.dataclass(frozen=True)
class Settings:
    """The flags that all methods share, read once; ``own`` holds the method's own flags."""

    method: str
    dataset: str
    data_dir: pathlib.Path
    backbone: str
    widths: tuple[int, ...] | None
    iterations: int
    batch_size: int | None  # None: see loop
    base_lr: float
    warmup_iterations: int
    seed: int
    gpu_no: int | None
    jit: str
    log_dir: pathlib.Path
    log_every: int
    eval_every: int
    checkpoint_every: int
    resume: bool
    steps_per_execution: int | None
    distribute: str
    worker_timeout: float
    deterministic: bool
    image_size: int = 32
    train_images: int = 0
    precision: str = "float32"
    own: dict[str, Any] = dataclasses.field(default_factory=dict)

    def result_settings(self) -> dict[str, object]:
        """Returns those that the weights depend on; they must be equal to resume a checkpoint."""
        names = (
            "method",
            "dataset",
            "image_size",
            "train_images",
            "backbone",
            "widths",
            "iterations",
            "batch_size",
            "base_lr",
            "warmup_iterations",
            "seed",
            "precision",
        )
        return {name: getattr(self, name) for name in names} | self.own
