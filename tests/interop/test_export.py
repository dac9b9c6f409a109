import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import robustvit as rv
from robustvit.interop import hub
from robustvit.interop.torch_files import read_torch_file
from tests.interop.test_load import TINY, assert_is, random_state, tiny


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_goes_out_is_what_came_in(tmp_path, family, suffix):
    model = tiny(family)
    state = random_state(model)
    variables = rv.load_torch(model, state)
    path = tmp_path / f"weights{suffix}"
    rv.save_torch(model, variables, path)
    written = load_file(path) if suffix == ".safetensors" else read_torch_file(path)
    counters = {k for k in written if k.endswith("num_batches_tracked")}
    assert len(counters) == sum("running_mean" in k for k in state)
    assert written.keys() - counters == state.keys()
    for key, array in state.items():
        np.testing.assert_array_equal(written[key], array)
        assert written[key].dtype == np.float32
    assert_is(rv.load_torch(model, path), model, state)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_safetensors_carry_the_normalisation(tmp_path):
    model = tiny("vit").clone(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    variables = rv.load_torch(model, random_state(model))
    rv.save_torch(model, variables, tmp_path / "x.safetensors")
    again = rv.load_torch(tiny("vit"), tmp_path / "x.safetensors")
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, again))


def test_wrong_requests_leave_nothing_behind(tmp_path):
    model, other = tiny("vit"), tiny("vit").clone(dim=32)
    variables = rv.load_torch(model, random_state(model))
    with pytest.raises(ValueError, match=r"must end in one of \.safetensors, \.pth"):
        rv.save_torch(model, variables, tmp_path / "weights.npz")
    with pytest.raises(ValueError, match=r"not this ViT's: .* is \(.*, wanted \("):
        rv.save_torch(other, variables, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="does not exist"):
        rv.save_torch(model, variables, tmp_path / "no" / "weights.pth")
    with pytest.raises(ValueError, match=r"is a folder"):
        (tmp_path / "x.pth").mkdir()
        rv.save_torch(model, variables, tmp_path / "x.pth")
    (tmp_path / "x.pth").rmdir()
    more = {**variables, "params": {**variables["params"], "extra": np.ones(3)}}
    with pytest.raises(ValueError, match="it has no params/extra"):
        rv.save_torch(model, more, tmp_path / "weights.pth")
    nan = jax.tree.map(lambda x: x * np.nan, variables)
    with pytest.raises(ValueError, match="has NaN or infinite values"):
        rv.save_torch(model, nan, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="a dict without 'params'"):
        rv.save_torch(model, {}, tmp_path / "weights.pth")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A hub of one repository, in a folder."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    model = tiny("vit")
    rv.save_torch(model, rv.load_torch(model, random_state(model)),
                  tmp_path / "model.safetensors")  # fmt: skip

    def download(repo, name):
        if not (tmp_path / name).exists():
            raise huggingface_hub.errors.EntryNotFoundError(name)
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return tmp_path


def write_config(folder, **config):
    published = {"mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3]}
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 5,
              "pretrained_cfg": published, **config}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))


SMALL = {k: v for k, v in TINY["vit"][1].items() if k != "num_classes"}


def test_the_hub_gives_model_and_weights(repository):
    write_config(repository)
    model, variables = rv.load_hf("timm/x", **SMALL)
    assert model.num_classes == 5 and model.mean == (0.5, 0.4, 0.3)
    assert_is(variables, model, random_state(model))


def test_another_number_of_classes_gets_a_fresh_head(repository):
    write_config(repository)
    _, variables = rv.load_hf("timm/x", **SMALL, num_classes=3)
    assert variables["params"]["head"]["kernel"].shape == (16, 3)


def test_a_hub_out_of_reach_is_told(monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def download(repo, name):
        raise huggingface_hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(ConnectionError, match=r"config\.json of timm/x is not in"):
        rv.load_hf("timm/x")
    with pytest.raises(ConnectionError, match=r"model\.safetensors of timm/x is not"):
        hub.weights_from_hub("timm/x")


def test_what_the_hub_has_not_is_told(repository):
    write_config(repository, architecture="vit_tiny_patch16_22")
    with pytest.raises(ValueError, match="did you mean 'vit_tiny_patch16_224'"):
        rv.load_hf("timm/x")
    write_config(repository)
    (repository / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"timm/x has none of model\.safetensors"):
        hub.load_hf("timm/x", **SMALL)
