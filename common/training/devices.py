"""The devices that a run trains on: one, all of this machine's, or those of several machines."""

import json
import os
import sys

import tensorflow as tf

from ..errors import UserError
from .settings import Settings


def strategy_for(settings: Settings) -> tf.distribute.Strategy:
    """Returns the strategy of ``--distribute``; with "none" TensorFlow then sees one GPU only.

    Raises:
        UserError: for devices that do not exist, or workers that do not connect.
    """
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    number = settings.gpu_no
    if number is not None and number >= len(gpus):
        raise UserError(f"--gpu_no={number}: TensorFlow sees {len(gpus)} GPUs (numbered from 0)")
    if gpus and (settings.distribute == "none" or number is not None):
        tf.config.set_visible_devices(gpus[number or 0], "GPU")
    if settings.distribute == "none":
        return tf.distribute.get_strategy()
    if settings.distribute == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    print(f"TensorFlow waits until {', '.join(_cluster())} are there", file=sys.stderr)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        raise UserError(f"the workers do not connect: {error.message.splitlines()[0]}") from error


def _cluster() -> list[str]:
    """Returns the addresses of the workers, from TF_CONFIG."""
    form = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
    try:
        config = json.loads(os.environ["TF_CONFIG"])
        workers, task = config["cluster"]["worker"], config["task"]
        valid = all(0 < int(address.rpartition(":")[2]) < 65_536 for address in workers)
        valid = valid and config["cluster"].keys() == {"worker"} and task["type"] == "worker"
        if not valid or task["index"] not in range(len(workers)):
            raise ValueError
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        reason = "--distribute=multi_worker needs the environment variable TF_CONFIG, such as"
        raise UserError(f"{reason} {form}") from error
    return workers
