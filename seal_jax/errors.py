"""The one error that a user's mistake raises; the entry points print its sentence and no traceback."""

import errno
import sys
from pathlib import Path

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


class UserError(Exception):
    """Bad input: the message is one sentence that names the file and the field, and says what to do."""


def read_text(path: str | Path, mend: str, name: str = "") -> str:
    """A text file in UTF-8, without the mark that may stand at its beginning.

    mend: how the sentence ends that says why it cannot be read; name: what it calls the file, if not by its path.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UserError(f"{name or path} cannot be read ({reason}); {mend}") from error


def told(error: UserError | OSError) -> int:
    """Prints the one sentence of an error -> the exit status of bad input. Raises an OSError that no disk is to blame
    for."""
    print(f"seal_jax: {disk_error(error) if isinstance(error, OSError) else error}", file=sys.stderr)
    return 2


def disk_error(error: OSError) -> UserError:
    """What a full or write-protected disk means to the person at it. Raises `error` where it is of another kind."""
    if error.errno not in DISK:
        raise error
    place = f"{error.filename} cannot" if error.filename else "a file cannot"
    return UserError(f"{place} be written ({error.strerror}); make room or get access, then start the command again")
