import numpy as np
import pytest

from robustvit.interop.eight_bn import fold_eight_bn

CHANNELS = 3


def eight_bn(prefix, rng):
    state = {
        f"{prefix}.bn{i}.proxy_bn.{name}": rng.random(2 * CHANNELS)
        for i in range(8)
        for name in ("running_mean", "running_var")
    }
    counters = {f"{prefix}.bn{i}.proxy_bn.num_batches_tracked": np.array(7)
                for i in range(8)}  # fmt: skip
    affine = {
        f"{prefix}.aff.bnconv.weight": rng.random((CHANNELS, 1, 1, 1)),
        f"{prefix}.aff.bnconv.bias": rng.random(CHANNELS),
    }
    return {**state, **counters, **affine}


def test_fold_computes_the_same():
    rng = np.random.default_rng(0)
    published = eight_bn("layer1.0.downsample.1", rng) | {"fc.bias": np.arange(4)}
    folded = fold_eight_bn(published)
    norm = "layer1.0.downsample.1"
    names = ("weight", "bias", "running_mean", "running_var")
    assert set(folded) == {"fc.bias", *(f"{norm}.{name}" for name in names)}
    np.testing.assert_array_equal(folded["fc.bias"], np.arange(4))

    x = rng.random((5, CHANNELS))
    # Evaluation: `bn0` without scale on the first virtual half, then the 1x1.
    mean = published[f"{norm}.bn0.proxy_bn.running_mean"][:CHANNELS]
    var = published[f"{norm}.bn0.proxy_bn.running_var"][:CHANNELS]
    scale = published[f"{norm}.aff.bnconv.weight"][:, 0, 0, 0]
    expected = (x - mean) / np.sqrt(var + 1e-5) * scale
    expected += published[f"{norm}.aff.bnconv.bias"]
    scale, bias, mean, var = (folded[f"{norm}.{name}"] for name in names)
    ours = (x - mean) / np.sqrt(var + 1e-5) * scale + bias
    np.testing.assert_allclose(ours, expected)


def test_half_a_norm_is_an_error():
    published = eight_bn("bn1", np.random.default_rng(0))
    broken = {key: v for key, v in published.items() if "bnconv" not in key}
    with pytest.raises(ValueError, match=r"missing.*'bn1'"):
        fold_eight_bn(broken)
