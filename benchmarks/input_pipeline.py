"""Images a second from JPEG bytes to batches: this pipeline, and others' on the same.

    python -m benchmarks.input_pipeline --data-dir DIR      # ImageNet as TFDS has it
    python -m benchmarks.input_pipeline --folder DIR        # one folder per class

Two tables. The first is one thread: decode, random resized crop to 224 and flip, with
our transform, Pillow and OpenCV. The second is whole pipelines on every core, from
shuffling to a batch of uint8 in memory: ours, and (where torch and torchvision are
installed) a DataLoader with torchvision's transforms. The sides take turns, and all
get the same bytes; "ms" are of CPU time, the workers' included, which other jobs on the
machine change less than the clock.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
from PIL import Image

from robustvit.data.pipeline import train_batches, usable_cores
from robustvit.data.sources import Source, open_source
from robustvit.data.transforms import RandomResizedCrop, imagenet_train

SIZE = 224


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data-dir", help="where imagenet2012 lies, prepared by TFDS")
    add("--folder", help="instead: images in one folder per class")
    add("--split", default="train")
    add("--batches", type=int, default=8, help="of each pipeline in a turn")
    add("--batch-size", type=int, default=128)
    add("--turns", type=int, default=5)
    args = parser.parse_args()
    name = f"folder:{args.folder}" if args.folder else "imagenet2012"
    source = InMemory(open_source(name, args.split, data_dir=args.data_dir))
    cores = usable_cores()
    sizes = [len(example["image"]) for example in source.examples]
    print(f"{len(source)} JPEGs, {np.mean(sizes) / 1e3:.0f} kB on average\n")
    show("one thread", one_thread(source.examples, args.turns), cores=1)
    show(f"whole pipelines, {cores} workers", whole(source, args, cores), cores=cores)


class InMemory:
    """The encoded images, so that no side waits for a disk."""

    def __init__(self, source: Source):
        self.examples = [source[i] for i in range(len(source))]
        self.class_names, self.num_classes = source.class_names, source.num_classes
        self.describe = source.describe

    def __len__(self) -> int:
        """Number of images."""
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Bytes and label."""
        return self.examples[index]


def one_thread(examples: list[dict[str, Any]], turns: int) -> dict[str, Any]:
    """By way of doing it: medians of (CPU seconds, seconds) an image."""
    cv2.setNumThreads(1)
    ways: dict[str, Callable[..., np.ndarray]] = {
        "robustvit": imagenet_train(SIZE),
        "Pillow": with_pillow,
        "OpenCV": with_opencv,
    }
    spent = {name: [] for name in ways}
    for turn, (name, way) in itertools.product(range(turns), ways.items()):
        rng = np.random.default_rng(turn)
        before = seconds()
        for example in examples:
            way(example["image"], rng)
        spent[name].append((seconds() - before) / len(examples))
    return spent


def with_pillow(image: bytes, rng: np.random.Generator) -> np.ndarray:
    """As timm does it: decode all, crop and resize in one call, bicubic."""
    opened = Image.open(io.BytesIO(image)).convert("RGB")
    top, left, h, w = RandomResizedCrop(SIZE).box(opened.height, opened.width, rng)
    box = (left, top, left + w, top + h)
    crop = opened.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)
    if rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(crop)


def with_opencv(image: bytes, rng: np.random.Generator) -> np.ndarray:
    """Decode all, crop, then the area filter for smaller, the cubic for larger."""
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    height, width, _ = pixels.shape
    top, left, h, w = RandomResizedCrop(SIZE).box(height, width, rng)
    filter_ = cv2.INTER_AREA if h * w > SIZE**2 else cv2.INTER_CUBIC
    crop = cv2.resize(
        pixels[top : top + h, left : left + w], (SIZE, SIZE), interpolation=filter_
    )
    crop = cv2.cvtColor(crop, cv2.COLOR_BGR2RGB)
    return cv2.flip(crop, 1) if rng.random() < 0.5 else crop


def whole(source: InMemory, args: argparse.Namespace, cores: int) -> dict[str, Any]:
    """By pipeline: (CPU seconds, seconds) an image of every turn."""
    starts: dict[str, Callable[[int], Iterator[Any]]] = {
        "robustvit": lambda turn: train_batches(
            source, imagenet_train(SIZE), batch_size=args.batch_size, seed=turn,
            num_threads=cores,
        )
    }  # fmt: skip
    try:
        starts["torch DataLoader"] = torch_loader(source, args.batch_size, cores)
    except ModuleNotFoundError as error:
        print(f"without torch: {error}\n")
    spent = {name: [] for name in starts}
    for turn, (name, start) in itertools.product(range(args.turns), starts.items()):
        before = seconds()
        batches = start(turn)
        for _ in range(args.batches):
            assert next(batches) is not None
        wall = (seconds() - before)[1]
        del batches  # ends the workers, whose CPU time counts only then
        cpu = (seconds() - before)[0]
        images = args.batches * args.batch_size
        spent[name].append(np.array([cpu, wall]) / images)
    return spent


def torch_loader(
    source: InMemory, batch_size: int, workers: int
) -> Callable[[int], Iterator[Any]]:
    """torchvision's transforms, in processes, without end."""
    import torch
    from torch.utils.data import DataLoader, RandomSampler
    from torchvision import transforms as T

    bicubic = T.InterpolationMode.BICUBIC
    transform = T.Compose(
        [
            T.RandomResizedCrop(SIZE, interpolation=bicubic),
            T.RandomHorizontalFlip(),
            T.PILToTensor(),
        ]
    )

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return len(source)

        def __getitem__(self, index):
            example = source[index]
            image = Image.open(io.BytesIO(example["image"])).convert("RGB")
            return transform(image), example["label"]

    def start(turn):
        torch.manual_seed(turn)
        dataset = Images()
        sampler = RandomSampler(
            dataset, replacement=True, num_samples=batch_size * 9**6
        )
        return iter(DataLoader(dataset, batch_size, sampler=sampler,
                               num_workers=workers))  # fmt: skip

    return start


def seconds() -> np.ndarray:
    """(CPU time of this process and its ended children, clock)."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    used = [resource.getrusage(w) for w in who]
    return np.array([sum(u.ru_utime + u.ru_stime for u in used), time.perf_counter()])


def show(title: str, spent: dict[str, Any], *, cores: int) -> None:
    """Medians over the turns, and ours against theirs."""
    print(f"| {title} | CPU ms an image | images/s per core | robustvit is |")
    print("|---|---|---|---|")
    ours = np.median(spent["robustvit"], 0)
    for name, values in spent.items():
        cpu, wall = np.median(values, 0)
        ratio = f"{cpu / ours[0]:.2f}x (clock: {wall / ours[1]:.2f}x)"
        rate = 1 / wall / cores
        print(f"| {name} | {cpu * 1e3:.2f} | {rate:.0f} | {ratio} |")
    print(f"\n(medians of {len(ours) and len(values)} turns; {os.cpu_count()} cores)\n")


if __name__ == "__main__":
    main()
