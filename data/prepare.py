"""Downloads a data set in advance, unless it is found, so that training needs no network.

python -m data.prepare
python -m data.prepare --dataset=cifar10 --data_dir=/scratch/data
"""

import pathlib

from common.training.command_line import Options, run_program, setting
from common.training.settings import Settings
from common.training.startup import import_tensorflow


class Download(Options):
    dataset: str = setting("cifar100", "the data set", choices=("cifar100", "cifar10"))
    data_dir: pathlib.Path = setting(Settings.data_dir, "the folder for it")


def main(options: Download) -> None:
    import_tensorflow()
    from common import datasets

    print(datasets.load(options.dataset, options.data_dir))


if __name__ == "__main__":
    run_program(Download, main, "data.prepare")
