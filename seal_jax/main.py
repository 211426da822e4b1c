"""Runs the experiment of a config, or continues it where it stopped.

    python -m seal_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

`--config=FILE:smoke` is a small version; any field can be set, such as --config.inner.learning_rate=2e-3.
Exit status: 0; 2 after one sentence about bad input; 130 after Ctrl-C. Where another host of the run was lost: 3 if an
exchange with it failed, SIGABRT with JAX's own sentence if JAX noticed first.
"""

import _thread
import logging
import os
import sys
import threading
from collections.abc import Mapping, Sequence

from absl import flags
from ml_collections import config_flags

from seal_jax import config as config_lib
from seal_jax.errors import UserError, told
from seal_jax.flags import read_config

FLAGS = flags.FLAGS
CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/, with :smoke for its small version.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; starting again in it continues the run.")


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    quiet()
    sys.unraisablehook = _stop_again
    try:
        values, workdir = read_flags(argv)
        run(values, workdir)
    except (UserError, OSError) as error:
        return told(error)
    except KeyboardInterrupt:
        print("\nseal_jax: stopped; start the same command again to continue.", file=sys.stderr)
        return 130
    return 0


def quiet() -> None:
    """Warnings are shown as they are; the libraries' notes about themselves are not."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that PyTorch is absent, which is no loss here
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def read_flags(argv: Sequence[str]) -> tuple[dict, str]:
    """(the config as nested dicts, the run's folder) from the command line. Raises UserError for whatever is wrong."""
    values = read_config(argv, FLAGS, CONFIG)
    if not WORKDIR.value:
        raise UserError("give --workdir=FOLDER for the run")
    return values, WORKDIR.value


def run(values: Mapping, workdir: str) -> None:
    """The experiment of a config, in a folder. What is slow to import is imported once the input has been looked at."""
    config = config_lib.from_dict(values)
    import jax

    from seal_jax import parallel

    if config.parallel.distributed:
        parallel.connect()
    try:
        devices = [str(device) for device in jax.devices()]
    except (RuntimeError, AssertionError) as error:  # the second where no plugin for JAX_PLATFORMS is installed
        wanted = os.environ.get("JAX_PLATFORMS", "")
        text = f"JAX finds no device (JAX_PLATFORMS={wanted}); set it to cpu, or install JAX for your device"
        raise UserError(text) from error
    try:
        with open_folder(workdir, values, devices) as folder:
            carry_out(config, folder)
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        reason = str(error).splitlines()[0]
        mend = "start the same command on all hosts to continue"
        print(f"seal_jax: another host of the run was lost ({reason}); {mend}.", file=sys.stderr, flush=True)
        os._exit(3)  # an ordinary end would wait for the host that is lost


def carry_out(config: config_lib.Config, folder) -> None:
    """Run or continue the experiment in `folder`, a RunDirectory, and print its tables."""
    from seal_jax.engine.programs import enable_cache
    from seal_jax.experiments import assemble, continual, export, grid, outlook, pretraining, rounds
    from seal_jax.parallel import is_first
    from seal_jax.report import terminal
    from seal_jax.report.watch import Watch
    from seal_jax.runs.records import in_bucket

    enable_cache(config.engine.cache)
    path = folder.path
    try:
        if config.export.policy and in_bucket(path):
            raise UserError("export.policy writes to local folders only; choose a local --workdir, or set it to False")
        setup = assemble.prepare(config, path)
    except UserError:
        if is_first():
            folder.forget()
        raise
    print(f"{path}: {'continuing' if folder.continued else 'a new run'}\n{assemble.heading(setup)}", flush=True)
    ahead = outlook.outlook(setup) if config.experiment == "rounds" else None
    if ahead:
        print(ahead.listed(), flush=True)
    with Watch(path, config) as watch:
        setup.recorder.observers.append(watch.during)

        def after_rows(rows: Sequence[tuple[str, int]]) -> None:
            watch.after_rows(rows)
            left = ahead and ahead.time_left()
            if left:
                print(f"to come: {left}", flush=True)

        experiments = {"rounds": rounds, "pretraining": pretraining, "continual": continual, "grid": grid}
        policy = experiments[config.experiment].run(setup, after_rows)
    if config.export.policy:
        export.export(setup, policy, path)
    setup.recorder.close()
    print(f"\n{terminal.summary(path)}\n\nReport: {path / 'report.html'}", flush=True)


def open_folder(workdir: str, values: Mapping, devices: Sequence[str]):
    """The run's folder. The first host opens it; the others stop where it could not, and show no tables."""
    from seal_jax.parallel import from_first, is_first
    from seal_jax.runs.directory import RunDirectory, open_run

    folder, problem = RunDirectory(workdir, guest=True), ""
    if is_first():
        try:
            folder = open_run(workdir, values, devices)
        except UserError as error:
            problem = str(error)
    else:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    problem = from_first(problem.encode()).decode()
    if problem:
        raise UserError(problem)
    return folder


def _stop_again(unraisable) -> None:
    """Ctrl-C that came while a callback ran, out of which nothing can be raised, comes again."""
    if unraisable.exc_type is KeyboardInterrupt:
        threading.Timer(0.1, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
