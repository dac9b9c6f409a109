"""Copies of ImageNet and CIFAR-10 of a few images, as TFDS would prepare them.

Not registered, because the names are those of TFDS' own.
"""

import io

import numpy as np
import tensorflow_datasets as tfds

from tests.data.conftest import encode

CLASSES = ("n01", "n02", "n03")
NUM_TEST = 12
# Image i of twelve, all of whose pixels are i; 1 to 12, of three classes.
VALIDATION = tuple(
    f"{'n01' if i in (1, 9) else 'n03' if i in (2, 7) else 'n02'}"
    f"/ILSVRC2012_val_{i:08}.JPEG"
    for i in range(1, 13)
)


def picture(value, size=32):
    return encode(np.full((size, size, 3), value, np.uint8), "PNG")


def number(id_):
    """7 of "n03/ILSVRC2012_val_00000007.JPEG"."""
    return int(id_.split("_")[-1].removesuffix(".JPEG"))


def prepare(builder, folder):
    """Writes the copy into `folder`; returns what `data_dir` wants."""
    builder(data_dir=str(folder), file_format="array_record").download_and_prepare()
    return str(folder)


class _Copy(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """With one more feature, which says what an example was made from."""

    classes = tuple(map(str, range(10)))
    file_feature = "id"

    def _info(self):
        features = {
            self.file_feature: tfds.features.Text(),
            "image": tfds.features.Image(encoding_format="png"),
            "label": tfds.features.ClassLabel(names=self.classes),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _example(self, value, label, file):
        image = io.BytesIO(picture(value))
        return value, {self.file_feature: file, "image": image, "label": label}


class Imagenet(_Copy, skip_registration=True):
    name = "imagenet2012"
    VERSION = tfds.core.Version("5.1.0")
    classes, file_feature = CLASSES, "file_name"

    def _split_generators(self, dl_manager):
        return {"validation": self._generate_examples()}

    def _generate_examples(self):
        for id_ in VALIDATION:
            label, file = id_.split("/")
            yield self._example(number(id_), label, file)


class Cifar(_Copy, skip_registration=True):
    """Image i is all i, its class i % 10; TFDS shuffles them."""

    name = "cifar10"
    VERSION = tfds.core.Version("3.0.2")
    id_format = "{}_{:05}"

    def _split_generators(self, dl_manager):
        sizes = {"train": 2 * NUM_TEST, "test": NUM_TEST}
        return {k: self._generate_examples(k, n) for k, n in sizes.items()}

    def _generate_examples(self, split, count):
        for i in range(count):
            yield self._example(i, i % 10, self.id_format.format(split, i))


class OtherCifar(Cifar, skip_registration=True):
    """Of somebody who named the images afresh."""

    name = "cifar10"
    id_format = "{}_frog_{:04}"
