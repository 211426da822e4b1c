"""The small version of each experiment's config runs from beginning to end, with a tiny model in place of its own."""

import importlib.util
from pathlib import Path

import pytest
import tiny_run
from etils import epath

from seal_jax.report import html
from seal_jax.runs.records import read

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
ROWS = {  # of the table, beside those of the domain's rules
    "quickstart": ["self-edits, no RL", "SEAL, round 1"],
    "pretraining_smollm2": ["1 self-edit each", "2 self-edits each"],
    "continual_smollm2": ["continual, after 1 passage", "continual, after 2 passages"],
    "grid_smollm2": [f"learning rate {rate}, {epochs}" for rate in ("0.0005", "0.001") for epochs in (
        "1 epoch", "2 epochs")],
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a tiny model that can read the shipped passages."""
    return tiny_run.make_model(tmp_path_factory.mktemp("model"), context=4096)


@pytest.mark.parametrize("name", list(ROWS))
def test_the_small_version_of_a_config(fast, home, model, tmp_path, name):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    values = module.get_config("smoke").to_dict()
    values["model"]["policy"] = model
    values["engine"] |= {"cache": str((home / "cache").resolve())}
    tiny_run.run(values, tmp_path)
    rows = [row["name"] for row in read(tmp_path / "rows.jsonl")]
    assert rows[-len(ROWS[name]) :] == ROWS[name]
    assert "The run is not complete" not in html.render(epath.Path(tmp_path))
