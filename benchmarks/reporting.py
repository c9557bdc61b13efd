"""The benchmarks' tables and CSV files, and the description of the machine."""

import csv
import importlib.metadata
import os
import pathlib
import platform
import re
from collections.abc import Mapping

from common.errors import UserError
from common.training.startup import CORES, import_tensorflow

PACKAGES = ("tensorflow", "torch", "geotorch", "deel-lip", "tf_keras")
Columns = Mapping[str, tuple[str, str]]  # by a row's key: the heading, and the cells' format


def check_out(out: pathlib.Path) -> None:
    """Raises UserError if a CSV cannot be written there."""
    if out.suffix != ".csv" or out.is_dir() or not os.access(out.absolute().parent, os.W_OK):
        raise UserError(f"--out={out} is no file name ending in .csv, in a folder to write into")


def used(columns: Columns, rows: list[dict]) -> Columns:
    return {key: column for key, column in columns.items() if any(key in row for row in rows)}


def table(columns: Columns, rows: list[dict]) -> list[str]:
    """Returns the lines of a Markdown table; figures that a row lacks are empty cells."""
    columns = used(columns, rows)
    cells = [[heading for heading, _ in columns.values()]]
    for row in rows:
        cells.append([form.format(row[k]) if k in row else "" for k, (_, form) in columns.items()])
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    return [lines[0], "|" + "---|" * len(columns), *lines[1:]]


def save(path: pathlib.Path, columns: Columns, rows: list[dict]) -> None:
    """Writes the table as a CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(used(columns, rows)), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    print(f"written: {path.absolute()}")


def machine() -> str:
    """Returns the processor and the versions that the figures depend on."""
    tf = import_tensorflow()
    info = pathlib.Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", info.read_text("utf-8")) if info.is_file() else None
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    installed = {d.name.lower() for d in importlib.metadata.distributions()}
    versions = [f"{p} {importlib.metadata.version(p)}" for p in PACKAGES if p in installed]
    processor = found[1] if found else platform.processor() or platform.machine()
    return ", ".join([processor, f"{CORES} cores", *gpus, *versions])
