"""How much of what selection can gain is gained: equal retrains of every self-edit, against racing with as many loops.

    python benchmarks/racing.py                                   # simulated rewards with the paper's variances
    python benchmarks/racing.py --trials FILE --field accuracy    # and real trials, one JSON object a line

Simulated: a self-edit's true reward and its retrains are normal. The variances are those of the released file of 50
passages × 5 self-edits × 3 retrains (arXiv 2506.10943): .0367 between retrains of a self-edit, .0179 between the means
of 3 of them, and so .0179 - .0367 / 3 = .0057 between what self-edits are truly worth.

Real: each line has item, sample, retrain and a number (null: the trial failed). Retrains are drawn without replacement,
and the chosen self-edit counts by the mean of its retrains that were not drawn. Attainable is then the expected
greatest of as many normal numbers with the variance that these trials show between self-edits.

Both run the functions of seal_jax.rewards.racing and seal_jax.outer.select. The standard errors are over items.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from seal_jax.outer.rollouts import Rollout
from seal_jax.outer.select import best
from seal_jax.rewards.racing import race, schedule
from seal_jax.rewards.reward import rounded

WITHIN, OF_MEANS, RETRAINS = 0.0367, 0.0179, 3
Stages = list[tuple[int, int]]
Item = list[list[float | None]]  # [sample][retrain]


def select(trials: Item, stages: Stages) -> tuple[int | None, list[int]]:
    """(the self-edit that is chosen, None if all failed; how many retrains of each were drawn, the first ones)."""
    drawn = [0] * len(trials)
    rewards: list[float | None] = []

    def run(running, each):
        for sample in running["item"]:
            drawn[sample] += each
        pairs = [row[:count] for row, count in zip(trials, drawn, strict=True)]
        rewards[:] = [None if None in row else rounded(sum(row) / len(row)) for row in pairs]
        return {"item": rewards}

    race(stages, {"item": len(trials)}, run)
    found = [Rollout(None, None, k, None, value, retrains=drawn[k]) for k, value in enumerate(rewards)]
    return next(iter(best(found)), None), drawn


def simulated(items: int, samples: int, retrains: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """True rewards [items, samples] and trials [items, samples, retrains]."""
    true = rng.normal(0, (OF_MEANS - WITHIN / RETRAINS) ** 0.5, (items, samples))
    return true, true[..., None] + rng.normal(0, WITHIN**0.5, (items, samples, retrains))


def variances(items: list[Item]) -> tuple[float, float]:
    """Of retrains within self-edits, and of what self-edits of an item are worth, without the former's part in it."""
    complete = [[row for row in item if None not in row] for item in items]
    within = float(np.mean([np.var(row, ddof=1) for item in complete for row in item]))
    of_means = [np.var([np.mean(row) for row in item], ddof=1) for item in complete if len(item) > 1]
    return within, float(np.mean(of_means)) - within / min(len(row) for item in complete for row in item)


def greatest(count: int) -> float:
    """The expected greatest of `count` standard normal numbers."""
    return float(np.random.default_rng(0).standard_normal((200_000, count)).max(1).mean())


def methods(samples: int, retrains: list[int]) -> list[tuple[str, Stages]]:
    rows = []
    for number in retrains:
        rows.append((f"equal, {number} each", [(samples, number)]))
        stages = schedule(samples, samples * number)
        if len(stages) > 1:
            rows.append((f"racing, {' + '.join(f'{count} × {each}' for count, each in stages)}", stages))
    return rows


def table(gains: Callable[[Stages], np.ndarray], rows: list[tuple[str, Stages]], attainable: float) -> None:
    """gains(stages): of each item, over a random self-edit."""
    print(f"{'':34}{'loops':>6}{'gain':>9}{'share of attainable':>23}{'racing - equal':>19}")
    equal = np.zeros(0)  # of the row before
    for name, stages in rows:
        found = gains(stages)
        error = found.std(ddof=1) / len(found) ** 0.5
        text = f"{name:34}{sum(a * b for a, b in stages):6}{found.mean():9.4f}"
        text += f"{found.mean() / attainable:16.1%} ± {error / attainable:.1%}"
        if name.startswith("racing"):
            paired = found - equal
            text += f"{paired.mean() / attainable:12.1%} ± {paired.std(ddof=1) / len(paired) ** 0.5 / attainable:.1%}"
        equal = found
        print(text)


def on_simulation(items: int, samples: int, retrains: list[int]) -> None:
    rows = methods(samples, retrains)
    most = max(sum(each for _, each in stages) for _, stages in rows)
    true, drawn = simulated(items, samples, most, np.random.default_rng(0))
    trials = drawn.tolist()

    def gains(stages: Stages) -> np.ndarray:
        return np.array([true[i, select(trials[i], stages)[0]] - true[i].mean() for i in range(items)])

    print(f"simulated: {items} items × {samples} self-edits")
    table(gains, rows, float((true.max(1) - true.mean(1)).mean()))


def on_trials(file: Path, field: str, retrains: list[int], repeats: int) -> None:
    found: dict[str, dict[int, list]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        trial = json.loads(line)
        found.setdefault(trial["item"], {}).setdefault(trial["sample"], []).append(trial[field])
    items = [list(samples.values()) for samples in found.values()]
    samples, there = min(map(len, items)), min(len(row) for item in items for row in item)
    rows = [row for row in methods(samples, retrains) if sum(each for _, each in row[1]) < there]
    within, between = variances(items)

    def once(item: Item, stages: Stages, rng: np.random.Generator) -> float:
        kept = [item[k] for k in sorted(rng.permutation(len(item))[:samples])]
        mixed = [[row[i] for i in rng.permutation(len(row))] for row in kept]
        chosen, drawn = select(mixed, stages)
        left = [np.mean([v for v in row[n:] if v is not None] or [np.nan]) for row, n in zip(mixed, drawn, strict=True)]
        return np.nan if chosen is None else float(left[chosen] - np.nanmean(left))

    def mean(place: int, stages: Stages) -> float:
        rng = np.random.default_rng(place)  # the same draws for every row of the table
        return float(np.nanmean([once(items[place], stages, rng) for _ in range(repeats)]))

    def gains(stages: Stages) -> np.ndarray:
        return np.array([mean(place, stages) for place in range(len(items))])

    print(f"\n{file}: {len(items)} items × {samples} self-edits × {there} retrains, {field}: variance {within:.4f} "
          f"within a self-edit, {between:.4f} between them; {repeats} draws where enough retrains are left to count")
    table(gains, rows, greatest(samples) * max(between, 1e-12) ** 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20_000, help="of the simulation")
    parser.add_argument("--samples", type=int, default=5, help="self-edits of each item of the simulation")
    parser.add_argument("--retrains", type=int, nargs="+", default=[1, 2, 3], help="of each self-edit, on average")
    parser.add_argument("--trials", type=Path, help="records of real trials")
    parser.add_argument("--field", default="reward", help="of a trial: its number")
    parser.add_argument("--repeats", type=int, default=300, help="draws of retrains for each item")
    args = parser.parse_args()
    on_simulation(args.items, args.samples, args.retrains)
    if args.trials:
        on_trials(args.trials, args.field, args.retrains, args.repeats)


if __name__ == "__main__":
    main()
