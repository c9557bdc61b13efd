"""The settings of a comparison, which are the flags of compare.py."""

import csv
import functools
import pathlib
from typing import Any

from common import backbones
from common.errors import UserError
from common.training.command_line import Options, setting
from common.training.methods import known
from common.training.settings import BATCH_SIZE, ROOT, Settings
from common.training.texts import read_text
from comparison.rows import parse
from comparison.runs import Run
from comparison.table import Times

# values of settings that the command line does not give
PRESETS: dict[str | None, dict[str, Any]] = {
    **{name: {"backbone": name} for name in backbones.known()},
    "sopt": {"methods": [f"sopt_gs:rotated_fraction={part}" for part in (0.125, 0.25, 0.5, 1)]},
    "few": {
        "train_images": 5000,
        "widths": (32, 32, 32, 32),
        "iterations": 7500,
        "methods": [
            *("baseline", "upt", "mhe", "opt_gs", "opt_ogd", "opt_or", "sopt_gs"),
            *(f"baseline:base_lr={rate}" for rate in (0.05, 0.2)),
            *(f"baseline:weight_decay={decay}" for decay in (0.001, 0.0025)),
            *(f"{name}:rotation_stddev=0.2" for name in ("opt_gs", "opt_hr", "opt_ls", "opt_cp")),
            "opt_gs:rotation_stddev=0.2:weight_decay=0.0025",
        ],
    },
}


def _same(name: str, default: Any = None, **others: Any) -> Any:
    """Returns the field of all methods' settings with this default and ``others``."""
    return setting(default, **vars(Settings.abouts[name]) | others)


class Comparison(Options):
    """The settings of a comparison; checking them completes those that are None, by the preset."""

    methods: tuple[str, ...] | None = setting(
        None, "rows, such as opt_gs,opt_gs:rotation_stddev=0.2 (default: all methods)"
    )
    preset: str | None = setting(
        None,
        "defaults of other flags: a backbone; sopt: S-OPT at rotated_fraction 1/8 to 1; few: 5,000 "
        "training images, also with other rates and decays",
        choices=tuple(PRESETS),
    )
    backbone: str | None = _same("backbone")
    widths: tuple[int, ...] | None = _same("widths", help="as in train.py, the same in all rows")
    seeds: tuple[int, ...] = setting(
        (1,), "each row is trained with each; several give ± in the table", least=0, most=2**32 - 1
    )
    iterations: int | None = _same("iterations", help="training steps (default: each method's)")
    warmup_iterations: int | None = _same("warmup_iterations", help="by default up to 400")
    batch_size: int | None = _same("batch_size")
    dataset: str = _same("dataset", Settings.dataset)
    image_size: int = _same("image_size", Settings.image_size)
    train_images: int | None = _same("train_images")
    data_note: str = setting("", "put after the data set's name, such as re-split")
    data_dir: pathlib.Path = _same("data_dir", Settings.data_dir)
    jobs: int = setting(1, "runs at a time", least=1)
    gpus: tuple[int, ...] = setting((), "GPUs to spread runs over: 0,1", least=0)
    steps: pathlib.Path | None = setting(None, "steps.csv of benchmarks.steps")
    out: pathlib.Path = setting(ROOT / "results", "the folder of runs and results")

    def check(self) -> None:
        usual = {"methods": tuple(known()), "backbone": Settings.backbone, "train_images": 0}
        self.complete(**usual | PRESETS.get(self.preset, {}))
        # not by the rows' lengths: the same whatever rows are added later
        warmup = Settings.usual_warmup(self.iterations or Settings.iterations)
        widths = backbones.known()[self.backbone].widths
        self.complete(widths=widths, warmup_iterations=warmup)
        _ = self.runs, self.times  # so that their errors come first

    @functools.cached_property
    def runs(self) -> list[Run]:
        """Returns the runs of each row in turn, one for each seed."""
        shared = Settings.__dataclass_fields__
        flags = {n: value for n, value in vars(self).items() if n in shared and value is not None}
        flags["data_dir"], seeds = self.data_dir.absolute(), dict.fromkeys(self.seeds)
        return [Run(row, seed, self.out, flags) for row in parse(self.methods) for seed in seeds]

    @functools.cached_property
    def times(self) -> Times | None:
        """Returns the times of ``--steps``, None without it."""
        if not self.steps:
            return None
        if self.backbone != "cnn6" or self.batch_size not in (None, BATCH_SIZE):
            raise UserError(f"--steps: benchmarks.steps times cnn6 with batches of {BATCH_SIZE}")
        widths = "/".join(map(str, self.widths))
        try:
            lines = csv.DictReader(read_text(self.steps).splitlines())
            asked = {"widths": widths, "batch": str(BATCH_SIZE), "precision": Settings.precision}
            rows = [t for t in lines if t["step_ms"] and all(t[n] == asked[n] for n in asked)]
            names = "step_ms", "ratio", "memory_gib"
            times = {t["method"]: tuple(float(t[n] or "nan") for n in names) for t in rows}
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise UserError(f"--steps={self.steps} cannot be read: {error}") from error
        if not 0 < len(times) == len(rows):
            what = ", ".join(f"{name} {value}" for name, value in asked.items())
            raise UserError(f"--steps={self.steps} must have one time of a row at {what}")
        return times
