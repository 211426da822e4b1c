"""Judges say whether an answer is right.

A judge is a function `grade(answered) -> list[bool | None]`, one verdict for each `Answered` (domains/domain.py), in
order. None means that it could not be graded: it is left out of every mean and never counted as wrong. An empty answer
is wrong in every judge.
A judge may also have `grade.probabilities(answered) -> list[float | None]`: how likely each answer is right. They stand
beside the verdicts in the records, and the table shows their mean.
`grade.name` goes into every record, because verdicts of different judges do not belong in one table.

    lexical.grade          words of the gold answer found in the answer; offline, the default
    calibrated.grade       a small logistic regression on such features, with probabilities; offline
    local.make(ask)        yes or no by a language model that runs here
    remote.make(...)       yes or no by a model behind an OpenAI-compatible endpoint
"""
