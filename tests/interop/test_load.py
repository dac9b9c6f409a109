import re
import zlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

import robustvit as rv
from robustvit.interop.names import entries
from robustvit.interop.torch_writer import write_torch_file
from robustvit.models import create_model

VIT = {"dim": 16, "depth": 2, "num_heads": 2, "image_size": 16, "num_classes": 5}
TINY = {
    "xcit": ("xcit_nano_12_p16_224",
             {"dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}),
    "vit": ("vit_tiny_patch16_224", {**VIT, "patch_size": 8}),
    "deit3": ("deit3_small_patch16_224", {**VIT, "patch_size": 8}),
    "dinov2": ("dinov2_vits14", {**VIT, "patch_size": 8, "num_classes": 0}),
    "dinov2_reg": ("dinov2_vitg14_reg",
                   {**VIT, "dim": 24, "patch_size": 8, "num_classes": 0}),
    "clip": ("vit_base_patch32_clip_quickgelu_224", {**VIT, "patch_size": 8}),
    "cait": ("cait_xxs24_224", {**VIT, "patch_size": 8}),
    "convnext": ("convnext_tiny",
                 {"depths": (1, 1, 1, 1), "widths": (8, 8, 16, 16), "num_classes": 5}),
    "resnet": ("resnet50_gelu",
               {"layers": (1, 1), "widths": (8, 16), "num_classes": 5}),
    "wide_resnet": ("wide_resnet_28_10", {"depth": 10, "width": 1}),
    "preact_resnet": ("preact_resnet18", {"layers": (1, 1), "widths": (8, 16)}),
    "cifar_resnet": ("cifar_resnet20", {"depth": 8}),
    "poolformer": ("poolformer_s12",
                   {"depths": (1, 1), "widths": (8, 16), "num_classes": 5}),
}  # fmt: skip


def tiny(family):
    name, fields = TINY[family]
    return create_model(name, **fields)


def random_state(model, dtype=np.float32):
    """A state dict whose values follow from the names; variances are positive."""
    state = {}
    for entry in entries(model):
        rng = np.random.default_rng(zlib.crc32(entry.key.encode()))
        values = rng.normal(size=entry.torch_shape).astype(dtype)
        state[entry.key] = np.abs(values) if "running_var" in entry.key else values
    return state


def assert_is(variables, model, state):
    """Each variable is the tensor of its name, to the bit."""
    flat = traverse_util.flatten_dict(variables)
    for entry in entries(model):
        leaf = flat.pop(entry.path)
        assert leaf.dtype == jnp.float32
        np.testing.assert_array_equal(
            entry.to_torch(np.asarray(leaf)), state[entry.key]
        )
    assert {path[1] for path in flat} == {"normalize"}


def renamed(state, *renames):
    for pattern, replacement in renames:
        state = {re.sub(pattern, replacement, k): v for k, v in state.items()}
    return state


def facebook_xcit(state):
    state = renamed(state, (r"^pos_embed\.", "pos_embeder."))
    for i in range(2):
        for leaf in ("weight", "bias"):
            parts = [
                state.pop(f"cls_attn_blocks.{i}.attn.{n}.{leaf}")
                for n in ("q", "k", "v")
            ]
            state[f"cls_attn_blocks.{i}.attn.qkv.{leaf}"] = np.concatenate(parts)
    return {"model": state}


def deit3(state):
    return {"model": renamed(state, (r"\.ls([12])\.gamma", r".gamma_\1"))}


def dinov2(state):
    state = renamed(state, (r"\.fc1\.", ".w12."), (r"\.fc2\.", ".w3."))
    if "reg_token" not in state:  # the smaller ones have an ordinary MLP
        state = renamed(state, (r"\.w12\.", ".fc1."), (r"\.w3\.", ".fc2."))
    else:
        state["register_tokens"] = state.pop("reg_token")
        position = np.zeros_like(state["cls_token"])  # timm has it in the token
        state["pos_embed"] = np.concatenate([position, state["pos_embed"]], axis=1)
    return {**state, "mask_token": np.zeros((1, 24), np.float32)}


def open_clip(state):
    state = dict(state)
    state.pop("head.bias")
    projection = state.pop("head.weight").T
    state = renamed(
        state,
        (r"\.norm([12])\.", r".ln_\1."),
        (r"\.attn\.qkv\.", ".attn.in_proj_"),
        (r"\.attn\.proj\.", ".attn.out_proj."),
        (r"\.mlp\.fc1\.", ".mlp.c_fc."),
        (r"\.mlp\.fc2\.", ".mlp.c_proj."),
        (r"^blocks\.", "visual.transformer.resblocks."),
        (r"^patch_embed\.proj\.", "visual.conv1."),
        (r"^norm_pre\.", "visual.ln_pre."),
        (r"^norm\.", "visual.ln_post."),
        (r"^cls_token$", "visual.class_embedding"),
        (r"^pos_embed$", "visual.positional_embedding"),
    )
    for key in ("visual.class_embedding", "visual.positional_embedding"):
        state[key] = state[key][0].squeeze()
    text = {
        k: np.zeros(3) for k in ("logit_scale", "transformer.resblocks.0.ln_1.bias")
    }
    return {**state, **text, "visual.proj": projection}


def convnext(state):
    return {"model": renamed(
        state,
        (r"^stem\.", "downsample_layers.0."),
        (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
        (r"^stages\.(\d)\.blocks\.", r"stages.\1."),
        (r"\.conv_dw\.", ".dwconv."),
        (r"\.mlp\.fc([12])\.", r".pwconv\1."),
        (r"^head\.norm\.", "norm."),
        (r"^head\.fc\.", "head."),
    )}  # fmt: skip


def thesis(state):
    """A checkpoint of the training script: wrapped, prefixed, with counters."""
    counters = {
        re.sub("running_mean$", "num_batches_tracked", k): np.array(3)
        for k in state
        if k.endswith("running_mean")
    }
    state = {f"module.{k}": v for k, v in {**state, **counters}.items()}
    return {
        "model": state,
        "epoch": 99,
        "arch": "xcit",
        "model_ema": None,
        "version": 3,
    }


@pytest.mark.parametrize(
    ("family", "published"),
    [
        ("xcit", dict),
        ("xcit", thesis),
        ("xcit", facebook_xcit),
        ("vit", thesis),
        ("cait", thesis),
        ("deit3", deit3),
        ("dinov2", dinov2),
        ("dinov2_reg", dinov2),
        ("clip", open_clip),
        ("convnext", convnext),
        ("resnet", thesis),
    ],
)
def test_every_publishers_style_is_read(family, published):
    model = tiny(family)
    state = random_state(model)
    if family == "clip":
        state["head.bias"][:] = 0.0  # OpenCLIP's projection has none
    variables = rv.load_torch(model, published(state))
    assert_is(variables, model, state)
    normalize = variables["batch_stats"]["normalize"]
    np.testing.assert_array_equal(normalize["mean"], np.float32(model.mean))
    images = jnp.full((1, 32, 32, 3), 0.5)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    assert jax.tree.structure(shapes) == jax.tree.structure(variables)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": {f"module.model.{k}": v for k, v in s.items()}},
        lambda s: {f"model.{k}": v for k, v in s.items()},
        lambda s: {f"1.{k}": v for k, v in s.items()},
        lambda s: {
            "model": {"state_dict": {f"_orig_mod.{k}": v for k, v in s.items()}}
        },
    ],
)
@pytest.mark.parametrize("where", ["normalize", "normalizer", "0"])
def test_wrappers_prefixes_and_normalisation_are_taken_off(wrap, where):
    model = tiny("vit")
    state = random_state(model)
    mean, std = np.float32([0.4914, 0.4822, 0.4465]), np.float32([0.2, 0.3, 0.4])
    tree = wrap(state)
    inner = tree
    while not any(k.endswith("cls_token") for k in inner):
        inner = next(iter(inner.values()))
    inner[f"{where}.mean"] = mean.reshape(1, 3, 1, 1)
    inner[f"{where}.std"] = std.reshape(1, 3, 1, 1)
    variables = rv.load_torch(model, tree)
    assert_is(variables, model, state)
    np.testing.assert_array_equal(variables["batch_stats"]["normalize"]["mean"], mean)

    images = np.random.default_rng(0).uniform(size=(2, 16, 16, 3)).astype(np.float32)
    plain = model.clone(mean=(0.0,) * 3, std=(1.0,) * 3)
    outside = plain.apply(rv.load_torch(plain, state), (images - mean) / std).logits
    inside = model.apply(variables, images).logits
    np.testing.assert_allclose(inside, outside, rtol=1e-4, atol=1e-4)


def test_averaged_weights_come_first_and_are_told():
    model = tiny("vit")
    state = random_state(model)
    raw = {k: v + 1 for k, v in state.items()}
    with pytest.warns(UserWarning, match="took 'model_ema' and left model"):
        variables = rv.load_torch(model, {"model": raw, "model_ema": state})
    assert_is(variables, model, state)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_made_float32_and_told(tmp_path, dtype):
    model = tiny("vit")
    state = random_state(model, dtype)
    save_file(state, tmp_path / "half.safetensors")
    with pytest.warns(
        UserWarning, match=r"half\.safetensors: the weights are b?float16"
    ):
        variables = rv.load_torch(model, tmp_path / "half.safetensors")
    assert_is(variables, model, {k: v.astype(np.float32) for k, v in state.items()})


def without(*keys):
    return lambda state: {k: v for k, v in state.items() if k not in keys}


def other_head(state):
    shapes = {"head.weight": (7, 16), "head.bias": (7,)}
    return {**state, **{k: np.zeros(s, np.float32) for k, s in shapes.items()}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("norm.bias"), "1 keys missing.*\n  missing: norm.bias"),
        (lambda s: {**s, "dist_token": np.zeros(3, np.float32)},
         "1 unexpected.*\n  unexpected: dist_token\n.*DeiT with a distillation token"),
        (lambda s: {**s, "norm.bias": np.zeros(3, np.float32)},
         r"norm.bias is \(3,\), wanted \(16,\)"),
        (other_head, r"head.weight is \(7, 16\), wanted \(5, 16\).*\n.*new_head=True"),
        (without("head.weight", "head.bias"), "only the head differs: new_head=True"),
        (lambda s: {**s, "norm.bias": np.full(16, np.nan, np.float32)},
         "NaN or infinite values in norm.bias"),
        (lambda s: {"model": {}, "epoch": 3}, "has model, epoch instead of weights"),
        (lambda s: random_state(tiny("xcit")), "look like a variant of XCiT"),
        (lambda s: random_state(tiny("resnet")), "look like a variant of ResNet"),
        (lambda s: random_state(create_model("vit_tiny_patch16_224")),
         r"look like vit_tiny_patch16_224 .*5,717,416 parameters"),
        (lambda s: {"a": np.zeros(3, np.float32)},
         "look like nothing we know, with 3 parameters"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_clear_error(change, message):
    model = tiny("vit")
    with pytest.raises(ValueError, match=f"(?s){message}"):
        rv.load_torch(model, change(random_state(model)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": {"x": np.ones(3)}}, "has extra, .* beside the weights"),
        ({"norm.bias": np.zeros(16, np.int8)}, "norm.bias is int8; wanted floating"),
        ({"norm.bias": np.zeros(16, np.complex64)}, "norm.bias is complex64; wanted"),
        ({"normalize.mean": np.full(3, np.nan), "normalize.std": np.ones(3)},
         "mean .nan nan nan. and std .*; wanted a finite mean"),
        ({"normalize.mean": np.zeros(3), "normalize.std": np.zeros(3)},
         "wanted a finite mean and a positive std"),
        ({"normalize.mean": np.zeros(3), "normalize.std": np.ones(1)}, "positive std"),
        ({"pos_embed": np.zeros((2, 5, 16))}, r"pos_embed is \(2, 5, 16\), wanted"),
        ({"patch_embed.proj.weight": np.zeros((16, 3, 0, 8))}, "proj.weight is "),
        ({"blocks.0.ls1.gamma": np.ones(16), "blocks.0.gamma_1": np.ones(16)},
         "blocks.0.ls1.gamma under two names"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:the dict")
def test_odd_contents_are_told(change, message):
    model = tiny("vit")
    with pytest.raises(ValueError, match=f"(?s){message}"):
        rv.load_torch(model, {**random_state(model), **change})


@pytest.mark.parametrize(
    ("model", "source", "message"),
    [
        ("vit_tiny_patch16_224", {}, "the model is a str, 'vit_tiny_patch16_224'"),
        (None, {"params": {}}, "variables of ours already"),
        (None, "tests", "tests is a folder; wanted a weight file"),
    ],
)
def test_misuse_is_told(model, source, message):
    with pytest.raises(ValueError, match=message):
        rv.load_torch(model or tiny("vit"), source)


def test_half_precision_is_not_computed_with():
    """DINOv2's registers: the sum of token and position is float32's."""
    model = tiny("dinov2_reg")
    half = {k: v.astype(np.float16) for k, v in dinov2(random_state(model)).items()}
    half["pos_embed"][:, 0] = 0.3
    with pytest.warns(UserWarning, match="float16"):
        variables = rv.load_torch(model, half)
    token = half["cls_token"].astype(np.float32) + np.float32(np.float16(0.3))
    np.testing.assert_array_equal(variables["params"]["cls_token"], token)


def test_channels_are_repeated_for_several_resolutions(tmp_path):
    model = tiny("vit").clone(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    wide = model.clone(mean=model.mean * 2, std=model.std * 2)
    state = random_state(model)
    images = np.random.default_rng(0).uniform(size=(2, 16, 16, 3)).astype(np.float32)
    normalization = {"normalize.mean": np.float32(model.mean),
                     "normalize.std": np.float32(model.std)}  # fmt: skip
    once = model.apply(rv.load_torch(model, {**state, **normalization}), images)
    variables = rv.load_torch(wide, {**state, **normalization})
    twice = wide.apply(variables, np.concatenate([images, images], axis=-1))
    np.testing.assert_allclose(once.logits, twice.logits, rtol=1e-4, atol=1e-4)
    rv.save_torch(wide, variables, tmp_path / "wide.safetensors")
    again = rv.load_torch(wide, tmp_path / "wide.safetensors")
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, again))


def test_long_lists_are_cut():
    with pytest.raises(ValueError, match=r"missing: .*, \.\.\. and \d+ more"):
        rv.load_torch(tiny("vit"), {"norm.bias": np.zeros(16, np.float32)})


@pytest.mark.parametrize("family", ["vit", "xcit", "convnext", "resnet"])
def test_a_new_head_is_fresh_and_bounded(family):
    model = tiny(family)
    state = random_state(model)
    wide = model.clone(num_classes=11)
    loaded = [rv.load_torch(wide, state, new_head=True, seed=s) for s in (0, 0, 1)]
    flat = [traverse_util.flatten_dict(v["params"], sep="/") for v in loaded]
    fresh = [k for k in flat[0] if flat[0][k].shape[-1] == 11]
    assert len(fresh) == 2
    for key in fresh:
        np.testing.assert_array_equal(flat[0][key], flat[1][key])
        assert not np.array_equal(flat[0][key], flat[2][key])
    kernel = next(flat[0][k] for k in fresh if k.endswith("kernel"))
    bound = kernel.shape[0] ** -0.5
    assert 0.8 * bound < np.abs(kernel).max() <= bound
    old = traverse_util.flatten_dict(rv.load_torch(model, state)["params"], sep="/")
    for key in flat[0].keys() - set(fresh):
        np.testing.assert_array_equal(flat[0][key], old[key])


def test_a_model_without_head_drops_the_files():
    model = tiny("vit")
    state = random_state(model)
    assert_is(rv.load_torch(model.clone(num_classes=0), state),
              model.clone(num_classes=0), state)  # fmt: skip


def test_xcit_weights_fit_any_strides():
    state = random_state(tiny("xcit"))
    small = tiny("xcit").clone(strides=(1, 1, 2, 2))
    assert_is(rv.load_torch(small, state), small, state)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("nowhere.pth", FileNotFoundError, "no weight file nowhere.pth"),
        ("README.md", ValueError, "no known kind: wanted .safetensors or one of .pth"),
    ],
)
def test_wrong_paths_are_told(source, error, message):
    with pytest.raises(error, match=message):
        rv.load_torch(tiny("vit"), source)


def test_a_truncated_safetensors_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(random_state(tiny("vit")), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut off or damaged"):
        rv.load_torch(tiny("vit"), path)


@pytest.mark.parametrize("name", ["x.pth", "x.pth.tar", "x.PT", "x.th", "x.bin"])
def test_every_torch_suffix_is_read(tmp_path, name):
    model = tiny("vit")
    state = random_state(model)
    write_torch_file(tmp_path / name, state)
    assert_is(rv.load_torch(model, tmp_path / name), model, state)
