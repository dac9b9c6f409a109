"""Images from memory and from a stream, and what cannot be evaluated."""

from itertools import pairwise

import numpy as np
import pytest

from robustvit.evaluation.inputs import another_like, gather

IMAGES = np.random.default_rng(0).uniform(size=(7, 4, 4, 3)).astype(np.float32)
LABELS = np.arange(7)


def chunks(*cuts):
    ends = [0, *cuts, len(LABELS)]
    for a, b in pairwise(ends):
        yield IMAGES[a:b], LABELS[a:b]


@pytest.mark.parametrize("cuts", [(), (3,), (1, 5)])
def test_a_stream_is_kept_in_a_file_and_nothing_else_changes(cuts):
    images, labels = gather(chunks(*cuts), None)
    assert isinstance(images, np.memmap) and images.dtype == np.float32
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)
    copy = another_like(images)
    copy[2] = 0
    assert isinstance(copy, np.memmap) and images[2].any()
    np.testing.assert_array_equal(copy[3:], IMAGES[3:])


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ([], "nothing to evaluate"),
        ([(IMAGES[:0], LABELS[:0])], "nothing to evaluate"),
        ([(IMAGES, LABELS), (IMAGES[:, :2], LABELS)], "are followed by"),
        ([(IMAGES, LABELS[:3])], "wanted images"),
    ],
)
def test_a_stream_that_cannot_be_evaluated(stream, message):
    with pytest.raises(ValueError, match=message):
        gather(iter(stream), None)
