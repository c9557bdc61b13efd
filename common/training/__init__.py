"""The programs' code. Importing it lets the standard streams outlive their terminal or pipe."""

import errno
import functools
import os
import sys


def _unless_gone(stream, call, *args):
    """Calls ``stream``'s method; without its terminal, or the reader of its pipe, it is muted."""
    try:
        return call(*args)
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EPIPE):
            raise
        with open(os.devnull, "wb") as nothing:  # a run goes on, or saves its state
            os.dup2(nothing.fileno(), stream.fileno())


# print shows an escape where a terminal lacks a character; a notebook's streams have no encoding
for stream in (sys.stdout, sys.stderr):
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
        for name in ("write", "flush"):
            setattr(stream, name, functools.partial(_unless_gone, stream, getattr(stream, name)))
