"""Racing: which self-edits of an item are trained once more, so that inner loops go where the choice is still open.

Successive halving (Karnin et al. 2013, "Almost optimal exploration in multi-armed bandits", algorithm 1; Jamieson and
Talwalkar 2016, arXiv 1502.07943, figure 3), with the means of all retrains so far: loops are too dear to forget any.
Pure functions without arrays.
"""

from collections.abc import Callable, Mapping, Sequence

Rewards = Sequence[float | None]  # of every sample of an item so far, rounded as rewards are; None: it failed


def schedule(samples: int, budget: int) -> list[tuple[int, int]]:
    """[(how many self-edits run, retrains of each)], stage by stage, for `budget` inner loops at most.

    All of them run first, then the better half, rounded up, and so on down to two, between whom the last stage decides.
    Each stage gets an equal part of what is left, rounded up to whole retrains of each as long as there are enough:
    schedule(5, 15) is [(5, 1), (3, 2), (2, 2)]. Raises ValueError where not even the first stage can run.
    """
    if not 1 <= samples <= budget:
        raise ValueError(f"{budget} inner loops are not one for each of {samples} self-edits")
    sizes = [samples]
    while sizes[-1] > 2:
        sizes.append(-(-sizes[-1] // 2))
    stages, left = [], budget
    for place, size in enumerate(sizes):
        part = -(-left // (len(sizes) - place))
        each = min(-(-part // size), left // size)
        if not each:
            break
        stages.append((size, each))
        left -= size * each
    return stages


def survivors(running: Sequence[int], rewards: Rewards, count: int) -> list[int]:
    """The `count` of the `running` samples that earned most, rising; the first of equals. What failed drops out."""
    known = [sample for sample in running if rewards[sample] is not None]
    return sorted(sorted(known, key=lambda sample: -rewards[sample])[:count])


def race(
    stages: Sequence[tuple[int, int]],
    samples: Mapping[str, int],
    run: Callable[[Mapping[str, Sequence[int]], int], Mapping[str, Rewards]],
) -> None:
    """Run the stages of a `schedule`, all items together. samples: {item: how many self-edits it has}.

    run({item: samples to train}, retrains of each) -> {item: rewards by all retrains so far}.
    """
    running: Mapping[str, Sequence[int]] = {item: range(count) for item, count in samples.items()}
    rewards: Mapping[str, Rewards] = {item: [0.0] * count for item, count in samples.items()}
    for count, each in stages:
        running = {item: survivors(running[item], rewards[item], count) for item in running}
        rewards = run(running, each)
