"""The one training loop."""

import contextlib
import dataclasses
import functools
import itertools
import resource
import shlex
import signal
import sys
import time
import zlib
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from common import backbones, collapse, convert, datasets, devices, energy, layers, losses, optimizers
from common.checkpoints import Checkpoints, Progress, locked
from common.errors import UserError
from common.flags import BEFORE, Settings
from common.reporting import Report, Silent, surroundings

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
    """Returns ``step(images, labels)``, a `tf.function` that updates the model once.

    It takes ``images [batch, 32, 32, 3]`` (any real dtype, 0 to 255) and ``labels [batch]``, and returns the
    scalars fit, reg, acc and penalty (of the layers' own losses) of the batch before the update. On several replicas
    each takes its share of the batch.
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
            # the optimizer adds up the replicas' gradients
            total /= tf.distribute.get_strategy().num_replicas_in_sync
        gradients = tape.gradient(total, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return {"fit": fit, "reg": reg, "acc": accuracy(labels, logits), "penalty": penalty}

    return step


def _make_steps(
    step: Callable, data: datasets.Dataset, batch_size: int, limit: int, jit: bool
) -> Callable[[np.ndarray], tuple[dict[str, tf.Tensor], tf.Tensor]]:
    """Returns ``steps(picks [count, batch, 4])``, up to ``limit`` training steps in one call of the device.

    It returns the figures of the last step, and ``[count, 2]``, fit and acc of each. The
    whole training set stays on the device, as bytes.
    """
    strategy = tf.distribute.get_strategy()
    images, labels = tf.constant(data.train_images), tf.constant(data.train_labels)
    share = batch_size // strategy.num_replicas_in_sync

    def replica_step(picks: tf.Tensor) -> dict[str, tf.Tensor]:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        if share < batch_size:
            picks = tf.slice(picks, [replica * share, 0], [share, 4])
        # not the tf.function, within which replicas cannot meet
        return step.python_function(datasets.augment(images, picks), tf.gather(labels, picks[:, 0]))

    def one(picks: tf.Tensor) -> dict[str, tf.Tensor]:
        figures = strategy.run(replica_step, (picks,))
        return {name: strategy.reduce("MEAN", value, axis=None) for name, value in figures.items()}

    @tf.function(jit_compile=jit)
    def steps(picks: tf.Tensor, count: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        def both(figures: dict[str, tf.Tensor]) -> tf.Tensor:
            return tf.stack([figures["fit"], tf.cast(figures["acc"], figures["fit"].dtype)])

        figures = one(picks[0])
        course = tf.pad([both(figures)], [[0, limit - 1], [0, 0]])

        def another(i: tf.Tensor, _, course: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor], tf.Tensor]:
            figures = one(picks[i])
            return i + 1, figures, tf.tensor_scatter_nd_update(course, [[i]], [both(figures)])

        if limit > 1:
            _, figures, course = tf.while_loop(lambda i, *_: i < count, another, [1, figures, course])
        return figures, course

    def run(picks: np.ndarray) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        # always of one shape, so that one program serves
        filled = np.concatenate([picks, np.zeros((limit - len(picks), *picks.shape[1:]), picks.dtype)])
        figures, course = steps(tf.constant(filled), tf.constant(len(picks)))
        return figures, course[: len(picks)]

    return run


def accuracy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns the fraction of ``logits [batch, classes]`` whose largest is the label's, a float32 scalar."""
    hits = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), tf.cast(labels, tf.int32))
    return tf.reduce_mean(tf.cast(hits, tf.float32))


def train(settings: Settings, method: Method) -> float:
    """Trains a method as ``settings`` say, and returns its test accuracy.

    Raises:
        UserError: for settings that fit neither the data nor the machine, and for a run that breaks down.
        SystemExit: after SIGTERM or SIGINT, with the state saved.
    """
    strategy = devices.strategy_for(settings)
    if settings.batch_size % strategy.num_replicas_in_sync:
        raise UserError(f"--batch_size={settings.batch_size} cannot be shared by {strategy.num_replicas_in_sync} devices")
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    # one process writes; the others compute the same and keep it to themselves
    writes = devices.is_chief(strategy)
    with locked(settings.log_dir) if writes else contextlib.nullcontext(), strategy.scope():
        try:
            return _Run(settings, method, writes).finish()
        except OSError as error:
            raise UserError(f"--log_dir={settings.log_dir} cannot be written: {error.strerror or error}") from error
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
            raise UserError(f"a worker is gone ({type(error).__name__}); to go on, start all with --resume") from error
        except tf.errors.ResourceExhaustedError as error:
            raise UserError(f"not enough memory: {error.message.splitlines()[0]}") from error


class _Run:
    """One run, from its settings to its results."""

    def __init__(self, settings: Settings, method: Method, writes: bool):
        self.settings, self.method, self.writes = settings, method, writes
        jit = devices.uses_xla(settings)
        # its 10 bits of mantissa spoil the maps; under XLA those are kept out of it one by one, and convolutions may have it
        tf.config.experimental.enable_tensor_float_32_execution(jit)
        self.data = data = datasets.load(settings.dataset, settings.data_dir)
        print(data, flush=True)
        count = len(data.train_labels)
        if settings.batch_size > count:
            raise UserError(f"--batch_size={settings.batch_size} is larger than the training set, {count} pictures")

        keras.utils.set_random_seed(settings.seed)
        backbone = functools.partial(backbones.BACKBONES[settings.backbone], num_classes=data.num_classes)
        self.model = method.build_model(backbone, **({"widths": settings.widths} if settings.widths else {}))
        for layer in self.model.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.synchronized = tf.distribute.get_strategy().num_replicas_in_sync > 1
        decay = functools.partial(
            optimizers.step_decay, iterations=settings.iterations, drops=method.drops, warmup=settings.warmup_iterations
        )
        self.optimizer = method.make_optimizer(settings.base_lr, decay)
        step = make_train_step(method, self.model, self.optimizer, jit)
        # a GPU, on which XLA is the default, should not wait for Python between two steps
        self.limit = settings.steps_per_execution or (20 if jit else 1)
        self.steps = _make_steps(step, data, settings.batch_size, self.limit, jit)
        # tests run on the plain model, so that a test of many batches evaluates each map once
        self.folded = convert.fold_model(self.model)
        self.test = _make_test(self.folded, data, jit)
        self.rotated = [layer for layer in self.folded.layers if hasattr(layer, "kernel") and layer.name != "score"]

        alike = settings.of_the_result() | {"pictures": f"of {data.title} with the sum {zlib.crc32(data.train_images):08x}"}
        variables = [*self.model.variables, *self.optimizer.variables]
        self.checkpoints = Checkpoints(settings.log_dir / "checkpoints", variables, alike, BEFORE)
        start_row = self._layers()
        self.progress = self.checkpoints.restore() if settings.resume else Progress()
        self.watch = collapse.Watch(data.num_classes, **self.progress.collapse)
        self.report: Report | Silent = Silent()
        if self.writes:
            if self.checkpoints.newest() and not settings.resume:
                print(f"note: starting anew; the checkpoints that are in {settings.log_dir} are kept under their run's number")
            title = f"{settings.method}, {data.title}, {settings.backbone}"
            self.report = Report(settings.log_dir, title, list(start_row), self.progress.logs if settings.resume else None)
        self.report.describe(settings=dataclasses.asdict(settings), data=str(data), jit=jit, **surroundings())
        if settings.resume:
            print(f"going on after {self.progress.iteration:,} iterations", flush=True)
            self.report.describe(resumed_after=self.progress.iteration)
        else:
            self.report.note(iteration=0, **start_row)

    def finish(self) -> float:
        """Trains to the end, writes the results and returns the test accuracy."""
        settings, method, data = self.settings, self.method, self.data
        done = first = self.progress.iteration
        batches = datasets.picks(
            settings.seed, done, len(data.train_labels), settings.batch_size, data.mirror, method.episode_length
        )
        self.earlier, self.began = self.progress.seconds, time.perf_counter()
        first_step = aside = 0.0  # seconds: of the first call, with its compilation, and of what is no training step
        with _Interruption() as interruption, self._progress_bar() as bar:
            while done < settings.iterations and not interruption.signal:
                episode, i = divmod(done, self._length())
                if i == 0 and method.start_episode:
                    method.start_episode(self.model, settings.seed, episode)
                picks = np.stack(list(itertools.islice(batches, self._steps_to_event(done, first))))
                figures = self._advance(picks, done)
                if done == first:
                    first_step = time.perf_counter() - self.began
                done += len(picks)
                bar.update(len(picks))
                before = time.perf_counter()
                self._report(done, figures)
                aside += time.perf_counter() - before
        if done < settings.iterations:
            self._leave(done, interruption.signal)
        seconds = self._seconds()
        if self.writes:
            self.model.save(settings.log_dir / "model.keras")
            self.folded.save(settings.log_dir / "folded.keras")
            (settings.log_dir / "classes.txt").write_text("\n".join(data.class_names) + "\n")
        memory, test_accuracy = peak_memory(), self.progress.test_accuracy
        steps = done - first
        step_ms = 1e3 * (time.perf_counter() - self.began - aside - first_step) / (steps - 1) if steps > 1 else None
        times = {"seconds": seconds, "first_step_s": round(first_step, 3), "step_ms": step_ms and round(step_ms, 3)}
        collapsed = self.watch.collapsed
        if collapsed:
            collapsed = collapsed | {"rate": optimizers.rate_at(self.optimizer, collapsed["iteration"])}
        self.report.describe(test_accuracy=test_accuracy, memory_gib=memory, collapsed=collapsed, **times)
        print(f"test accuracy: {100 * test_accuracy:.2f} %")
        pace = f"; then {step_ms:.1f} ms a step" if step_ms else ""
        print(f"time: {seconds:.1f} s, of which {first_step:.1f} s to the end of the first step{pace}")
        self.report.close()
        print(f"peak memory: {memory:.2f} GiB")
        print(f"results: {settings.log_dir.absolute()}")
        print(f"learning curves: {settings.log_dir.absolute() / 'curves.png'}")
        return test_accuracy

    def _length(self) -> int:
        return self.method.episode_length or self.settings.iterations

    def _is_logged(self, iteration: int) -> bool:
        i = iteration % self._length()
        return i > 0 and i % self.settings.log_every == 0

    def _is_tested(self, iteration: int) -> bool:
        i = iteration % self._length()
        return (i > 0 and i % self.settings.eval_every == 0) or self._ends(iteration)

    def _ends(self, iteration: int) -> bool:
        """Returns whether an episode or the run ends with this iteration."""
        return iteration % self._length() == self._length() - 1 or iteration == self.settings.iterations - 1

    def _is_saved(self, iteration: int) -> bool:
        return (iteration + 1) % self.settings.checkpoint_every == 0 or iteration == self.settings.iterations - 1

    def _steps_to_event(self, done: int, first: int) -> int:
        """Returns how many steps the device can make until Python has something to do."""
        for iteration in range(done, done + self.limit):
            if iteration == first or self._is_logged(iteration) or self._is_tested(iteration) or self._is_saved(iteration):
                return iteration - done + 1
        return self.limit

    def _advance(self, picks: np.ndarray, done: int) -> dict[str, float]:
        """Makes the training steps of ``picks [count, batch, 4]`` and returns the figures of the last."""
        try:
            figures, course = self.steps(picks)
            course = course.numpy()
            fits = course[:, 0]
        except tf.errors.InvalidArgumentError as error:  # a solver that refuses NaN
            reason = f"training broke down at iteration {done}: {error.message.splitlines()[0]}"
            raise UserError(reason + self.checkpoints.last_words()) from error
        if not np.isfinite(fits).all():
            at = int(np.argmin(np.isfinite(fits)))
            rate = optimizers.rate_at(self.optimizer, done + at)
            reason = f"the loss is {fits[at]} at iteration {done + at}, with a learning rate of {rate}"
            raise UserError(reason + self.checkpoints.last_words())
        if self.watch.update(done, course.tolist()):
            self._tell_of_collapse()
        return {name: float(value) for name, value in figures.items()}

    def _tell_of_collapse(self) -> None:
        iteration, state = self.watch.collapsed["iteration"], self.watch.collapsed["state"]
        rate = optimizers.rate_at(self.optimizer, iteration)
        loss = {"guessing": f"of guessing, log({self.data.num_classes})", "saturated": "of saturated scores, -log(1e-4)"}[state]
        tqdm.write(
            f"warning: the network has collapsed: at iteration {iteration} the loss has been that {loss}, for "
            f"{collapse.PATIENCE} iterations, at a learning rate of {rate}; --warmup_iterations=400 may prevent it",
            file=sys.stderr,
        )

    def _report(self, done: int, figures: dict[str, float]) -> None:
        """Logs, tests and saves, as is due after ``done`` iterations."""
        iteration = done - 1
        episode, i = divmod(iteration, self._length())
        prefix = f"episode_{episode}====" if self.method.episode_length else ""
        if self._is_logged(iteration):
            rate = optimizers.rate_at(self.optimizer, iteration)
            self.report.train(f"{prefix}iter_{i}", iteration=iteration, learning_rate=rate, seconds=self._seconds(), **figures)
        if self._is_tested(iteration):
            label = f"episode_{episode}" if prefix and self._ends(iteration) else f"{prefix}iter_{i}"
            convert.refold(self.model, self.folded)
            accuracy = self.test()
            self.report.test(label, iteration=iteration, test_acc=accuracy, seconds=self._seconds(), **self._layers())
            best = max(accuracy, self.progress.best_accuracy)
            improved = best > self.progress.best_accuracy
            self.progress = dataclasses.replace(self.progress, test_accuracy=accuracy, best_accuracy=best)
            if improved:
                self._save(done, "best")
        if self._is_saved(iteration):
            self._save(done)

    def _save(self, done: int, kind: str = "checkpoint") -> None:
        if self.writes:
            logs = self.report.sizes()
            self.progress = dataclasses.replace(
                self.progress, iteration=done, seconds=self._seconds(), logs=logs, collapse=self.watch.memory()
            )
            self.checkpoints.save(self.progress, kind)

    def _leave(self, done: int, number: int) -> None:
        """Ends the process after a signal, with the state saved."""
        self._save(done)
        words = [word for word in sys.argv if word not in ("--resume", "--resume=true")]
        command = shlex.join(["python", *words, "--resume"])
        print(f"\n{signal.Signals(number).name} after {done:,} iterations; to go on: {command}", file=sys.stderr)
        raise SystemExit(128 + number)

    def _seconds(self) -> float:
        """Returns the time since the run began, less what lay between its parts."""
        return round(self.earlier + time.perf_counter() - self.began, 3)

    def _layers(self) -> dict[str, float]:
        """Returns each layer's drift, and the energy of what was folded last."""
        return energy.layer_energies(self.rotated) | energy.layer_drifts(self.model.layers)

    def _progress_bar(self) -> tqdm:
        # a log file gets a line every half minute, a terminal a bar that moves
        interval = 0.2 if sys.stderr.isatty() else 30
        total, start, name = self.settings.iterations, self.progress.iteration, self.settings.method
        return tqdm(desc=name, total=total, initial=start, unit="it", dynamic_ncols=True, mininterval=interval)


class _Interruption:
    """Notes SIGTERM and SIGINT, which the loop then heeds, in place of ending at once; the second one does."""

    signal: int | None = None

    def __enter__(self):
        self.before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _note(self, number: int, _) -> None:
        self.signal = number
        self.__exit__()

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def peak_memory() -> float:
    """Returns the most memory used so far in GiB: the GPU's where there is one, else the process's own."""
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
