"""Data: raw examples in, uint8 batches out, with no TensorFlow and no download.

    from robustvit.data import pipeline, sources, transforms

    source = sources.open_source("digits", "train")
    batches = pipeline.train_batches(
        source, transforms.digits_train(32), batch_size=64, seed=0
    )
    batch = next(batches)  # image uint8 (64, 32, 32, 3), label, index, mask

`sources` opens a dataset, `transforms` turns one raw image into uint8 pixels on the
host, `pipeline` orders and batches them, `augment` does on the accelerator what is
cheap there. `prepare` and `check` are for the files themselves, before any of that.
Nothing is imported here, so that only the modules in use are paid for.
"""
