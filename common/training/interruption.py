"""Stop signals: a run finishes its current chunk of steps, saves its state and ends."""

import atexit
import shlex
import signal
import sys
import time

# Ctrl-C, a closed terminal, and what batch systems send before a job's time is up
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Interruption:
    """Notes the number of the first stop signal in ``signal`` instead of ending the process.

    Others within a second are ignored: a wrapper may forward one that was already received. A later
    one has its usual effect. One that is ignored at the start, as SIGHUP under nohup, stays so.
    """

    signal: int | None = None

    def __enter__(self):
        self.before = {}
        for number in SIGNALS:
            # None: a handler that Python did not install, and cannot put back
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self.before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, _) -> None:
        if self.signal is None:
            self.signal, self.since = number, time.monotonic()
        elif time.monotonic() - self.since > 1:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def __exit__(self, *_) -> None:
        if self.signal is None:
            self._restore()
            return
        for number in self.before:  # Python's exit resets handlers, and a repeat would then kill it
            atexit.register(signal.signal, number, signal.SIG_IGN)


def stop_after(number: int, done: int) -> None:
    """Ends the process after a signal and ``done`` iterations; the state has been saved."""
    words = [word for word in sys.argv if word not in ("--resume", "--resume=true")]
    command = shlex.join([sys.executable, *words, "--resume"])
    name = signal.Signals(number).name
    print(f"\n{name} after {done:,} iterations; to go on: {command}", file=sys.stderr)
    raise SystemExit(128 + number)
