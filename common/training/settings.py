"""A run's settings: the flags that all methods share. A method's folder adds more."""

import pathlib
from typing import Any, ClassVar

from .. import backbones
from ..errors import UserError
from .command_line import Options, setting

ROOT = pathlib.Path(__file__).resolve().parents[2]
BATCH_SIZE = 128  # unless there are fewer images
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")  # Keras's dtype policies
_COUNT = {"least": 0, "most": 2**31 - 1}
_ONE = {"least": 1}
# in these a run may differ from the checkpoint from which it continues
_FREE = {"data_dir", "gpu_no", "jit", "log_dir", "log_every", "eval_every", "checkpoint_every"}
_FREE |= {"resume", "distribute", "deterministic"}


class Settings(Options):
    """The settings that all methods share."""

    title: ClassVar[str]  # the method's name in tables and images
    row: ClassVar[int]  # its place in tables; those of the same row are sorted by name
    method: ClassVar[str]  # its folder's name
    cnn_widths: ClassVar[tuple[int, ...] | None] = None  # where they are not the network's

    dataset: str = setting(
        "cifar100",
        "what to train on; digits needs no download; folder: your own images, in --data_dir",
        choices=("cifar100", "cifar10", "digits", "folder"),
    )
    data_dir: pathlib.Path = setting(ROOT / "data", "where the data set is, or is downloaded to")
    backbone: str = setting("cnn6", "the network", choices=tuple(backbones.known()))
    widths: tuple[int, ...] | None = setting(
        None,
        "neurons per layer of each stage, and of fc6 in a cnn; by default 64 each (of opt_cp "
        "32,64,128,128), in a resnet 16,32,64",
        least=1,
        most=65_536,
    )
    image_size: int = setting(
        32, "height and width of the resized images of --dataset=folder", least=32, most=256
    )
    train_images: int = setting(
        0, "training images, equally many of each class, the same with any seed; 0: all", **_COUNT
    )
    iterations: int = setting(
        75_000, "training steps; the rate drops at fixed fractions of them", **_COUNT | _ONE
    )
    batch_size: int | None = setting(
        None, f"images per step (default: {BATCH_SIZE}, or all images if there are fewer)", **_ONE
    )
    base_lr: float = setting(0.1, "the first learning rate", least=0)
    weight_decay: float = setting(5e-4, "strength of the weight decay; a tenth in opt_ogd", least=0)
    warmup_iterations: int = setting(
        0,
        "iterations W over which all learning rates grow linearly from rate/W. A run of fewer than "
        "the default needs them: its first steps at the full rate may saturate a plain network",
        **_COUNT,
    )
    seed: int = setting(
        0, "seed of the initial weights, the shuffles and the augmentation", least=0, most=2**32 - 1
    )
    gpu_no: int | None = setting(None, "number of the GPU (default: the first, if any)", least=0)
    jit: str = setting(
        "auto",
        "compile the step with XLA, or with --distribute the maps alone; auto: on a GPU only",
        choices=("auto", "on", "off"),
    )
    precision: str = setting(
        PRECISIONS[0],
        "Keras's dtype policy of the layers; maps, weights and the loss stay in float32",
        choices=PRECISIONS,
    )
    log_dir: pathlib.Path | None = setting(
        None, "where the results go (default: log/ in the method's folder)"
    )
    log_every: int = setting(100, "iterations between two training lines", **_ONE)
    eval_every: int = setting(500, "iterations between two tests", **_ONE)
    checkpoint_every: int = setting(1000, "iterations between two checkpoints", **_ONE)
    resume: bool = setting(False, "continue from the newest valid checkpoint in --log_dir")
    distribute: str = setting(
        "none",
        "train on one device, all GPUs of this machine, or those of the machines in TF_CONFIG",
        choices=("none", "mirrored", "multi_worker"),
    )
    deterministic: bool = setting(
        False, "use deterministic operations only; one that has no such form ends the run"
    )

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.method = cls.__module__.partition(".")[0]

    @classmethod
    def usual_warmup(cls, iterations: int) -> int:
        """Returns how many iterations of warm-up a run needs: 0 for one of full length."""
        return min(400, iterations // 5) if iterations < cls.iterations else 0

    def check(self) -> None:
        network = backbones.known()[self.backbone]
        if network.builder == "cnn":
            self.complete(widths=self.cnn_widths)
        if self.widths is not None and len(self.widths) != len(network.widths):
            raise UserError(f"--widths: {self.backbone} takes {len(network.widths)} numbers")
        if network.widening and self.widths and list(self.widths) != sorted(self.widths):
            raise UserError(f"--widths: a stage of {self.backbone} is narrower than the one before")
        if self.warmup_iterations > self.iterations:
            raise UserError("--warmup_iterations is larger than --iterations")
        if self.dataset != "folder" and self.image_size != 32:
            raise UserError(f"--image_size is for --dataset=folder; {self.dataset} has 32x32")
        if self.dataset == "folder" and self.data_dir == ROOT / "data":
            raise UserError("--dataset=folder needs --data_dir, the folder with your images")
        if self.distribute == "mirrored" and self.gpu_no is not None:
            raise UserError("--distribute=mirrored takes all GPUs; --gpu_no names one")
        if self.distribute != "none" and self.precision == "mixed_float16":
            # Keras's LossScaleOptimizer asks only the first device if the gradients are finite
            raise UserError("--distribute: take --precision=mixed_bfloat16, not mixed_float16")

    def named(self) -> dict[str, Any]:
        """Returns the method and all settings by name."""
        return {"method": self.method} | vars(self)

    def result_settings(self) -> dict[str, Any]:
        """Returns the settings that must be the same to continue from a checkpoint, by name."""
        return {name: value for name, value in self.named().items() if name not in _FREE}


class LayerSettings(Settings):
    """Settings of the methods with OPT layers."""

    learn_neurons: bool = setting(
        False, "also train the neurons F, which OPT keeps as drawn; their energy may then change"
    )
    block_size: int = setting(
        0,
        "rows of F, 2 or more, that a rotation acts on, which costs less in wide layers; 0: all",
        **_COUNT,
    )

    def check(self) -> None:
        super().check()
        if self.block_size == 1:
            raise UserError("--block_size=1: must be 0, or 2 or more")


class RotationSettings(LayerSettings):
    """Settings of the methods whose rotations are drawn at random."""

    rotation_stddev: float = setting(
        1.0,
        "standard deviation of R at the start; opt_gs, opt_hr and opt_ls rotate a small R faster",
        above=0,
    )
