"""A run whose loss stays dead says so once, and a comparison finds it in metrics.csv."""

import math
import re

import numpy as np
import pytest
import tensorflow as tf

from common import losses
from common.training import collapse
from comparison.results import read
from tests.test_scripts import SMALL, train


def of_logits(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Returns the loss and accuracy that training has for these logits."""
    fit = tf.reduce_mean(losses.smoothed_cross_entropy(labels, tf.constant(logits, tf.float32)))
    return float(fit), float(np.mean(logits.argmax(-1) == labels))


@pytest.mark.parametrize("classes", [10, 100])
def test_the_states_are_those_of_the_loss(classes):
    """Against the loss itself: equal scores, certain ones (with any number of hits), and others."""
    labels = np.arange(128) % classes
    assert collapse.state(*of_logits(np.zeros((128, classes)), labels), classes) == "guessing"
    assert collapse.state(math.log(classes), 1 / classes, classes) == "guessing"
    certain = np.zeros((128, classes))
    certain[:, 3] = 1e4
    for hits in (0, 1, 3, 20):
        some = np.where(np.arange(128) < hits, 3, (labels + (labels == 3)) % classes)
        assert collapse.state(*of_logits(certain, some), classes) == "saturated"
    random = np.random.default_rng(0).normal(size=(128, classes))
    assert collapse.state(*of_logits(random, labels), classes) is None
    for scale in (5, 10, 1e4):  # the last are certain and right
        right = scale * np.eye(classes)[labels]
        assert collapse.state(*of_logits(right, labels), classes) is None


DEAD, SATURATED, ALIVE = (4.5952, 0.01), (9.1382, 1 / 128), (4.3, 0.03)


@pytest.mark.parametrize(
    ("batches", "state"),
    [
        ([], None),
        ([DEAD, DEAD], "guessing"),  # of a shorter run
        ([ALIVE, *[DEAD] * 3], "guessing"),
        ([DEAD, ALIVE, DEAD, DEAD], None),
        # two states do not add up to one
        ([DEAD, SATURATED, DEAD, DEAD], None),
        # the authors' published network comes back after some 1,900 iterations
        ([SATURATED] * 19, "saturated"),
        ([*[SATURATED] * 19, ALIVE], None),
    ],
)
def test_all_batches_of_the_last_300_iterations_show_it(batches, state):
    rows = [{"iteration": 100.0 * i, "fit": f, "acc": a} for i, (f, a) in enumerate(batches)]
    tested = [{"iteration": 100.0 * len(batches) + 300, "test_acc": 0.01}]
    assert collapse.of_run(rows + tested, 100) == state


def test_a_collapsed_run_says_so_once(tmp_path, capsys):
    """Rate 1 saturates plain training within some steps; its drops leave it there."""
    words = ["--base_lr=1", "--iterations=600", "--batch_size=16", f"--log_dir={tmp_path}"]
    train("baseline", *SMALL[:2], *words)
    (line,) = re.findall(r"warning: the network has collapsed: .*", capsys.readouterr().err)
    for word in ("saturated", "300 iterations", "learning rate of ", "--warmup_iterations"):
        assert word in line
    assert re.search("at iteration (300|400|500) ", line)
    assert read(tmp_path).figures["collapsed"] == "saturated"
