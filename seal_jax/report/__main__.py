"""The tables of a run, or of several side by side, from their records alone.

    python -m seal_jax.report RUN                                   prints its tables and writes RUN/report.html anew
    python -m seal_jax.report --compare RUN RUN...                  one table over runs, for a terminal
    python -m seal_jax.report --compare RUN RUN... --format html --out comparison.html

Runs whose configs differ in their seed alone are one column. Beside them can stand result files that the paper's
authors released, as FILE, or as ROW=FILE ("SEAL, round 2=iter2.json") on the line of that row. Formats: terminal,
markdown, json, html.
Exit status: 0; 2 after one sentence about bad input.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from etils import epath

from seal_jax.errors import UserError, told
from seal_jax.report import compared, html, terminal
from seal_jax.report.compare import compare
from seal_jax.report.recorded import load


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    args = parser().parse_args(argv)
    try:
        if args.compare:
            say(compared.FORMATS[args.format](compare(args.runs)), args.out)
        else:
            show(args)
    except (UserError, OSError) as error:
        return told(error)
    return 0


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(
        "python -m seal_jax.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("runs", nargs="+", metavar="RUN", help="the folder of a run, its --workdir")
    found.add_argument("--compare", action="store_true", help="one table over all of them")
    found.add_argument("--format", choices=sorted(compared.FORMATS), default="terminal", help="of a comparison")
    found.add_argument("--out", metavar="FILE", help="where a comparison is written, in place of the terminal")
    return found


def show(args: argparse.Namespace) -> None:
    """The tables of one run. Raises UserError for anything else than the folder of one."""
    if len(args.runs) > 1:
        raise UserError("several runs are shown side by side with --compare; without it, name one")
    if args.out or args.format != "terminal":
        raise UserError("--format and --out are of a comparison; the page of one run is its report.html")
    folder = epath.Path(args.runs[0])
    if not load(folder).config:
        raise UserError(f"{folder} holds no run; name the folder of one, as --workdir did")
    page = html.write(folder)
    print(f"{terminal.summary(folder)}\n\nReport: {page}")


def say(text: str, out: str | None) -> None:
    """Prints the text, or writes it into a file."""
    if out is None:
        print(text)
        return
    try:
        Path(out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); give --out another file") from error


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a word
    sys.exit(main(sys.argv[1:]))
