"""Teach a model your documents, ask it, and take the result elsewhere.

    python -m seal_jax.adapt learn --out adapters/x notes.md paper.pdf --questions q.txt
    python -m seal_jax.adapt ask --adapter adapters/x "What is the question?"      (without a question: a chat)
    python -m seal_jax.adapt export --adapter adapters/x --merged DIR      (or --gguf FILE, for llama.cpp and Ollama)

Exit status: 0; 2 after one sentence about bad input; 130 after Ctrl-C.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from seal_jax.errors import UserError, told
from seal_jax.main import quiet

DEFAULT = "smollm2-135m-instruct"


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    quiet()
    begun = ""
    try:
        args = parser().parse_args(argv)
        begun = args.run.__name__
        args.run(args)
    except (UserError, OSError) as error:
        return told(error)
    except KeyboardInterrupt:
        again = "" if begun == "run_ask" else "; nothing was saved, start the same command again"
        print(f"\nseal_jax: stopped{again}.", file=sys.stderr)
        return 130
    return 0


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are UserErrors, as all others are."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help lists what there is")


def parser() -> argparse.ArgumentParser:
    """The three commands and their options."""
    top = Parser("python -m seal_jax.adapt", description=__doc__.splitlines()[0])
    commands = top.add_subparsers(required=True, metavar="learn | ask | export")

    learn = commands.add_parser("learn", help="train an adapter on documents (.txt .md .jsonl .html .pdf)")
    learn.add_argument("documents", nargs="+", metavar="FILE")
    learn.add_argument("--out", required=True, metavar="DIR", help="the adapter's folder, which must not exist yet")
    learn.add_argument("--model", default=DEFAULT, help="a folder, a .gguf file or a name on the hub (%(default)s)")
    learn.add_argument("--questions", metavar="FILE", help="one a line, its answer behind a tab if known")
    learn.add_argument("--edits", type=int, default=0, metavar="N",
                       help="self-edits of each passage that the model writes; 0: its sentences, alone and as answers "
                            "to questions (%(default)s)")
    # A document has more sentences than the passages of docs/results.md: at 2e-3 all answers become one sentence of it.
    # Each sentence is four lessons, so that three epochs show it twelve times.
    learn.add_argument("--epochs", type=int, default=3)
    learn.add_argument("--learning-rate", type=float, default=1e-3)
    learn.add_argument("--rank", type=int, default=16)
    learn.add_argument("--seed", type=int, default=0)
    learn.set_defaults(run=run_learn)  # fmt: skip

    ask = commands.add_parser("ask", help="answers of the model with and without the adapter; a chat without questions")
    ask.add_argument("questions", nargs="*", metavar="QUESTION")
    ask.add_argument("--adapter", required=True, metavar="DIR")
    ask.add_argument("--model", default="", help="in place of the one that the adapter names")
    ask.set_defaults(run=run_ask)

    export = commands.add_parser("export", help="the model with the adapter in its weights, for other programs")
    export.add_argument("--adapter", required=True, metavar="DIR")
    export.add_argument("--model", default="", help="in place of the one that the adapter names")
    export.add_argument("--merged", default="", metavar="DIR", help="a new folder, for transformers and vLLM")
    export.add_argument("--gguf", default="", metavar="FILE", help="a new file, for llama.cpp and Ollama")
    export.add_argument("--gguf-type", default="f16", help="its numbers: f32, f16 or q8_0 (%(default)s)")
    export.set_defaults(run=run_export)
    return top


def run_learn(args: argparse.Namespace) -> None:
    from seal_jax.adapt.learn import Request, learn

    inner = {"epochs": args.epochs, "learning_rate": args.learning_rate, "rank": args.rank, "alpha": 2.0 * args.rank}
    learn(Request(tuple(args.documents), args.out, args.model, args.questions, args.edits, inner, args.seed))


def run_ask(args: argparse.Namespace) -> None:
    from seal_jax.adapt import ask

    loaded = ask.load(args.adapter, args.model)
    if args.questions:
        ask.answer(loaded, args.questions)
    else:
        ask.chat(loaded, sys.stdin)


def run_export(args: argparse.Namespace) -> None:
    from seal_jax.adapt.export import export

    export(args.adapter, args.model, args.merged, args.gguf, args.gguf_type)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
