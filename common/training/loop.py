"""The one training loop: load, build, restore, train, and write the results."""

import dataclasses
import functools
import itertools
import resource
import sys
from collections.abc import Callable
from typing import cast

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from .. import backbones, convert, datasets, energy, layers, optimizers
from ..errors import UserError
from ..private import layers_by_path
from . import collapse, devices
from .checkpoints import Checkpoints
from .clock import Clock
from .environment import environment
from .interruption import Interruption, stop_after
from .method import Method, check_saving
from .precision import policy, scaled
from .progress_bar import progress_bar
from .run_folder import RunFolder
from .schedule import Chunk, Schedule
from .settings import BATCH_SIZE, Settings
from .steps import make_step, make_steps, make_test


def train(settings: Settings, method: Method) -> None:
    """Trains a method as ``settings`` say; the results are in their ``log_dir``.

    Raises:
        UserError: for settings that do not fit the data or the machine, and for a run that breaks
            down.
        SystemExit: after a stop signal, with the state saved.
    """
    # layer names are numbered from 0 in each run of a process; not inside the strategy's scope,
    # which this would break
    keras.utils.clear_session()
    strategy = devices.strategy_for(settings)
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    # one process writes; the others compute the same and write nothing
    folder = RunFolder(settings, writes=devices.is_chief(strategy))
    try:
        with folder, strategy.scope():
            run(settings, method, folder)
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        reason = f"a worker is gone ({type(error).__name__}); to go on, start all with --resume"
        raise UserError(reason) from error
    except tf.errors.ResourceExhaustedError as error:
        raise UserError(f"not enough memory: {error.message.splitlines()[0]}") from error


def run(
    settings: Settings, method: Method, folder: RunFolder
) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    """Makes the run within the current strategy, and returns its model and optimizer."""
    # load
    jit = devices.uses_xla(settings)
    # XLA cannot compile what devices exchange: gradients, and the moments of batch normalization
    jit_step = jit and settings.distribute == "none"
    # TF32 is too inaccurate for rotations. Under XLA their products ask for full precision
    # themselves, so TF32 can be on for the convolutions; without XLA it must be off
    tf.config.experimental.enable_tensor_float_32_execution(jit_step)
    data = datasets.load(settings.dataset, settings.data_dir, settings.image_size)
    if settings.train_images:
        data = data.part(settings.train_images)
    print(data, flush=True)
    count = len(data.train_labels)
    batch_size = _batch_size(settings.batch_size, count)
    settings = folder.settings = dataclasses.replace(settings, batch_size=batch_size)
    warmup = settings.usual_warmup(settings.iterations)
    if warmup and not settings.warmup_iterations and not settings.resume:
        usual = type(settings).iterations
        lengths = f"{settings.iterations:,} iterations, not the method's {usual:,}"
        print(f"note: a run of {lengths}, needs a warm-up: --warmup_iterations={warmup}")

    # build
    keras.utils.set_random_seed(settings.seed)
    model, optimizer = _build(settings, method, data.num_classes)
    check_saving(model)
    # on a GPU, where XLA is the default, the device should not wait for Python between two steps
    per_call = settings.steps_per_execution or (20 if jit_step else 1)
    step = make_step(method, model, optimizer, jit_maps=jit and not jit_step)
    steps = make_steps(step, data, batch_size, per_call, jit_step)
    # tests run on the plain model, so that a test of many batches evaluates each map once
    folded = convert.fold_model(model)
    test = make_test(folded, data, jit_step)
    *rotatable, _ = [layer for layer in folded.layers if hasattr(layer, "kernel")]  # not the scores
    neurons = {layer.name: layer for layer in rotatable}

    def layer_figures() -> dict[str, float]:
        """Returns each layer's drift, and the energy of the neurons that were folded last."""
        return energy.layer_energies(neurons) | energy.layer_drifts(layers_by_path(model))

    # restore
    title = f"{settings.method}, {data.title}, {settings.backbone}"
    variables = [*model.variables, *optimizer.variables]
    start_figures = layer_figures()
    progress = folder.open(title, variables, f"of {data.identity}", list(start_figures))
    first = progress.iteration
    facts = {"settings": settings.named(), "data": str(data), "jit": jit}
    # one that goes on from an earlier checkpoint, as its last one is damaged, is not
    is_finished = first == settings.iterations and folder.is_finished()
    if not is_finished:  # a finished run keeps its summary
        folder.describe(**facts, **environment())
    if settings.resume:
        print(f"going on after {first:,} iterations", flush=True)
        folder.describe(resumed_after=first)
    else:
        folder.note(iteration=0, **start_figures)

    # train
    watch = collapse.Watch(data.num_classes, **progress.collapse)
    clock = Clock(progress.seconds)
    every = settings.log_every, settings.eval_every, settings.checkpoint_every
    length = method.episode_length
    schedule = Schedule(settings.iterations, *every, length, per_call)
    batches = datasets.draws(settings.seed, first, count, batch_size, data.mirror, length)

    def save(iteration: int, kind: str = "checkpoint") -> None:
        with clock.part("saving"):
            reached = dataclasses.replace(
                progress, iteration=iteration, seconds=clock.seconds(), collapse=watch.memory()
            )
            folder.save(reached, kind)

    # the run was killed between its best checkpoint and the regular one
    good = folder.checkpoints.good
    if first and schedule.saves_after(first) and good and good.name.startswith("best"):
        save(first)
    bar = progress_bar(settings.method, settings.iterations, first)
    with Interruption() as interruption, bar:
        for chunk in schedule.chunks(first):
            if chunk.episode is not None and method.start_episode:
                method.start_episode(model, settings.seed, chunk.episode)
            draws = np.stack(list(itertools.islice(batches, chunk.count)))
            with clock.part("first step" if chunk.start == first else "training"):
                figures = _advance(steps, draws, chunk, watch, optimizer, folder.checkpoints)
            bar.update(chunk.count)

            row: dict[str, float] = {"iteration": chunk.last}
            if chunk.log:
                rate = optimizers.rate_at(optimizer, chunk.last)
                folder.log(chunk.log, **row, learning_rate=rate, seconds=clock.seconds(), **figures)
            if chunk.test:
                with clock.part("tests"):
                    convert.refold(model, folded)
                    accuracy = test()
                    row |= {"test_acc": accuracy, "seconds": clock.seconds(), **layer_figures()}
                    folder.test(chunk.test, **row)
                progress = dataclasses.replace(progress, test_accuracy=accuracy)
                if accuracy > progress.best_accuracy:
                    progress = dataclasses.replace(progress, best_accuracy=accuracy)
                    save(chunk.end, "best")
            if chunk.save:
                save(chunk.end)
            if interruption.signal and chunk.end < settings.iterations:
                save(chunk.end)
                stop_after(interruption.signal, chunk.end)

    # write the results
    made = settings.iterations - first
    seconds = clock.seconds()
    if not is_finished:
        with clock.part("saving"):
            convert.refold(model, folded)
            folder.save_results(model, folded, data.class_names)
        if collapsed := watch.collapsed:
            collapsed = collapsed | {"rate": optimizers.rate_at(optimizer, collapsed["iteration"])}
        step_ms = 1e3 * clock.parts["training"] / (made - 1) if made > 1 else None
        folder.describe(
            test_accuracy=progress.test_accuracy,
            memory_gib=peak_memory(),
            collapsed=collapsed,
            seconds=seconds,
            first_step_s=round(clock.parts["first step"], 3),
            step_ms=step_ms and round(step_ms, 3),
        )
    accuracy = cast(float, progress.test_accuracy)  # every run ends with a test
    print(f"test accuracy: {100 * accuracy:.2f} %")
    print(f"time: {clock.summary(made - 1)}")
    print(f"peak memory: {peak_memory():.2f} GiB")
    place = folder.path.absolute()
    print(f"results: {place}\nlearning curves: {place / 'curves.png'}")
    return model, optimizer


def _batch_size(asked: int | None, images: int) -> int:
    """Returns the number of images per step: the one asked for, or 128 or the most that fit.

    Raises:
        UserError: if the one asked for does not fit the training images or the devices.
    """
    devices = tf.distribute.get_strategy().num_replicas_in_sync
    size = asked or max(1, min(BATCH_SIZE, images) // devices) * devices
    if size % devices:
        raise UserError(f"--batch_size={size} cannot be shared by {devices} devices")
    if size > images:
        raise UserError(f"--batch_size={size} is larger than the training set, {images} images")
    if not asked and size != BATCH_SIZE:
        why = f"{images} training images" + f", {devices} devices" * (devices > 1)
        print(f"note: --batch_size={size}, not {BATCH_SIZE}: there are {why}")
    return size


def _build(
    settings: Settings, method: Method, num_classes: int
) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    """Returns the model and its optimizer."""
    options: dict = {"num_classes": num_classes, "image_size": settings.image_size}
    options |= {"widths": settings.widths} if settings.widths else {}
    backbone = functools.partial(backbones.known()[settings.backbone], **options)
    with policy(settings.precision):
        model = method.build_model(backbone)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.synchronized = tf.distribute.get_strategy().num_replicas_in_sync > 1
    decay = functools.partial(
        optimizers.step_decay,
        iterations=settings.iterations,
        drops=method.drops,
        warmup=settings.warmup_iterations,
    )
    optimizer = method.make_optimizer(settings.base_lr, decay)
    return model, scaled(optimizer, settings.precision)


def _advance(
    steps: Callable,
    draws: np.ndarray,
    chunk: Chunk,
    watch: collapse.Watch,
    optimizer: keras.optimizers.Optimizer,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    """Makes the chunk's training steps and returns the figures of the last."""
    try:
        figures, course = steps(draws)
    except tf.errors.InvalidArgumentError as error:  # a solver that refuses NaN
        reason = error.message.splitlines()[0]
        reason = f"training broke down at iteration {chunk.start}: {reason}"
        raise UserError(reason + checkpoints.how_to_go_on()) from error
    for i, fit in enumerate(course[:, 0], start=chunk.start):
        if not np.isfinite(fit):
            rate = optimizers.rate_at(optimizer, i)
            reason = f"the loss is {fit} at iteration {i}, with a learning rate of {rate}"
            raise UserError(reason + checkpoints.how_to_go_on())
    if found := watch.update(chunk.start, course.tolist()):
        i, rate = found["iteration"], optimizers.rate_at(optimizer, found["iteration"])
        words = f"warning: the network has collapsed: at iteration {i} it has been "
        words += f"{found['state']} for {collapse.PATIENCE} iterations, at a learning rate of "
        tqdm.write(f"{words}{rate}; a longer --warmup_iterations may prevent it", file=sys.stderr)
    return {name: float(value) for name, value in figures.items()}


def peak_memory() -> float:
    """Returns the peak memory so far in GiB: of the GPU if there is one, else of the process."""
    if tf.config.get_visible_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**30
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**30 if sys.platform == "darwin" else 2**20)  # macOS counts bytes, Linux KiB
