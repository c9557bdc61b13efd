"""Downloads a data set in advance, so that training needs no network.

python -m data.prepare
python -m data.prepare --dataset=cifar10 --data_dir=/scratch/data
"""

import argparse
import pathlib

from common.errors import UserError
from common.training.startup import import_tensorflow


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", choices=["cifar100", "cifar10"], default="cifar100")
    parser.add_argument(
        "--data_dir", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent
    )
    args = parser.parse_args()
    import_tensorflow()
    from common import datasets

    try:
        print(datasets.load(args.dataset, args.data_dir.expanduser()))
    except UserError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
