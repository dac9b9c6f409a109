from robustvit.training.patience import out_of_patience


def history(*scores):
    records = [{"step": 1, "epoch": 0.5, "train/loss": 2.0}]
    for epoch, score in enumerate(scores, 1):
        records.append({"step": 2 * epoch, "epoch": float(epoch), "val/a": score})
    return records


def test_waits_for_a_better_one():
    """Equal is not better; a later best starts the count anew."""
    cases = [
        ((), False), ((0.1,), False), ((0.3, 0.2), False), ((0.3, 0.2, 0.3), True),
        ((0.3, 0.2, 0.31), False), ((0.3, 0.2, 0.31, 0.1, 0.31), True),
    ]  # fmt: skip
    for scores, stops in cases:
        assert bool(out_of_patience(history(*scores), "val/a", 2)) == stops, scores
        assert out_of_patience(history(*scores), "val/a", 0) is None


def test_the_sentence():
    assert out_of_patience(history(0.25, 0.5, 0.4, 0.5), "val/a", 2) == (
        "stopped after epoch 4: val/a has not risen above 0.5, that of epoch 2, for 2 "
        "epochs (checkpoint.patience=2)"
    )
