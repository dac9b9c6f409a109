"""Policies in a transform, several views of an image, and batches made of them."""

import itertools

import numpy as np
import pytest

from robustvit.data import pipeline
from robustvit.data import transforms as T
from robustvit.data.images import CorruptImageError
from robustvit.data.loading import LoaderStats
from robustvit.data.pipeline import train_batches
from robustvit.data.rand_augment import RandAugment, parse_rand_augment
from robustvit.data.sources import open_source
from robustvit.data.three_augment import ThreeAugment
from robustvit.data.views import split_ops, views, with_policy
from tests.data.conftest import encode, smooth_image
from tests.data.test_pipeline import Coloured

POLICY = parse_rand_augment("rand-m9-mstd0.5-inc1")
ALWAYS = RandAugment(probability=1.0)
SIZE = 8


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("transform", "kinds"),
    [
        (T.imagenet_train(24), "RandomResizedCrop HorizontalFlip *"),
        (T.cifar_train(24), "Resize RandomCrop HorizontalFlip *"),
        (T.cifar_train(24, degrees=2.0), "Resize RandomCrop HorizontalFlip * Random"),
        (T.digits_train(24), "Resize RandomCrop * RandomRotation"),
    ],
)
@pytest.mark.parametrize("policy", [POLICY, ThreeAugment()])
def test_a_policy_goes_after_the_flip_and_before_the_rotation(transform, kinds, policy):
    changed = with_policy(transform, policy)
    names = [type(op).__name__ for op in changed.ops]
    expected = kinds.replace("*", type(policy).__name__).split()
    assert len(names) == len(expected)
    assert all(n.startswith(e) for n, e in zip(names, expected, strict=True))
    assert changed.size == 24
    assert changed(smooth_image(40, 30), rng()).shape == (24, 24, 3)


def test_views_are_the_clean_one_and_augmentations_of_it():
    transform = with_policy(T.imagenet_train(24), ALWAYS)
    image = encode(smooth_image(60, 45))
    clean, *others = views(transform, image, rng(7), 4)
    np.testing.assert_array_equal(clean, T.imagenet_train(24)(image, rng(7)))
    generator = rng(7)
    T.imagenet_train(24)(image, generator)  # what is left in it is the policy's
    for view in others:
        np.testing.assert_array_equal(view, ALWAYS(clean, generator))
    assert len({view.tobytes() for view in others}) == 3
    np.testing.assert_array_equal(
        views(transform, image, rng(7), 2), np.stack([clean, others[0]])
    )
    assert split_ops(T.imagenet_train(24))[1] == ()


TRANSFORM = with_policy(T.imagenet_train(SIZE), ALWAYS)


def take(count, *, batch_size=12, repeats=3, source=None, **options):
    source = source or open_source("digits", "test[:21]")
    batches = train_batches(
        source, TRANSFORM, batch_size=batch_size, seed=1, repeats=repeats, **options
    )
    return list(itertools.islice(batches, count))


def assert_equal(got, wanted):
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert set(a) == set(b)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_batches_count_views():
    batches = take(6)
    for batch in batches:
        shapes = {name: (a.dtype, a.shape) for name, a in batch.items()}
        assert shapes == {
            "image": (np.uint8, (12, SIZE, SIZE, 3)),
            "label": (np.int32, (12,)), "index": (np.int32, (12,)),
            "view": (np.int32, (12,)), "mask": (np.bool_, (12,)),
        }  # fmt: skip
        np.testing.assert_array_equal(batch["view"], [0, 1, 2] * 4)
        by_image = batch["index"].reshape(4, 3)
        assert (by_image == by_image[:, :1]).all() and batch["mask"].all()
        changed = (batch["image"][0::3] != batch["image"][1::3]).any((1, 2, 3))
        assert changed.mean() > 0.5
    # four images a batch: a pass over 21 of them is five batches and one image
    assert len(np.unique(np.concatenate([b["index"] for b in batches])[:63])) == 21


def test_the_clean_view_is_what_no_policy_gives():
    plain = train_batches(
        open_source("digits", "test[:21]"), T.imagenet_train(SIZE), batch_size=4, seed=1
    )
    for batch, without in zip(take(3), plain, strict=False):
        np.testing.assert_array_equal(batch["image"][::3], without["image"])
        np.testing.assert_array_equal(batch["label"][::3], without["label"])


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("num_hosts", [2, 4])
def test_hosts_share_the_same_global_batches(num_hosts, repeats):
    alone = take(4, batch_size=12, repeats=repeats)
    hosts = [
        take(4, batch_size=12, repeats=repeats, host=h, num_hosts=num_hosts)
        for h in range(num_hosts)
    ]
    joined = [
        {name: np.concatenate([b[name] for b in blocks]) for name in blocks[0]}
        for blocks in zip(*hosts, strict=True)
    ]
    assert_equal(joined, alone)


@pytest.mark.parametrize("repeats", [1, 3])
def test_starting_at_a_step_is_having_run_to_it(repeats):
    whole = take(9, repeats=repeats)
    for host, num_hosts, threads in ((0, 1, 1), (1, 2, 0)):
        rest = take(4, repeats=repeats, start_step=5, host=host, num_hosts=num_hosts,
                    num_threads=threads)  # fmt: skip
        rows = slice(host * 12 // num_hosts, (host + 1) * 12 // num_hosts)
        wanted = [{name: a[rows] for name, a in b.items()} for b in whole[5:]]
        assert_equal(rest, wanted)


def test_an_unreadable_image_gives_way_with_all_its_views():
    source, stats = Coloured(corrupt=frozenset({5})), LoaderStats()
    for batch in take(8, source=source, on_error="skip", stats=stats):
        assert 5 not in batch["index"]
    assert stats.skipped
    with pytest.raises(CorruptImageError, match="coloured example 5 cannot be decoded"):
        take(8, source=source)


@pytest.mark.parametrize(
    ("batch_size", "repeats", "steps"), [(12, 3, 5), (12, 1, 1), (63, 3, 1), (2, 2, 21)]
)
def test_a_pass_has_its_steps(batch_size, repeats, steps):
    assert pipeline.steps_per_epoch(Coloured(), batch_size, repeats) == steps


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"batch_size": 10},
            "got batch_size=10, wanted a multiple of repeats=3, the v",
        ),
        ({"repeats": 0}, r"wanted a multiple of repeats=0, the .* \(at least 1\)"),
        ({"batch_size": 66}, r"wanted it in \[1, 63\], the number of examples times"),
        ({"num_hosts": 2, "batch_size": 9}, "of num_hosts=2 times repeats=3"),
    ],
)
def test_arguments_are_checked_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        take(1, **arguments)


def test_an_image_too_small_for_the_crop_is_named():
    """Whatever comes after: the policy gets the pixels of the crop."""
    transform = with_policy(T.TrainTransform((T.RandomCrop(32, padding=4),)), ALWAYS)
    message = r"shape \(12, 12, 3\), wanted sides of at least 24 for RandomCrop\(size="
    for repeats in (1, 2):
        batches = train_batches(
            Coloured(), transform, batch_size=4, seed=0, repeats=repeats
        )
        with pytest.raises(ValueError, match=message):
            next(batches)


def test_policies_take_the_smallest_images():
    """A filter of Pillow is wider than one pixel, and must not trip over it."""
    for shape in ((1, 1), (1, 7), (2, 2)):
        image = smooth_image(*shape)
        for policy in (RandAugment(num_layers=30, probability=1.0), ThreeAugment()):
            for seed in range(5):
                assert policy(image, rng(seed)).shape == image.shape
