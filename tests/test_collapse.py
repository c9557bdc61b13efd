"""A run whose loss stays dead says so once, and remembers it through a checkpoint."""

import json
import math
import re

import numpy as np
import pytest
import tensorflow as tf

from common import losses
from common.training import collapse
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
    assert collapse.state(*of_logits(5 * np.eye(classes)[labels], labels), classes) is None


def watched(courses: list[list[tuple[float, float]]], **memory) -> tuple[list[int], dict | None]:
    """Returns after which parts a watch spoke, and what it remembers in the end."""
    watch, at, spoke = collapse.Watch(100, **memory), 0, []
    for number, course in enumerate(courses):
        if watch.update(at, course):
            spoke.append(number)
        at += len(course)
        # as through a checkpoint
        watch = collapse.Watch(100, **json.loads(json.dumps(watch.memory())))
    return spoke, watch.collapsed


DEAD, SATURATED, ALIVE = (4.5952, 0.01), (9.1382, 1 / 128), (4.3, 0.03)


def test_it_speaks_once_and_remembers():
    assert watched([[DEAD] * 299, [ALIVE], [DEAD] * 299]) == ([], None)
    # two states do not add up to one
    assert watched([[DEAD] * 200, [SATURATED] * 200]) == ([], None)
    spoke, kept = watched([[ALIVE] * 50, [DEAD] * 200, [DEAD] * 200, [DEAD] * 900])
    assert (spoke, kept) == ([2], {"iteration": 349, "state": "guessing", "until": None})
    # the authors' published network comes back after some 1,900 iterations
    spoke, kept = watched([[SATURATED] * 1900, [ALIVE] * 100])
    assert (spoke, kept) == ([0], {"iteration": 299, "state": "saturated", "until": 1899})
    # and one that falls back is collapsed again, without a second line
    spoke, kept = watched([[SATURATED] * 400, [ALIVE], [SATURATED] * 400])
    assert (spoke, kept["until"]) == ([0], None)


def test_a_collapsed_run_says_so_once(tmp_path, capsys):
    """Rate 1 throws plain training into saturation within some steps; its drops to 0.1 and less
    leave it there.
    """
    words = ["--base_lr=1", "--iterations=600", "--batch_size=16", f"--log_dir={tmp_path}"]
    train("baseline", *SMALL[:2], *words)
    lines = re.findall(r"warning: the network has collapsed: .*", capsys.readouterr().err)
    assert len(lines) == 1
    for word in ("saturated", "300 iterations", "learning rate of ", "--warmup_iterations"):
        assert word in lines[0]
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["collapsed"]["state"] == "saturated"
    assert 299 <= facts["collapsed"]["iteration"] < 600
    assert f"at iteration {facts['collapsed']['iteration']} " in lines[0]
