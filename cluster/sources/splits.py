"""The words by which folders call the splits of a dataset."""

SPLITS = {
    **dict.fromkeys(("train", "training"), ("train",)),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval"), ("val",)),
    **dict.fromkeys(("test", "testing"), ("test",)),
    "trainval": ("train", "val"),
    **dict.fromkeys(("unlabeled", "unlabelled"), ("unlabeled",)),
}
"""Which splits a word means; two words that share one may mean the same pictures."""
