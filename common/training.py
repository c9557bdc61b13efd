"""The one training loop."""

import dataclasses
import functools
import itertools
import math
import resource
import sys
import time
from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from common import backbones, convert, datasets, energy, losses, optimizers, reporting
from common.errors import UserError
from common.flags import Settings
from common.reporting import Report

TEST_BATCH = 500


def momentum(base_lr: float, decay: Callable) -> optimizers.Momentum:
    """Returns the optimizer of most methods."""
    return optimizers.Momentum(decay(base_lr))


@dataclasses.dataclass(frozen=True)
class Method:
    """What a method is; its folder's architecture.py makes one.

    Attributes:
        build_model: takes ``backbone``, a callable that takes a layer factory, and returns the model.
        make_optimizer: takes ``base_lr`` and ``decay``, a callable ``(rate, factor=0.1)`` that returns the run's
            schedule of a rate. Defaults to `momentum`.
        decay_factor: what the weight decay is multiplied with in the loss, though not where it is printed.
        undecayed: names of weights that are not decayed.
        drops: where the rates drop, in fractions of the run.
        episode_length: number of iterations an episode, for methods that have episodes.
        start_episode: takes the model, the run's seed and the episode's number before the episode begins.
    """

    build_model: Callable[..., keras.Model]
    make_optimizer: Callable[[float, Callable], keras.optimizers.Optimizer] = momentum
    decay_factor: float = 1.0
    undecayed: tuple[str, ...] = ()
    drops: tuple[float, ...] = optimizers.DROPS
    episode_length: int | None = None
    start_episode: Callable[[keras.Model, int, int], None] | None = None


def make_train_step(
    method: Method, model: keras.Model, optimizer: keras.optimizers.Optimizer, jit: bool = False
) -> Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]:
    """Returns ``step(images, labels)``, which updates the model once.

    It takes ``images [batch, 32, 32, 3]`` (any real dtype, 0 to 255) and ``labels [batch]``, and returns the
    scalars fit, reg, acc and penalty (of the layers' own losses) of the batch before the update.
    """
    optimizer.build(model.trainable_variables)
    decayed = losses.decayed_variables(model, method.undecayed)

    @tf.function(jit_compile=jit)
    def step(images: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            fit = tf.reduce_mean(losses.smoothed_cross_entropy(labels, logits))
            reg = losses.weight_decay(decayed)
            penalty = tf.add_n(model.losses) if model.losses else tf.zeros_like(fit)
            total = fit + method.decay_factor * reg + penalty
        gradients = tape.gradient(total, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return {"fit": fit, "reg": reg, "acc": accuracy(labels, logits), "penalty": penalty}

    return step


def accuracy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns the fraction of ``logits [batch, classes]`` whose largest is the label's, a float32 scalar."""
    hits = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), tf.cast(labels, tf.int32))
    return tf.reduce_mean(tf.cast(hits, tf.float32))


def train(settings: Settings, method: Method) -> float:
    """Trains a method as ``settings`` say, and returns its test accuracy.

    Raises:
        UserError: for settings that fit neither the data nor the machine.
    """
    if settings.log_dir.exists() and not settings.log_dir.is_dir():
        raise UserError(f"--log_dir={settings.log_dir} is not a folder")
    jit = _select_device(settings)
    data = datasets.load(settings.dataset, settings.data_dir)
    print(data, flush=True)
    count = len(data.train_labels)
    if settings.batch_size > count:
        raise UserError(f"--batch_size={settings.batch_size} is larger than the training set, {count} pictures")

    keras.utils.set_random_seed(settings.seed)
    backbone = functools.partial(backbones.BACKBONES[settings.backbone], num_classes=data.num_classes)
    model = method.build_model(backbone, **({"widths": settings.widths} if settings.widths else {}))
    decay = functools.partial(optimizers.step_decay, iterations=settings.iterations, drops=method.drops)
    optimizer = method.make_optimizer(settings.base_lr, decay)
    step = make_train_step(method, model, optimizer, jit)
    # the whole training set stays on the device, as bytes
    train_images, train_labels = tf.constant(data.train_images), tf.constant(data.train_labels)

    @tf.function(jit_compile=jit)
    def augmented_step(picks: tf.Tensor) -> dict[str, tf.Tensor]:
        batch = datasets.augment(train_images, picks), tf.gather(train_labels, picks[:, 0])
        return tf.distribute.get_strategy().run(step, batch)

    # tests run on the plain model, so that a test of many batches evaluates each map once
    folded = convert.fold_model(model)
    rotated = [layer for layer in folded.layers if hasattr(layer, "kernel") and layer.name != "score"]
    test = _make_test(folded, data, jit)
    start_row = energy.layer_energies(rotated) | energy.layer_drifts(model.layers)
    report = Report(settings.log_dir, f"{settings.method}, {data.title}, {settings.backbone}", extra=list(start_row))
    report.describe(settings=dataclasses.asdict(settings), data=str(data), jit=jit, **reporting.surroundings())
    report.note(iteration=0, **start_row)
    length = method.episode_length or settings.iterations
    batches = datasets.picks(settings.seed, 0, count, settings.batch_size, data.mirror, method.episode_length)
    start = time.perf_counter()

    testing = 0.0  # seconds in tests, not counted as steps

    def elapsed() -> float:
        return round(time.perf_counter() - start, 3)

    for iteration, batch in enumerate(_with_progress(itertools.islice(batches, settings.iterations), settings)):
        episode, i = divmod(iteration, length)
        prefix = f"episode_{episode}====" if method.episode_length else ""
        if i == 0 and method.start_episode:
            method.start_episode(model, settings.seed, episode)
        try:
            figures = augmented_step(batch)
        except tf.errors.InvalidArgumentError as error:  # a solver that refuses NaN
            raise UserError(f"training broke down at iteration {iteration}: {error.message.splitlines()[0]}") from error
        if iteration == 0:
            float(figures["fit"])  # waits for the step itself, which a GPU runs while Python goes on
            first_step = elapsed()
        if i and i % settings.log_every == 0:
            row = {name: float(value) for name, value in figures.items()}
            if not math.isfinite(row["fit"]):
                rate = optimizers.rate_at(optimizer, iteration)
                raise UserError(f"the loss is {row['fit']} at iteration {iteration}, with a learning rate of {rate}")
            row["learning_rate"] = optimizers.rate_at(optimizer, iteration)
            report.train(f"{prefix}iter_{i}", iteration=iteration, seconds=elapsed(), **row)
        ends = i == length - 1 or iteration == settings.iterations - 1
        if ends or (i and i % settings.eval_every == 0):
            label = f"episode_{episode}" if ends and method.episode_length else f"{prefix}iter_{i}"
            float(figures["fit"])  # waits, as above
            began = elapsed()
            convert.refold(model, folded)
            test_accuracy = test()
            row = energy.layer_energies(rotated) | energy.layer_drifts(model.layers)
            report.test(label, iteration=iteration, test_acc=test_accuracy, seconds=elapsed(), **row)
            testing += elapsed() - began
    seconds = elapsed()
    step_ms = 1e3 * (seconds - testing - first_step) / max(1, settings.iterations - 1)
    model.save(report.folder / "model.keras")
    folded.save(report.folder / "folded.keras")
    (report.folder / "classes.txt").write_text("\n".join(data.class_names) + "\n")
    memory = _peak_memory()
    report.describe(
        test_accuracy=test_accuracy, seconds=seconds, first_step_s=first_step, step_ms=round(step_ms, 3), memory_gib=memory
    )
    report.close()
    print(f"test accuracy: {100 * test_accuracy:.2f} %")
    print(f"time: {seconds:.1f} s, of which {first_step:.1f} s to the end of the first step; then {step_ms:.1f} ms a step")
    print(f"peak memory: {memory:.2f} GiB")
    print(f"results: {report.folder}")
    print(f"learning curves: {report.folder / 'curves.png'}")
    return test_accuracy


def _with_progress(batches: Iterable[np.ndarray], settings: Settings) -> Iterable[np.ndarray]:
    # a log file gets a line every half minute, a terminal a bar that moves
    interval = 0.2 if sys.stderr.isatty() else 30
    return tqdm(batches, desc=settings.method, total=settings.iterations, unit="it", dynamic_ncols=True, mininterval=interval)


def _select_device(settings: Settings) -> bool:
    """Makes the GPU that was asked for the only one in sight, and returns whether to compile with XLA."""
    tf.config.experimental.enable_tensor_float_32_execution(False)  # its 10 bits of mantissa spoil the maps
    gpus = tf.config.list_physical_devices("GPU")
    number = settings.gpu_no
    if number is not None and number >= len(gpus):
        raise UserError(f"--gpu_no={number}: TensorFlow sees {len(gpus)} GPUs (numbered from 0)")
    if gpus:
        chosen = gpus[number or 0]
        tf.config.set_visible_devices(chosen, "GPU")
        tf.config.experimental.set_memory_growth(chosen, True)
    return settings.jit == "on" or (settings.jit == "auto" and bool(gpus))


def _peak_memory() -> float:
    """Returns the most memory used so far in GiB: the GPU's where there is one, else the process's."""
    if tf.config.get_visible_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _make_test(model: keras.Model, data: datasets.Dataset, jit: bool) -> Callable[[], float]:
    """Returns a function that returns the model's accuracy on the test set."""

    @tf.function(jit_compile=jit)
    def hits(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return accuracy(labels, model(images, training=False)) * tf.cast(tf.size(labels), tf.float32)

    def test() -> float:
        count = len(data.test_labels)
        parts = [slice(i, i + TEST_BATCH) for i in range(0, count, TEST_BATCH)]
        return float(np.sum([hits(data.test_images[p], data.test_labels[p]) for p in parts]) / count)

    return test
