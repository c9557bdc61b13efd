"""When a run logs, tests and saves."""

import pytest

from baseline.settings import Settings
from common.training.schedule import Chunk, chunks


def due(given: list[Chunk]) -> list[tuple]:
    """Returns (last iteration, log, test, save) of the chunks where anything is due."""
    return [(c.end - 1, c.log, c.test, c.save) for c in given if c.log or c.test or c.save]


def test_the_originals_lines():
    """Lines every 100 and tests every 500, but none at 0; a test after the last iteration."""
    found, tests = list(chunks(Settings())), [f"iter_{i}" for i in range(500, 75_000, 500)]
    assert [c.log for c in found if c.log] == [f"iter_{i}" for i in range(100, 75_000, 100)]
    assert [c.test for c in found if c.test] == [*tests, "iter_74999"]
    assert [c.end for c in found if c.save] == list(range(1000, 75_001, 1000))


def test_episodes():
    """S-OPT counts from 0 in each episode and tests at its end; the next begins with a chunk."""
    settings = Settings(iterations=20, log_every=3, eval_every=5, checkpoint_every=100)
    found = list(chunks(settings, episode_length=8))
    assert due(found) == [
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
    starts = {c.start: c.episode for c in found if c.episode is not None}
    assert starts == {0: 0, 8: 1, 16: 2}
    short = [c.log for c in chunks(Settings(iterations=6), episode_length=3) if c.log]
    assert short == ["episode_0====iter_2", "episode_1====iter_2"]


@pytest.mark.parametrize("per_call", [1, 4, 20])
@pytest.mark.parametrize("episode_length", [None, 7])
def test_chunks_cover_the_rest_and_events_do_not_depend_on_their_size(per_call, episode_length):
    """Each iteration once; the first alone; after a restart the events are the same."""
    settings = Settings(iterations=30, log_every=4, eval_every=9, checkpoint_every=5)
    all_events = due(list(chunks(settings, 0, episode_length)))
    for done in (0, 1, 8, 11, 29):
        found = list(chunks(settings, done, episode_length, per_call))
        assert [i for c in found for i in range(c.start, c.end)] == list(range(done, 30))
        assert found[0].end - found[0].start == 1
        assert all(c.end - c.start <= per_call for c in found)
        assert due(found) == [event for event in all_events if event[0] >= done]
    assert list(chunks(settings, 30)) == []  # a run that is over
