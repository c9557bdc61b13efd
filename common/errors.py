"""The exception for errors that the user can fix."""


class UserError(Exception):
    """A wrong flag, file or folder.

    Scripts print it as one line, without a traceback, and exit with code 2.
    """
