"""The notebooks run from top to bottom, and show what their text says they show."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

REPO = Path(__file__).parents[1]
NOTEBOOKS = sorted((REPO / "notebooks").glob("*.ipynb"))
SHOWN = {
    "evaluate_any_model": (
        "(64, 32, 32, 3)",
        "linf, eps 24/255, 64 images",
        "- softmax: the model returns probabilities",
        "jax cannot differentiate this forward",
        "the same verdicts: True",
        "holds another evaluation",
        "image/png",
    ),
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_in_an_empty_folder(path, tmp_path, monkeypatch):
    # This checkout, whichever is installed.
    paths = [str(REPO), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)  # as a user has it
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # small in git
    client = NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    text = "\n".join(str(out.get("text") or out.get("data")) for out in outputs)
    for words in SHOWN[path.stem]:
        assert words in text, words
