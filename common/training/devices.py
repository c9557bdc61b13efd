"""The devices that a run trains on: one, all of this machine's, or those of several machines."""

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator

import tensorflow as tf

from ..errors import UserError
from .settings import Settings


def strategy_for(settings: Settings) -> tf.distribute.Strategy:
    """Returns the strategy that ``--distribute`` asks for.

    With "none", TensorFlow then sees only one GPU: that of ``--gpu_no``, or else the first.

    Raises:
        UserError: for devices that do not exist, or workers that do not connect.
    """
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    number = settings.gpu_no
    if number is not None and number >= len(gpus):
        raise UserError(f"--gpu_no={number}: TensorFlow sees {len(gpus)} GPUs (numbered from 0)")
    if number is not None and settings.distribute == "mirrored":
        raise UserError("--distribute=mirrored takes all GPUs; --gpu_no names one")
    if gpus and (settings.distribute == "none" or number is not None):
        tf.config.set_visible_devices(gpus[number or 0], "GPU")
    if settings.distribute == "none":
        return tf.distribute.get_strategy()
    if settings.precision == "mixed_float16":
        # Keras's LossScaleOptimizer asks the first device alone whether the gradients are finite
        raise UserError(
            "--precision=mixed_float16 is for one device; with --distribute take mixed_bfloat16"
        )
    if settings.distribute == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    workers, index = _cluster()
    await_workers(workers, index, settings.worker_timeout)
    with _deadline(settings.worker_timeout):
        return tf.distribute.MultiWorkerMirroredStrategy()


def uses_xla(settings: Settings) -> bool:
    """Returns whether to compile with XLA: whole steps, or with ``--distribute`` the maps alone."""
    return settings.jit == "on" or (
        settings.jit == "auto" and bool(tf.config.get_visible_devices("GPU"))
    )


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process is the one that writes the results."""
    return (
        not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        or strategy.cluster_resolver.task_id == 0
    )


def _cluster() -> tuple[list[tuple[str, int]], int]:
    """Returns host and port of each worker, and this process's index, both from TF_CONFIG."""
    form = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
    try:
        config = json.loads(os.environ["TF_CONFIG"])
        pairs = [address.rsplit(":", 1) for address in config["cluster"]["worker"]]
        workers = [(host.strip("[]"), int(port)) for host, port in pairs]
        index = config["task"]["index"]
        sound = all(0 < port < 65_536 for _, port in workers) and index in range(len(workers))
        if not sound or config["task"]["type"] != "worker" or set(config["cluster"]) != {"worker"}:
            raise ValueError
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"--distribute=multi_worker needs the environment variable TF_CONFIG, such as {form}"
        ) from error
    return workers, index


def await_workers(workers: list[tuple[str, int]], index: int, timeout: float) -> None:
    """Returns once every worker has answered at its address.

    TensorFlow's own constructor waits for ten minutes or more, and no signal can stop it. So each
    process first listens at its own address and connects to the others, until all have answered.

    Args:
        workers: host and port of each.
        index: which of them this process is.
        timeout: seconds.

    Raises:
        UserError: naming those that did not answer.
    """
    missing = {worker for i, worker in enumerate(workers) if i != index}
    host, port = workers[index]
    end = time.monotonic() + timeout
    try:
        listener = socket.create_server(
            ("", port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except OSError as error:
        raise UserError(f"worker {index} cannot listen at port {port}: {error.strerror}") from error
    with listener, selectors.DefaultSelector() as selector:
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ)
        print(
            f"worker {index} of {len(workers)}: waiting for the others for up to {timeout:g} s",
            file=sys.stderr,
        )
        while missing:
            if time.monotonic() > end:
                names = ", ".join(f"{h}:{p}" for h, p in sorted(missing))
                raise UserError(f"--worker_timeout: no answer from {names} within {timeout:g} s")
            for worker in list(missing):
                with (
                    contextlib.suppress(OSError),
                    socket.create_connection(worker, timeout=1) as call,
                ):
                    call.sendall(b"%d" % index)
                    missing.discard(worker)
            for _ in selector.select(timeout=0.2):
                # a worker that connects here has answered: it may start TensorFlow's own server
                # before we can connect to it
                with (
                    contextlib.suppress(OSError, ValueError, IndexError),
                    listener.accept()[0] as call,
                ):
                    call.settimeout(1)
                    missing.discard(workers[int(call.recv(8))])


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Ends the process if the block takes longer.

    For calls into TensorFlow that may never return and that no signal can stop.
    """

    def end() -> None:
        print(
            f"\n--worker_timeout: the workers were there, but have not joined within {seconds:g} s",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)

    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)
