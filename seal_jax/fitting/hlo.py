"""The collectives of a compiled program, from its text; those inside loops of known length count once an iteration."""

import math
import re
from collections import Counter
from dataclasses import dataclass

SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8,
         "s64": 8, "u64": 8}  # fmt: skip
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_CALL = re.compile(rf"\s*(?:ROOT )?%?[\w.-]+ = (\(.*?\)|\S+) ({'|'.join(KINDS)})(-start)?\(")
_SHAPE = re.compile(r"\b([a-z]\w*?)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:to_apply|calls|true_computation|false_computation)=%?([\w.-]+)")
_WHILE = re.compile(r" while\(.*condition=%?([\w.-]+), body=%?([\w.-]+)")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")


@dataclass(frozen=True)
class Collective:
    """Collectives of one kind in groups of `group` chips; bytes: of the result on one chip; count: executions."""

    kind: str
    bytes: int
    group: int
    count: int = 1

    @property
    def sent(self) -> float:
        """Bytes that one chip sends in all executions, when the group forms a ring."""
        others = (self.group - 1) / self.group
        factor = {"all-reduce": 2 * others, "reduce-scatter": self.group - 1, "collective-permute": 1.0}
        return self.count * self.bytes * factor.get(self.kind, others)

    @property
    def over_link(self) -> float:
        """Bytes over one link in one direction: a ring uses two links of each chip, a pair has only one."""
        return self.sent / (2 if self.group > 2 else 1)


def collectives(text: str) -> list[Collective]:
    """The collectives of a compiled program, one entry for each kind, size and group.

    A loop whose length is not a constant of its condition (decoding, until every row is done) counts as one iteration.
    What the compiler runs beside products stands in each of their fusions, and is one exchange with one channel.
    """
    bodies, entry = _computations(text)
    found: Counter = Counter()
    seen: set[str] = set()

    def visit(name: str, times: int) -> None:
        for line in bodies.get(name, ()):
            if "-done(" in line or "async-update(" in line:  # counted at its start
                continue
            exchange, channels = _CALL.match(line), _CHANNEL.findall(line)
            if exchange and seen.isdisjoint(channels):
                found[exchange[2], _bytes(exchange[1], bool(exchange[3])), _group(line)] += times
                seen.update(channels)
            loop = _WHILE.search(line)
            if loop:
                visit(loop[2], times * _turns(bodies.get(loop[1], ())))
            for called in _CALLED.findall(line):
                visit(called, times)
            for branches in re.findall(r"branch_computations=\{(.*?)\}", line):
                for branch in branches.split(","):
                    visit(branch.strip().lstrip("%"), times)

    visit(entry, 1)
    return [Collective(kind, size, group, count) for (kind, size, group), count in sorted(found.items())]


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """(lines of each computation, name of the entry)."""
    bodies: dict[str, list[str]] = {}
    entry = current = ""
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            current = head[2]
            bodies[current] = []
            entry = current if head[1] else entry
        elif current:
            bodies[current].append(line)
    return bodies, entry


def _turns(condition) -> int:
    """Iterations of a loop whose condition only compares a counter with a constant; 1 for any other."""
    plain = "\n".join(condition)
    constants = re.findall(r"[su]32\[\][^=]*constant\((\d+)\)", plain)
    alone = re.search(r"ROOT .* (?:compare|fusion)\(", plain) and " and(" not in plain
    return int(constants[0]) if len(constants) == 1 and alone else 1


def _bytes(shape: str, start: bool) -> int:
    """Bytes of a result; that of an asynchronous start includes its operand, so the greater of the two counts."""
    sizes = []
    for kind, dims in _SHAPE.findall(shape):
        if kind in SIZES:
            count = 1
            for dim in filter(None, dims.split(",")):
                count *= int(dim)
            sizes.append(count * SIZES[kind])
    if not sizes:
        return 0
    return max(sizes) if start else sum(sizes)


def _group(line: str) -> int:
    """Chips in a group."""
    iota = re.search(r"replica_groups=\[\d+,(\d+)\]", line)
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", line)
    axes = re.search(r"replica_groups=mesh\[(.*?)\] ?\{(.*?)\}", line)
    pairs = re.search(r"source_target_pairs=\{(.*?)\}\}", line)
    if axes:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", axes[1]))
        return math.prod(int(sizes[name]) for name in re.findall(r"'(\w+)'", axes[2]))
    if iota:
        return int(iota[1])
    if listed:
        return len(listed[1].split(","))
    return 2 if pairs else 1
