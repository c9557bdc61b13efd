"""What the benchmarks share: reading arguments, describing the machine, publishing a table."""

import argparse
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import re
import subprocess
from collections.abc import Callable

from comparison.publishing import keep, marks, put

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments, and exits with 2."""

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message}\n")


def positive(text: str) -> int:
    """Returns a positive whole number."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def numbers(text: str) -> list[int]:
    """Returns the positive whole numbers of a comma-separated list."""
    return [positive(word) for word in text.split(",")]


def csv_path(text: str) -> pathlib.Path:
    """Returns the path of a CSV that can be written; its image has the suffix .png."""
    path = pathlib.Path(text).expanduser()
    if path.suffix != ".csv" or path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(
            f"{text!r} is no file name ending in .csv, in a folder that is there"
        )
    return path


def add_outputs(parser: Parser, name: str) -> None:
    """Adds --out, and --readme with the marks of ``name``."""
    begin, end = marks(name)

    def readme(text: str) -> pathlib.Path:
        path = pathlib.Path(text).expanduser()
        if not path.is_file() or not all(
            path.read_text("utf-8").count(mark) == 1 for mark in (begin, end)
        ):
            raise argparse.ArgumentTypeError(f"{text!r} is no file with lines {begin} and {end}")
        return path

    file = pathlib.Path(f"{name}.csv")
    parser.add_argument(
        "--out", type=csv_path, default=file, help="the CSV; the image goes beside it"
    )
    words = (
        f"a Markdown file; put the table between its lines {begin} and {end}, the image in docs/"
    )
    parser.add_argument("--readme", type=readme, help=words)


def publish(
    readme: pathlib.Path,
    name: str,
    lines: list[str],
    image: pathlib.Path,
    caption: str,
) -> None:
    """Puts ``lines`` of Markdown and the image between the marks of ``readme``."""
    put(readme, name, [*lines, "", keep(readme, image, f"{name}.png", caption)])


def figures_or_note(measure: Callable[[], dict]) -> dict:
    """Returns ``measure()``, or a note that says why its process took too long or failed."""
    try:
        return measure()
    except subprocess.TimeoutExpired as error:
        return {"note": f"over {error.timeout:.0f} s"}
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines()
        reason = lines[-1][:200] if lines else "no output"
        return {"note": f"failed ({error.returncode}): {reason}"}


def machine() -> str:
    """Returns the processor and the versions that the figures depend on."""
    import tensorflow as tf

    info = pathlib.Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", info.read_text("utf-8")) if info.is_file() else None
    gpus = [
        tf.config.experimental.get_device_details(g).get("device_name", g.name)
        for g in tf.config.list_physical_devices("GPU")
    ]
    names = [name for name in ("tensorflow", "torch", "geotorch") if importlib.util.find_spec(name)]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in names]
    processor = found[1] if found else platform.processor() or platform.machine()
    policy = (
        [f"OMP_WAIT_POLICY={os.environ['OMP_WAIT_POLICY']}"]
        if "OMP_WAIT_POLICY" in os.environ
        else []
    )
    return ", ".join([processor, f"{CORES} cores", *gpus, *versions, *policy])
