"""`robustvit data prepare | check`: datasets for training, out of what people have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

IMAGENET = "imagenet2012"


def add_data(commands: Any) -> None:
    """Adds the command, which has commands of its own."""
    data = commands.add_parser(
        "data",
        help="prepare a dataset (ImageNet's folders or tars, TFRecords), or check one",
        description="Datasets on this machine; nothing is downloaded.",
    )
    ways = data.add_subparsers(dest="way", metavar="prepare|check", required=True)
    _add_prepare(ways)
    _add_check(ways)


def _add_prepare(ways):
    prepare = ways.add_parser(
        "prepare",
        help="write a dataset in the format that training reads",
        description="Writes array_record files as TFDS has them, without TensorFlow, "
        "from a folder of class folders (ImageNet's: train/<wnid>/*.JPEG and val/), "
        "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, or a TFDS dataset in "
        "TFRecords. The same command goes on where it was stopped.",
        epilog="For example: robustvit data prepare --from /data/imagenet --data-dir "
        "~/tensorflow_datasets; then --config.data.dir=~/tensorflow_datasets.",
    )
    add = prepare.add_argument
    add(
        "--from",
        dest="source",
        required=True,
        type=Path,
        help="folder with the images, the tars, or dataset_info.json and TFRecords",
    )
    add("--data-dir", required=True, type=Path, help="where to: DIR/NAME/VERSION")
    add("--name", help=f"of the dataset; default: {IMAGENET}, or that of the TFRecords")
    add(
        "--val-labels",
        type=Path,
        help="of validation images without class folders: ILSVRC2012_devkit_t12.tar.gz,"
        " or text with a class, or its place from 0 in the sorted ones, per line; "
        "default: the former, if it lies there",
    )
    add(
        "--max-side",
        type=int,
        default=0,
        help="make larger images smaller: 500 halves ImageNet, and changes the recipe "
        "a little; default: as they are",
    )
    add("--quality", type=int, default=0, help="encode all images anew as JPEG")
    add("--threads", type=int, help="default: twice the cores")
    prepare.set_defaults(run=_prepare)


def _add_check(ways):
    check = ways.add_parser(
        "check",
        help="counts, labels and images of a dataset",
        description="Compares the files with dataset_info.json, reads every label, and "
        "decodes a sample of the images, or all. Exit code: 0 nothing is wrong, 1 "
        "something is, and what is named, 2 bad input.",
    )
    add = check.add_argument
    add("--name", required=True, help="like cifar10, folder:<path>, synthetic:<path>")
    add("--data-dir", help="where TFDS datasets lie; default: where TFDS puts them")
    add("--split", action="append", help="may be given twice; default: all there are")
    add("--decode", action="store_true", help="all images; default: 1,000 of a split")
    check.set_defaults(run=_check)


def _prepare(args, _):
    from robustvit.data import imagenet, prepare

    plan = _plan(args)
    for split, shards in plan.splits.items():
        count = sum(len(shard.items) for shard in shards)
        print(f"{split}: {count:,} images, {len(shards):,} shards")
        wanted = imagenet.NUM_IMAGES.get(split, count)
        if plan.name == IMAGENET and count != wanted:
            print(f"  ImageNet has {wanted:,}: these are not all of it")
    print("looking how fast it will go ...")
    folder = prepare.prepare(
        plan, args.data_dir, num_threads=args.threads, on_start=_say_how_long
    )
    print(f"{folder} is complete: {len(plan):,} images, counts and labels are right")
    name = f"{plan.name}:{plan.version}"
    print(f"look at every image with: robustvit data check --name {name} --data-dir "
          f"{args.data_dir} --decode")  # fmt: skip


def _plan(args):
    """What is to be written, from whichever of the kinds of data lies there."""
    from robustvit.data import imagenet, originals, plans, val_labels
    from robustvit.data.examples import Encoding

    source = args.source.expanduser()
    options = {"max_side": args.max_side, "quality": args.quality}
    if (source / "dataset_info.json").is_file():
        for flag in ("name", "val_labels"):
            if getattr(args, flag) is not None:
                raise ValueError(
                    f"--{flag.replace('_', '-')} is not for TFRecords, which say it"
                )
        return plans.of_tfrecords(source, Encoding(**options))
    name = args.name or IMAGENET
    devkit = source / val_labels.DEVKIT
    labels = args.val_labels or (devkit if devkit.is_file() else None)
    tars = (originals.TRAIN_TAR, originals.VAL_TAR)
    if any((source / tar).is_file() for tar in tars):
        if name != IMAGENET:
            raise ValueError(f"{source} has ImageNet's tars, but --name {name}")
        found = originals.list_tars(source, labels=labels)
        return plans.of_originals(found, name, Encoding(**options))
    names = imagenet.wnids() if name == IMAGENET else None
    try:
        found = originals.list_folder(source, names=names, labels=labels)
    except imagenet.WrongClassesError as error:
        if args.name:
            raise
        raise ValueError(f"{error} (if it is not ImageNet, give --name)") from None
    # ImageNet's one PNG, named .JPEG, becomes what its name says, as in TFDS.
    encoding = Encoding(**options, keep_png=name != IMAGENET)
    return plans.of_originals(found, name, encoding)


def _say_how_long(estimate):
    if estimate.done:
        print(f"{estimate.done:,} images are there from before")
    print(
        f"{estimate.left:,} images to {estimate.folder}: {duration(estimate.seconds)}, "
        f"{size(estimate.size)} of the {size(estimate.free)} that are free"
    )


def duration(seconds: float) -> str:
    """For example "about 2 h 10 min"."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    hours, minutes = divmod(minutes, 60)
    return f"about {f'{hours} h ' if hours else ''}{minutes} min"


def size(count: int) -> str:
    """For example "138.2 GB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _check(args, _):
    from robustvit.data import check

    faults = 0
    for split in args.split or _splits(args.name, args.data_dir):
        found = check.check_split(
            args.name, split, data_dir=args.data_dir, decode_all=args.decode
        )
        print(found)
        faults += len(found.faults)
    print(f"{faults:,} faults" if faults else "nothing is wrong")
    return 1 if faults else 0


def _splits(name: str, data_dir: str | None) -> Sequence[str]:
    """All there are, where they can be listed."""
    from robustvit.data import check, prepared

    if check.is_in_files(name):
        return list(prepared.shard_files(name, data_dir))
    return ("train",)
