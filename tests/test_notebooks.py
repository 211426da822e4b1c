"""The notebooks run from top to bottom, with a tiny model and small numbers, and show what they say they show."""

from pathlib import Path

import pytest
import tiny_run

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_run.make_model(tmp_path_factory.mktemp("model"), context=4096)


def test_they_run_from_top_to_bottom(model, monkeypatch):
    """One after the other in one kernel, which starts once."""
    nbformat = pytest.importorskip("nbformat", reason="notebooks are read with nbformat")
    nbclient = pytest.importorskip("nbclient", reason="notebooks are run with nbclient")
    pytest.importorskip("ipykernel", reason="notebooks are run in an IPython kernel")
    monkeypatch.setenv("SEAL_JAX_NOTEBOOK", "smoke")
    monkeypatch.setenv("SEAL_JAX_MODEL", model)
    notebook, arc = (nbformat.read(NOTEBOOKS / name, as_version=4) for name in ("seal_jax.ipynb", "arc.ipynb"))
    count = len(notebook.cells)
    notebook.cells += [nbformat.from_dict(cell | {"id": f"arc-{cell.id}"}) for cell in arc.cells]
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    printed, pictures = outputs(notebook.cells[:count])
    assert pictures == 2 and "self-edit 1, by the model" in printed and "by the rule" in printed
    assert "3 adapters, " in printed and "1 self-edits are chosen" in printed and "before:" in printed
    assert "'adapter_config.json', 'adapter_model.safetensors'" in printed
    printed, pictures = outputs(notebook.cells[count:])
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
