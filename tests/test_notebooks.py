"""The notebooks run from top to bottom, with a tiny model and small numbers, and show what they say they show."""

from pathlib import Path

import pytest
import tiny_run

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_run.make_model(tmp_path_factory.mktemp("model"), context=4096)


def run(name, model, monkeypatch):
    """(what was printed, the number of pictures) of a notebook in its smoke size, from top to bottom."""
    nbformat = pytest.importorskip("nbformat", reason="notebooks are read with nbformat")
    nbclient = pytest.importorskip("nbclient", reason="notebooks are run with nbclient")
    pytest.importorskip("ipykernel", reason="notebooks are run in an IPython kernel")
    monkeypatch.setenv("SEAL_JAX_NOTEBOOK", "smoke")
    monkeypatch.setenv("SEAL_JAX_MODEL", model)
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    return outputs(notebook.cells)


def test_one_passage_and_a_round(model, monkeypatch):
    printed, pictures = run("seal_jax.ipynb", model, monkeypatch)
    assert pictures == 2 and "self-edit 1, by the model" in printed and "by the rule" in printed
    assert "3 adapters, " in printed and "1 self-edits are chosen" in printed and "before:" in printed
    assert "'adapter_config.json', 'adapter_model.safetensors'" in printed


def test_arc(model, monkeypatch):
    printed, pictures = run("arc.ipynb", model, monkeypatch)
    assert pictures == 6 and printed.count("log-likelihood of the right grid") == 3 and "use_basic_augment" in printed


def outputs(cells):
    """(what was printed, the number of pictures)."""
    found = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in found if output.output_type == "stream" and output.name == "stdout")
    return printed, sum("image/png" in output.get("data", {}) for output in found)


@pytest.mark.parametrize("name", sorted(path.name for path in NOTEBOOKS.glob("*.ipynb")))
def test_no_outputs_are_kept(name):
    nbformat = pytest.importorskip("nbformat", reason="notebooks are read with nbformat")
    cells = nbformat.read(NOTEBOOKS / name, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
