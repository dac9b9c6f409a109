import sys

import numpy as np
from PIL import Image

from benchmarks import input_pipeline


def test_every_way_of_reading_has_a_row(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        for i in range(3):
            path = tmp_path / "train" / name / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (64, 48, 3), np.uint8)).save(path)
    options = ["--turns", "1", "--batches", "1", "--batch-size", "2"]
    monkeypatch.setattr(sys, "argv", ["", "--folder", str(tmp_path), *options])
    # The other pipeline forks workers, which a process that runs JAX should not.
    monkeypatch.setitem(sys.modules, "torch", None)
    input_pipeline.main()
    out = capsys.readouterr().out
    assert "6 JPEGs" in out
    for way in ("robustvit", "Pillow", "OpenCV"):
        assert f"| {way} |" in out, out
