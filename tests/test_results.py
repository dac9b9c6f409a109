"""Published rows against the configs they name, and runs beside them in tables."""

import csv
import functools
import io
import json

import pytest

from robustvit.cli import main
from robustvit.config_files import load_config
from robustvit.published import matching, rows
from robustvit.results import markdown, read_result, to_csv
from robustvit.runs import to_plain
from robustvit.sweep import tasks
from tests.fake_runs import STANDARD, fake_report, fake_run
from tests.small_run import REPO

CONFIGS = REPO / "configs"
AA = dict(zip(STANDARD, (44.0, 41.2, 41.2, 41.15), strict=True))


@functools.cache
def points(file):
    return {task.name: task for task in tasks(CONFIGS / file, CONFIGS)}


@functools.cache
def config_of(recipe):
    file, _, point = recipe.partition("#")
    if point:
        return to_plain(points(file)[point].config())
    return to_plain(load_config(str(CONFIGS / recipe)))


@pytest.mark.parametrize("table", sorted({row.table for row in rows()}))
def test_each_row_is_found_from_its_recipe(table):
    for row in rows():
        if row.table == table and row.recipe:
            assert row in matching(config_of(row.recipe)), row.recipe


def test_a_recipe_matches_no_other_numbers_but_those_published_twice():
    twice = {frozenset(r.table for r in found) for row in rows() if row.recipe
             if len(found := matching(config_of(row.recipe))) > 1}  # fmt: skip
    pairs = (("table 2", "table 3"), ("table 3", "table 4"), ("table 5", "table 6"))
    assert twice == {frozenset(pair) for pair in pairs}


# By the tables of arXiv:2209.07399 and the repository's README.
NUMBERS = [
    ("table 1", "CaiT-S12", 70.20, 35.84),
    ("table 1", "XCiT-S12 standard", 90.44, None),
    ("table 2", "eps warm-up 20", 56.10, 34.88),
    ("table 3", "randaugment + erasing", 64.76, 37.62),
    ("table 3", "mixup + cutmix standard", 76.48, None),
    ("table 4", "weight decay 0.5", 68.78, 42.02),
    ("table 4", "weight decay 0 standard", 76.32, None),
    ("table 5", "+ light augmentation", 71.70, 38.78),
    ("table 6", "XCiT-L12, one step", 74.60, 43.78),
    ("eps 4", "XCiT-L12", 73.76, 47.60),
    ("table 7", "Flowers ResNet-50", 70.61, 21.52),
    ("hi-res", "Caltech-101 XCiT-S12", 87.59, 61.74),
    ("table 8", "scratch with synthetic images", 80.01, 47.88),
    ("CIFAR fine-tuning", "CIFAR-100 XCiT-L12", 70.76, 35.08),
    ("Revisiting AT", "ConvNeXt-L-CvSt", 77.00, 57.70),
]


@pytest.mark.parametrize(("table", "name", "clean", "robust"), NUMBERS)
def test_published_numbers(table, name, clean, robust):
    (row,) = (r for r in rows() if (r.table, r.name) == (table, name))
    assert (row.clean, row.robust) == (clean, robust)


def test_docstrings_of_configs_quote_the_same_numbers():
    for row in rows():
        if row.recipe and "#" not in row.recipe:
            text = (CONFIGS / row.recipe.partition(":")[0]).read_text()
            number = f"{row.clean:.2f}"
            number += f" / {row.robust:.2f}" if row.robust is not None else ""
            assert number in text, row


@pytest.mark.parametrize(
    ("override", "matches"),
    [
        ("data.name=imagenet2012:5.1.0", True),
        ("seed=3", True),
        ("data.batch_size=1024", True),
        ("optim.args.weight_decay=0.3", False),
        ("threat.eps=3/255", False),
        ("data.mix.name=synthetic:a.npz", False),
        ("init_from=runs/other", False),
        ("attack.args.steps=2", False),
    ],
)
def test_which_configs_are_the_recipe(override, matches):
    c = load_config(str(CONFIGS / "imagenet_xcit_adv.py"), [f"--config.{override}"])
    assert bool(matching(to_plain(c))) == matches
    with c.unlocked():
        c.model.args.dim = 64  # a narrower model is another one
    assert not matching(to_plain(c))


@pytest.fixture
def s12(tmp_path):
    return fake_run(tmp_path / "s12", "imagenet_xcit_adv.py:s12")


def test_a_run_beside_its_row(s12):
    fake_report(s12, "report.json", 72.1, {"pgd-20": 46.0}, images=50_000)
    fake_report(s12, "report-autoattack-linf-4_255.json", 72.0, AA)
    r = read_result(s12)
    found = (r.state, r.clean, r.pgd, r.apgd_ce, r.autoattack, r.images)
    assert found == ("finished", *map(pytest.approx, (72.1, 46.0, 44.0, 41.15)), 5000)
    assert r.clean_difference == pytest.approx(72.1 - 72.34)
    assert r.robust_difference == pytest.approx(41.15 - 41.78)
    text = " ".join(markdown([r]).split())
    assert "72.34 | 41.78 AutoAttack | -0.24 / -0.63" in text
    assert "more than once" not in text  # twice, but with the same numbers


@pytest.mark.parametrize(
    ("reports", "found"),
    [
        ([], (None, None, None)),
        ([("report-clean.json", 70.0, {}, {})], (70.0, None, None)),
        # APGD-CE alone is not AutoAttack, nor is a later attack's rest APGD-CE.
        ([("report-a.json", 70.0, {"apgd-ce": 43.0}, {})], (70.0, 43.0, None)),
        ([("report-a.json", 70.0, {"apgd-t": 42.0, "apgd-ce": 42.0}, {})],
         (70.0, None, None)),
        # Of two answers to one question, that on more images.
        ([("report-a.json", 71.0, AA, {"images": 100}),
          ("report-b.json", 72.0, AA, {})], (72.0, 44.0, 41.15)),
        # On another eps, another checkpoint, or not a report at all.
        ([("report-a.json", 70.0, {"apgd-ce": 20.0}, {"eps": "8/255"})],
         (None, None, None)),
        ([("report-a.json", 70.0, {"apgd-ce": 20.0}, {"step": 14})],
         (None, None, None)),
    ],
)  # fmt: skip
def test_which_reports_count(s12, reports, found):
    (s12 / "report-x.robustbench.json").write_text('{"clean_acc": "72.0"}')
    for name, clean, after, options in reports:
        fake_report(s12, name, clean, after, **options)
    r = read_result(s12)
    assert (r.clean, r.apgd_ce, r.autoattack) == pytest.approx(found)
    assert r.state == "epoch 2 of 110"


def test_weights_that_were_imported_have_a_result(tmp_path):
    run = fake_run(tmp_path / "w", "imagenet_xcit_adv.py:m12", validated=False)
    fake_report(run, "report-autoattack-linf-4_255.json", 74.04, AA, step=0)
    r = read_result(run)
    assert r.state == "not trained" and r.clean_difference == pytest.approx(0)


def test_report_command(tmp_path, capsys, s12):
    nano = fake_run(tmp_path / "other" / "s12", "imagenet100_xcit_adv.py")
    digits = fake_run(tmp_path / "digits", "quickstart.py")
    fake_report(nano, "report-apgd-ce-linf-4_255.json", 67.26, {"apgd-ce": 39.0})
    flags = {"markdown": "t/a.md", "csv": "t/a.csv", "png": "t/a.png"}
    files = {name: tmp_path / path for name, path in flags.items()}
    written = [x for name, path in files.items() for x in (f"--{name}", str(path))]
    assert main(["report", str(s12), str(nano), str(digits), *written]) == 0
    text = capsys.readouterr().out
    assert files["markdown"].read_text() == text
    assert "other/s12 was published more than once: table 4" in text
    assert "66.78 / 39.22" in text
    lines = list(csv.DictReader(io.StringIO(files["csv"].read_text())))
    assert [line["run"].rpartition("/")[2] for line in lines] == [
        "s12",
        "s12",
        "digits",
    ]
    assert lines[1]["clean_difference"] == "0.10"
    assert lines[1]["robust_difference"] == "-0.30"
    assert lines[1]["published_apgd_ce"] == "39.30" and not lines[1]["autoattack"]
    assert not lines[2]["published"] and not lines[2]["clean"]
    assert files["png"].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "is no folder"),
        (lambda p: p.mkdir(), "has no config.json: wanted the --workdir of a training"),
        (lambda p: fake_report(fake_run(p, "quickstart.py"), "report.json", 1, {})
         or (p / "report.json").write_text("{"), "report.json is not JSON"),
    ],
)  # fmt: skip
def test_what_is_no_run_is_an_error(tmp_path, capsys, make, message):
    make(tmp_path / "x")
    assert main(["report", str(tmp_path / "x")]) == 2
    assert message in capsys.readouterr().err


def test_csv_of_nothing_measured(s12):
    (line,) = csv.DictReader(io.StringIO(to_csv([read_result(s12)])))
    assert line["published_clean"] == "72.34" and line["autoattack"] == ""
    assert json.loads((s12 / "config.json").read_text())["epochs"] == 100
