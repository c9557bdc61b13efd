"""When a run logs, tests and saves."""

import pytest

from common.training.schedule import Schedule


def due(schedule: Schedule, done: int = 0) -> list[tuple]:
    """Returns (last iteration, log, test, save) of the chunks where anything is due."""
    chunks = list(schedule.chunks(done))
    return [(c.last, c.log, c.test, c.save) for c in chunks if c.log or c.test or c.save]


def test_the_originals_lines():
    """Lines at 100, 200, ..., tests at 500, 1000, ... and after the last iteration; nothing at
    0.
    """
    events = due(Schedule(75_000))
    logged = [log for _, log, _, _ in events if log]
    tested = [test for _, _, test, _ in events if test]
    assert logged == [f"iter_{i}" for i in range(100, 75_000, 100)]
    assert tested == [*(f"iter_{i}" for i in range(500, 75_000, 500)), "iter_74999"]
    assert [last + 1 for last, _, _, save in events if save] == list(range(1000, 75_001, 1000))


def test_episodes():
    """S-OPT counts from 0 in each episode and tests at its end; the next begins with a chunk."""
    schedule = Schedule(20, log_every=3, eval_every=5, checkpoint_every=100, episode_length=8)
    assert due(schedule) == [
        (3, "episode_0====iter_3", None, False),
        (5, None, "episode_0====iter_5", False),
        (6, "episode_0====iter_6", None, False),
        (7, None, "episode_0", False),
        (11, "episode_1====iter_3", None, False),
        (13, None, "episode_1====iter_5", False),
        (14, "episode_1====iter_6", None, False),
        (15, None, "episode_1", False),
        (19, "episode_2====iter_3", "episode_2", True),
    ]
    starts = {c.start: c.episode for c in schedule.chunks() if c.episode is not None}
    assert starts == {0: 0, 8: 1, 16: 2}


@pytest.mark.parametrize("per_call", [1, 4, 20])
@pytest.mark.parametrize("done", [0, 1, 8, 11, 29])
@pytest.mark.parametrize("episode_length", [None, 7])
def test_chunks_cover_the_rest_and_events_do_not_depend_on_their_size(
    per_call, done, episode_length
):
    """Each iteration once; the first alone; after a restart the events are the same."""
    settings = {"log_every": 4, "eval_every": 9, "checkpoint_every": 5}
    settings |= {"episode_length": episode_length}
    schedule = Schedule(30, per_call=per_call, **settings)
    chunks = list(schedule.chunks(done))
    assert [i for c in chunks for i in range(c.start, c.end)] == list(range(done, 30))
    assert chunks[0].count == 1
    assert all(c.count <= per_call for c in chunks)
    whole = [event for event in due(Schedule(30, **settings)) if event[0] >= done]
    assert due(schedule, done) == whole


def test_a_run_that_is_over_has_no_chunks():
    assert list(Schedule(30).chunks(30)) == []
