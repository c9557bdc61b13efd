"""A run that is killed at any file event ends with the files of one that was not."""

import subprocess
import sys

import pytest

from tests.test_scripts import ROOT


@pytest.mark.parametrize("most", [5, pytest.param(1000, marks=pytest.mark.slow)])
def test_the_next_start_finishes_a_killed_run(tmp_path, most):
    """At five of the file events, or at all of them; a second run in the same folder included."""
    command = [sys.executable, "-m", "tests.kills", str(tmp_path), str(most)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3000)
    assert result.returncode == 0, result.stderr
    count = result.stdout.count("\n## ")
    assert count == 5 if most == 5 else count > 50
