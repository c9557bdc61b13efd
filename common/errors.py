"""The one exception that is the user's to mend."""


class UserError(Exception):
    """A wrong flag, file or folder. Scripts print it as one line and exit with code 2, without a traceback."""
