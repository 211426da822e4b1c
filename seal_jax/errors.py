"""The one error that a user's mistake raises; the entry points print its sentence and no traceback."""


class UserError(Exception):
    """Bad input: the message is one sentence that names the file and the field, and says what to do."""
