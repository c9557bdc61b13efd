"""The one training loop."""

import functools
import itertools
import resource
import sys
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from common import backbones, datasets, losses, optimizers
from common.errors import UserError
from common.flags import Settings
from common.reporting import Report

TEST_BATCH = 500


def make_train_step(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, jit: bool = False
) -> Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]:
    """Returns ``step(images, labels)``, which updates the model once.

    It takes ``images [batch, 32, 32, 3]`` (any real dtype, 0 to 255) and ``labels [batch]``, and returns the
    scalars fit, reg and acc of the batch before the update.
    """
    decayed = losses.decayed_variables(model)

    @tf.function(jit_compile=jit)
    def step(images: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            fit = tf.reduce_mean(losses.smoothed_cross_entropy(labels, logits))
            reg = losses.weight_decay(decayed)
            # a layer's own losses are trained on and not printed
            total = tf.add_n([fit, reg, *model.losses])
        gradients = tape.gradient(total, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return {"fit": fit, "reg": reg, "acc": accuracy(labels, logits)}

    return step


def accuracy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns the fraction of ``logits [batch, classes]`` whose largest is the label's, a float32 scalar."""
    hits = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), tf.cast(labels, tf.int32))
    return tf.reduce_mean(tf.cast(hits, tf.float32))


def train(settings: Settings, build_model: Callable[..., keras.Model]) -> float:
    """Trains a method as ``settings`` say, and returns its test accuracy.

    Args:
        settings: the run's.
        build_model: the method's; takes ``backbone`` (a callable that takes a layer factory).

    Raises:
        UserError: for settings that fit neither the data nor the machine.
    """
    jit = _select_device(settings)
    data = datasets.load(settings.dataset, settings.data_dir)
    print(data, flush=True)
    count = len(data.train_labels)
    if settings.batch_size > count:
        raise UserError(f"--batch_size={settings.batch_size} is larger than the training set, {count} pictures")

    keras.utils.set_random_seed(settings.seed)
    backbone = functools.partial(backbones.BACKBONES[settings.backbone], num_classes=data.num_classes, widths=settings.widths)
    model = build_model(backbone)
    optimizer = optimizers.Momentum(optimizers.step_decay(settings.base_lr, settings.iterations))
    optimizer.build(model.trainable_variables)
    step = make_train_step(model, optimizer, jit)
    # whole data sets stay on the device, as bytes
    train_images, train_labels = tf.constant(data.train_images), tf.constant(data.train_labels)

    @tf.function(jit_compile=jit)
    def augmented_step(picks: tf.Tensor) -> dict[str, tf.Tensor]:
        return step(datasets.augment(train_images, picks), tf.gather(train_labels, picks[:, 0]))

    test = _make_test(model, data, jit)
    report = Report(settings.log_dir, f"{settings.method}, {data.title}, {settings.backbone}")
    start = time.perf_counter()

    def elapsed() -> float:
        return round(time.perf_counter() - start, 3)

    batches = datasets.picks(settings.seed, 0, count, settings.batch_size, data.mirror)
    interactive = sys.stderr.isatty()
    progress = tqdm(
        total=settings.iterations,
        desc=settings.method,
        unit="it",
        dynamic_ncols=True,
        mininterval=0.2 if interactive else 30,
    )
    with progress:
        for iteration, batch in enumerate(itertools.islice(batches, settings.iterations)):
            figures = augmented_step(batch)
            last = iteration == settings.iterations - 1
            if iteration == 0:
                _ = float(figures["fit"])  # waits for the step itself, which a GPU runs while Python goes on
                first_step = elapsed()
            if iteration and iteration % settings.log_every == 0:
                row = {name: float(value) for name, value in figures.items()}
                row["learning_rate"] = optimizers.rate_at(optimizer, iteration)
                report.train(f"iter_{iteration}", iteration=iteration, seconds=elapsed(), **row)
            if last or (iteration and iteration % settings.eval_every == 0):
                test_accuracy = test()
                report.test(f"iter_{iteration}", iteration=iteration, test_acc=test_accuracy, seconds=elapsed())
            progress.update()
    seconds = elapsed()
    model.save(report.folder / "model.keras")
    report.close()
    print(f"test accuracy: {100 * test_accuracy:.2f} %")
    print(f"time: {seconds:.1f} s, of which {first_step:.1f} s to the end of the first step")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    print(f"results: {report.folder}")
    print(f"learning curves: {report.folder / 'curves.png'}")
    return test_accuracy


def _select_device(settings: Settings) -> bool:
    """Makes the GPU that was asked for the only one in sight, and returns whether to compile with XLA."""
    gpus = tf.config.list_physical_devices("GPU")
    number = settings.gpu_no
    if number is not None and number >= len(gpus):
        raise UserError(f"--gpu_no={number}: TensorFlow sees {len(gpus)} GPUs (numbered from 0)")
    if gpus:
        chosen = gpus[number or 0]
        tf.config.set_visible_devices(chosen, "GPU")
        tf.config.experimental.set_memory_growth(chosen, True)
    return settings.jit == "on" or (settings.jit == "auto" and bool(gpus))


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
