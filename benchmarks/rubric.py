"""Rates the self-edits of a run by the rubric, and how far the ratings agree with what inner loops gave them.

    python benchmarks/rubric.py runs/mine                                  # by the run's own policy, untrained
    python benchmarks/rubric.py runs/mine --judge remote --model gpt-4.1 --url https://api.openai.com/v1

For a finished run whose reward is by answers. The ratings are recorded in its ratings.jsonl, so that nothing is rated
twice, and its report then says the same: Spearman's correlation within an item, with its 95% interval over items.
"""

import argparse
import copy
import json

from etils import epath

from seal_jax import config as config_lib
from seal_jax.experiments import arc, knowledge, rewarding
from seal_jax.outer.rollouts import edit_of
from seal_jax.report import agreement
from seal_jax.report.recorded import load
from seal_jax.rewards.rubric import Rubric
from seal_jax.runs.keys import SEAL, TRAIN, Stage
from seal_jax.runs.recorder import Recorder
from seal_jax.student.actor import load_actor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="the folder of a run")
    parser.add_argument("--judge", choices=("local", "remote"), default="local")
    parser.add_argument("--model", default="", help="of the judge; local: empty is the run's policy")
    parser.add_argument("--url", default="https://api.openai.com/v1")
    parser.add_argument("--key", default="OPENAI_API_KEY", help="name of the environment variable")
    args = parser.parse_args()
    path = epath.Path(args.run)
    rate_all(path, {"kind": args.judge, "model": args.model, "url": args.url, "key": args.key})
    found = agreement.of_run(load(path))
    if found is None:
        raise SystemExit("there is no item with several self-edits whose ratings and rewards differ")
    interval = f"{found.low:.3f} to {found.high:.3f}" if found.has_interval else "no interval from one"
    print(f"rank correlation within an item: {found.mean:.3f} ({interval}), mean over {found.count} items")


def rate_all(path: epath.Path, judge: dict) -> None:
    """See that all self-edits that the run's policy wrote for its training items have a rating in the records."""
    values = json.loads((path / "config.json").read_text())
    config = config_lib.from_dict(values)
    rated = copy.deepcopy(values)
    usual = config_lib.defaults(config.domain)["reward"]
    rated["reward"] = usual | {"kind": "rubric", "judge": judge}
    rated["outer"] |= {"selection": "best"}
    rated = config_lib.from_dict(rated)
    world = arc.world(config) if config.domain == "arc" else knowledge.world(config)
    rate, name = rewarding.raters(rated, load_actor(config.model.policy, config), world.domain(None))
    recorder = Recorder(path, dict)
    reward = Rubric(rate, name, recorder)
    for number in range(1, config.outer.rounds + 1):
        edits: dict[str, dict] = {}
        for record in recorder.edits.all():
            if (record["split"], record["arm"], record["round"]) == (TRAIN, SEAL, number):
                edits.setdefault(record["item"], {})[record["sample"]] = edit_of(record)
        items = [item for item in world.train if item.id in edits]
        written = {item: [found[k] for k in sorted(found)] for item, found in edits.items()}
        if items:
            reward.score(None, items, written, Stage(TRAIN, SEAL, number))
    recorder.close()


if __name__ == "__main__":
    main()
