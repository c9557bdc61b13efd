"""The one training loop: load, build, restore, train, and write the results."""

import dataclasses
import functools
import itertools
import sys
import time

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from .. import backbones, convert, datasets, energy, layers, optimizers
from ..errors import UserError
from ..private import layers_by_path
from . import collapse, devices
from .environment import environment, peak_memory
from .evaluation import RENEWAL, make_test, renew_averages
from .interruption import Interruption, stop_after
from .method import Method, check_saving
from .progress_bar import progress_bar
from .run_folder import RunFolder
from .schedule import chunks
from .settings import BATCH_SIZE, Settings
from .steps import make_step, make_steps, policy, scaled


def train(settings: Settings, method: Method) -> None:
    """Trains a method as ``settings`` say; the results are in their ``log_dir``.

    Raises:
        UserError: for settings that do not fit data or machine, and for a run that breaks down.
        SystemExit: after a stop signal, with the state saved.
    """
    # so that layer names are numbered from 0; inside the strategy's scope it would break that
    keras.utils.clear_session()
    strategy = devices.strategy_for(settings)
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    workers = strategy.cluster_resolver
    # one process writes; the others compute the same and write nothing
    folder = RunFolder(settings, writes=workers is None or workers.task_id == 0)
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
    on_gpu = bool(tf.config.get_visible_devices("GPU"))
    jit = on_gpu if settings.jit == "auto" else settings.jit == "on"
    # XLA cannot compile what devices exchange: gradients, and the moments of batch normalization
    jit_step = jit and settings.distribute == "none"
    # TF32 is too inaccurate for rotations; under XLA their products do not use it
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
    # on a GPU, where XLA is the default, a step is shorter than Python's work between two
    per_call = 20 if jit_step else 1
    step = make_step(method, model, optimizer, settings.weight_decay, jit and not jit_step)
    steps = make_steps(step, data, batch_size, per_call, jit_step)
    # tests run on the plain model, so that a test of many batches evaluates each map once
    folded = convert.fold_model(model)
    test = make_test(folded, data, jit_step)
    neurons = {layer.name: layer for layer in folded.layers if hasattr(layer, "kernel")}
    neurons.popitem()  # the scores

    def layer_figures() -> dict[str, float]:  # energies are of the neurons folded last
        return energy.layer_energies(neurons) | energy.layer_drifts(layers_by_path(model))

    # restore
    title = f"{settings.method}, {data.title}, {settings.backbone}"
    variables, identity = [*model.variables, *optimizer.variables], data.identity
    progress = folder.open(title, variables, f"of {identity}", layer_figures())
    first = progress.iteration
    # one that goes on from an earlier checkpoint, as its last one is damaged, is not
    is_finished = first == settings.iterations and folder.is_finished()
    if not is_finished:
        folder.facts.pop("test_accuracy", None)
        about = {"data": str(data), "identity": identity, "jit": jit}
        folder.describe(settings=settings.named(), **about, **environment())
    if settings.resume:
        print(f"going on after {first:,} iterations", flush=True)
        folder.describe(resumed_after=first)

    # train
    length = method.episode_length
    batches = datasets.draws(settings.seed, first, count, batch_size, data.mirror, length)
    began, has_warned = time.perf_counter() - progress.seconds, False
    times: list[float] = []  # of each chunk

    def seconds() -> float:  # without the time between two starts
        return round(time.perf_counter() - began, 3)

    def save(iteration: int) -> None:
        folder.save(dataclasses.replace(progress, iteration=iteration, seconds=seconds()))

    bar = progress_bar(settings.method, settings.iterations, first)
    with Interruption() as interruption, bar:
        for chunk in chunks(settings, first, length, per_call):
            if chunk.episode is not None and method.start_episode:
                method.start_episode(model, settings.seed, chunk.episode)
            last, number = chunk.end - 1, chunk.end - chunk.start
            draws = np.stack(list(itertools.islice(batches, number)))
            start = time.perf_counter()
            try:
                figures, fits = steps(draws)
            except tf.errors.InvalidArgumentError as error:  # a solver that refuses NaN
                reason = f"iteration {chunk.start} failed: {error.message.splitlines()[0]}"
                raise UserError(reason + folder.checkpoints.how_to_go_on()) from error
            times.append(time.perf_counter() - start)
            if not np.isfinite(fits).all():
                at = int(np.argmin(np.isfinite(fits)))
                rate = optimizers.rate_at(optimizer, chunk.start + at)
                reason = f"the loss is {fits[at]} at iteration {chunk.start + at} and rate {rate}"
                raise UserError(reason + folder.checkpoints.how_to_go_on())
            bar.update(number)

            row: dict[str, float] = {"iteration": last}
            if chunk.log:
                batch = {name: float(value) for name, value in figures.items()}
                rate = optimizers.rate_at(optimizer, last)
                folder.log(chunk.log, **row, learning_rate=rate, seconds=seconds(), **batch)
                recent = folder.history[-2 * collapse.PATIENCE :]  # tests have rows too
                state = collapse.of_run(recent, data.num_classes)
                if state and not has_warned and last >= collapse.PATIENCE > settings.log_every:
                    has_warned = True
                    words = f"warning: the network has collapsed: at iteration {last} it has been "
                    words += f"{state} for {collapse.PATIENCE} iterations, at a learning rate of "
                    words += f"{rate}; a longer --warmup_iterations may prevent it"
                    tqdm.write(words, file=sys.stderr)
            if chunk.test:
                convert.refold(model, folded)
                accuracy = test()
                row |= {"test_acc": accuracy, "seconds": seconds(), **layer_figures()}
                folder.test(chunk.test, **row)
                progress = dataclasses.replace(progress, test_accuracy=accuracy)
            stops = interruption.signal if chunk.end < settings.iterations else None
            if chunk.save or stops:
                save(chunk.end)
            if stops:
                stop_after(stops, chunk.end)

    # write the results
    accuracy = progress.test_accuracy  # every run ends with a test
    total, memory, others = seconds(), peak_memory(), settings.iterations - first - 1
    first_step_s = round(sum(times[:1]), 3)
    step_ms = round(1e3 * sum(times[1:]) / others, 3) if others > 0 else None
    if not is_finished:
        convert.refold(model, folded)
        folder.save_results(model, folded, data.class_names)
        batches = datasets.draws(settings.seed, 0, count, batch_size, data.mirror)
        few = itertools.islice(batches, min(RENEWAL, settings.iterations))
        renew_averages(folded, data, few, jit_step)
        renewed = test()
        print(f"test accuracy with renewed averages: {100 * renewed:.2f} %")
        took = {"seconds": total, "first_step_s": first_step_s, "step_ms": step_ms}
        folder.describe(test_accuracy=accuracy, renewed_accuracy=renewed, memory_gib=memory, **took)
    print(f"test accuracy: {100 * accuracy:.2f} %")
    pace = f", then {step_ms:.1f} ms per step" if step_ms else ""
    print(f"time: {total:.1f} s: {first_step_s:.1f} s to the end of the first step{pace}")
    print(f"peak memory: {memory:.2f} GiB")
    print(f"results: {folder.path.absolute()}")
    print(f"learning curves: {folder.path.absolute() / 'curves.png'}")
    return model, optimizer


def _batch_size(asked: int | None, images: int) -> int:
    """Returns the images per step: those asked for, or 128 or the most that fit."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    size = asked or max(1, min(BATCH_SIZE, images) // replicas) * replicas
    if size % replicas:
        raise UserError(f"--batch_size={size} cannot be shared by {replicas} devices")
    if size > images:
        raise UserError(f"--batch_size={size} is larger than the training set, {images} images")
    if not asked and size != BATCH_SIZE:
        why = f"{images} training images" + f", {replicas} devices" * (replicas > 1)
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
    course = {"iterations": settings.iterations, "warmup": settings.warmup_iterations}
    decay = functools.partial(optimizers.step_decay, **course, drops=method.drops)
    return model, scaled(method.make_optimizer(settings.base_lr, decay), settings.precision)
