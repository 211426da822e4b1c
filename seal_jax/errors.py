"""The one error that a user's mistake raises; the entry points print its sentence and no traceback."""


import errno

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


class UserError(Exception):
    """Bad input: the message is one sentence that names the file and the field, and says what to do."""


def disk_error(error: OSError) -> UserError:
    """What a full or write-protected disk means to the person at it. Raises `error` where it is of another kind."""
    if error.errno not in DISK:
        raise error
    place = f"{error.filename} cannot" if error.filename else "a file cannot"
    return UserError(f"{place} be written ({error.strerror}); make room or get access, then start the command again")
