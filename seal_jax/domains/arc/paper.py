"""The ARC-AGI-1 tasks of the paper's few-shot experiment ("Self-Adapting Language Models", arXiv 2506.10943)."""

# All of the public training set. 8e1813be is listed by the paper as well and was not used.
TRAINING = (
    *("44f52bb0", "4be741c5", "5582e5ca", "5614dbcf", "5bd6f4ac", "6150a2bd"),
    *("67e8384a", "6d0aefbc", "6e02f1e3", "8be77c9e", "8d5021e8"),
)
# All of the public evaluation set.
EVALUATION = ("59341089", "66e6c45b", "68b67ca3", "903d1b4a", "b1fc8b8e", "bc4146bd", "c7d4e6ad", "ce8d95cc")
