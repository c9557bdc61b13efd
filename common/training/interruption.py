"""SIGTERM and SIGINT: the run finishes its current chunk of steps, saves its state and ends."""

import shlex
import signal
import sys


class Interruption:
    """Remembers SIGTERM or SIGINT for the loop; a second signal ends the process at once."""

    signal: int | None = None

    def __enter__(self):
        numbers = (signal.SIGTERM, signal.SIGINT)
        self.before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def _note(self, number: int, _) -> None:
        self.signal = number
        self.__exit__()

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def stop_after(number: int, done: int) -> None:
    """Ends the process after a signal; the state has been saved."""
    words = [word for word in sys.argv if word not in ("--resume", "--resume=true")]
    command = shlex.join([sys.executable, *words, "--resume"])
    name = signal.Signals(number).name
    print(f"\n{name} after {done:,} iterations; to go on: {command}", file=sys.stderr)
    raise SystemExit(128 + number)
