"""The exception for errors that the user can fix."""


class UserError(Exception):
    """A wrong flag, file or folder: scripts print one line, no traceback; the exit code is 2."""
