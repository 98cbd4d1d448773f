"""`python -m benchmarks.mapping`: our identity mapping beside the official library, same documents, same identity sets.

First, identity sets decided per second, with 1, 100 and 10,000 rules, where the first, the last or no rule matches.
The library is called both ways: `map_identity`, which stops at the first match as ours does, and `map_identities`,
which Globus Compute calls and which always tries everything. Then, hostile values: milliseconds that one value of 1 KiB
takes with patterns that make backtracking explode. Medians of interleaved repetitions; ratios are ours to the library's speed, so
more than 1x is in our favour. Nothing is asserted of the figures: machines are noisy.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import signal
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from globus_identity_mapping.loader import load_mappers

from identity.mapper import Mapper

SIZES = (1, 100, 10_000)
LEAST_TIME = 0.03
"""Seconds that one measurement takes at least, by repeating."""
PATIENCE = 2.0
"""Seconds after which a hostile match by the library is given up."""
VALUE = 1024
SETS = 1000
"""Identity sets that take turns, so that whatever remembers some of them gains nothing."""
NO_RULE = "nobody@elsewhere.example"
ID = "aaaaaaaa-{:04d}-4000-8000-00000000000a"

Record = dict[str, Any]
Run = Callable[[int], object]
"""Does something that many times."""


def domain(number: int) -> tuple[dict[str, object], str]:
    """A rule for all of a domain, and a user name that it maps."""
    match = rf"(.*)@d{number}\.edu"
    return {"source": "{username}", "match": match, "output": "{0}"}, f"alice.smith@d{number}.edu"


def person(number: int) -> tuple[dict[str, object], str]:
    """A rule for one user name."""
    name = f"user{number}@example.org"
    return {"source": "{username}", "match": name, "literal": True, "output": f"u{number}"}, name


def groups(number: int) -> tuple[dict[str, object], str]:
    """A rule with several groups."""
    match = rf"(.*)\.(.*)-ext@(d{number}\.edu|d{number}\.org)"
    return {"source": "{username}", "match": match, "output": "x_{1}"}, f"alice.smith-ext@d{number}.org"


def folded(number: int) -> tuple[dict[str, object], str]:
    """A rule for a domain in any case."""
    match = rf"(.*)@d{number}\.edu"
    rule = {"source": "{username}", "match": match, "ignore_case": True, "output": "{0}"}
    return rule, f"alice.smith@D{number}.edu"


KINDS = {"domain": domain, "literal": person, "groups": groups, "ignore_case": folded}


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    rules: int
    kind: str
    match: str
    identities: int
    text: str
    usernames: list[str]

    def sets(self, count: int) -> list[list[Record]]:
        """Equal to the rules, different to whoever remembers."""
        return [[record(n, username, number) for n, username in enumerate(self.usernames)] for number in range(count)]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="benchmarks.mapping")
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    loop = asyncio.new_event_loop()
    try:
        print_sets(loop, options.repetitions)
        print_hostile(loop, options.repetitions)
    finally:
        loop.close()


def document(rules: list[dict[str, object]]) -> str:
    return json.dumps([{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": rules}])


def record(number: int, username: str, variant: int) -> Record:
    return {
        "id": ID.format(number),
        "username": username,
        "email": username,
        "name": f"Alice Smith {variant}",
        "organization": "Example University",
        "identity_provider": "41143743-f3c8-4d60-bbdb-eeecaba85bd9",
        "status": "used",
    }


def cases(size: int) -> list[Case]:
    kinds = {**KINDS, "mixed": None} if size > 1 else KINDS
    return [case for kind in kinds for case in cases_of(size, kind)]


def cases_of(size: int, kind: str) -> list[Case]:
    makers = list(KINDS.values()) if kind == "mixed" else [KINDS[kind]]
    made = [makers[number % len(makers)](number) for number in range(size)]
    text = document([rule for rule, _ in made])
    found = [
        Case(size, kind, "first", 1, text, [made[0][1]]),
        Case(size, kind, "last", 1, text, [made[-1][1]]),
        Case(size, kind, "none", 1, text, [NO_RULE]),
    ]
    if size == 1:
        del found[0]
    if kind == "mixed":
        found.append(Case(size, kind, "last", 4, text, [NO_RULE, NO_RULE, NO_RULE, made[-1][1]]))
    return found


def print_sets(loop: asyncio.AbstractEventLoop, repetitions: int) -> None:
    print("identity sets decided per second; the library by map_identity (stops at a match) and map_identities (all)\n")
    heads = ("ours", "library", "ratio", "its all", "ratio")
    print(f"{'rules':>6} {'kind':<12}{'match':<6}{'ids':>4}{''.join(f'{head:>12}' for head in heads)}")
    loads = []
    for size in SIZES:
        for case in cases(size):
            ours, one, every = measure_all(runs(loop, case), repetitions)
            figures = [f"{1 / ours:.0f}", f"{1 / one:.0f}", f"{one / ours:.2f}x", f"{1 / every:.0f}"]
            figures.append(f"{every / ours:.2f}x")
            columns = "".join(f"{figure:>12}" for figure in figures)
            print(f"{case.rules:>6} {case.kind:<12}{case.match:<6}{case.identities:>4}{columns}", flush=True)
        loads.append((size, measure_all(load_runs(case.text), repetitions)))
    print("\nseconds to load the document\n")
    for size, (ours, theirs) in loads:
        print(f"{size:>6} rules   ours {ours:>9.5f}   library {theirs:>9.5f}   ratio {theirs / ours:>5.2f}x")


def runs(loop: asyncio.AbstractEventLoop, case: Case) -> list[Run]:
    """Ours, and the library's two ways."""
    mapper = Mapper.parse(case.text)
    (library,) = load_mappers(json.loads(case.text))
    sets = case.sets(SETS)
    expected = {name for record in sets[0] if (name := library.map_identity(record)) is not None}
    decision = loop.run_until_complete(mapper.amap(sets[0]))
    assert {decision.account} - {None} == expected, (case.kind, case.match, decision, expected)
    turns = {"ours": itertools.cycle(sets), "one": itertools.cycle(sets), "every": itertools.cycle(sets)}

    async def decide(these: Iterable[list[Record]]) -> None:
        for records in these:
            await mapper.amap(records)

    def ours(times: int) -> None:
        loop.run_until_complete(decide(itertools.islice(turns["ours"], times)))

    def one(times: int) -> None:
        for records in itertools.islice(turns["one"], times):
            for record in records:
                library.map_identity(record)

    def every(times: int) -> None:
        for records in itertools.islice(turns["every"], times):
            library.map_identities(records)

    return [ours, one, every]


def load_runs(text: str) -> list[Run]:
    def ours(times: int) -> None:
        for _ in range(times):
            Mapper.parse(text)

    def theirs(times: int) -> None:
        for _ in range(times):
            load_mappers(json.loads(text))

    return [ours, theirs]


def measure_all(subjects: list[Run], repetitions: int) -> list[float]:
    """Seconds of one run of each: the median, taken in turn so that a slow moment hits all of them."""
    times = [max(1, int(LEAST_TIME / seconds(subject, 1))) for subject in subjects]
    taken = [[seconds(*subject) for subject in zip(subjects, times, strict=True)] for _ in range(repetitions)]
    return [statistics.median(column) for column in zip(*taken, strict=True)]


def seconds(subject: Run, times: int) -> float:
    begin = time.perf_counter()
    subject(times)
    return (time.perf_counter() - begin) / times


HOSTILE = [
    ("(.*)@x", "a", "@y"),
    (r"(.*)@example\.org", "a@example.or", "g"),
    ("(.*)(.*)(.*)@x", "a", "@y"),
    ("(.*)*@x", "a", "@y"),
    ("(" * 20 + ".*" + ")*" * 20 + "@x", "a", "@y"),
    ("(.*)-(.*)-(a|b)@x", "a", "-a@x"),
    ("(.*)-(.*)-(.*)-(.*)-(.*)_(a|b)@x", "a", "_a@x"),
    (r"(.*\.)*@x", "a.", "a@x"),
    ("(a*)*b", "a", "cb"),
    ("((a*)*)*b", "a", "cb"),
    ("(" * 20 + "a*" + ")*" * 20 + "@x", "a", "c@x"),
    ("(a|a)*b", "a", "cb"),
    ("(a|aa|aaa)*b", "a", "cb"),
    ("(" + "|".join(f"d{n}x*" for n in range(1000)) + ")*@x", "d9x", "y@x"),
    ("(" + "a?" * 1000 + ")*@x", "a", "c@x"),
    ("a?" * 4000 + "@x", "a", "c@x"),
]
"""Match texts, what a value consists of, and its end: as the pattern ends, so that it is not seen at a glance."""


def print_hostile(loop: asyncio.AbstractEventLoop, repetitions: int) -> None:
    print(f"\nmilliseconds for one value of {VALUE} characters; the library is given up after {PATIENCE:g} s\n")
    print(f"{'match':<44}{'value':<18}{'ours':>9}{'slowest':>9}{'library':>10}   outcome of ours")
    for match, part, end in HOSTILE:
        value = (part * VALUE)[: VALUE - len(end)] + end
        text = document([{"source": "{username}", "match": match, "output": "user"}])
        taken, outcome = hostile_seconds(loop, Mapper.parse(text), value, repetitions)
        theirs = limited_seconds(load_mappers(json.loads(text))[0], record(0, value, 0))
        shown = match if len(match) < 42 else f"{match[:28]}... ({len(match)})"
        figures = f"{1000 * statistics.median(taken):>9.2f}{1000 * max(taken):>9.2f}"
        theirs_shown = "given up" if theirs is None else f"{1000 * theirs:.2f}"
        print(f"{shown:<44}{f'{part}...{end}':<18}{figures}{theirs_shown:>10}   {outcome}", flush=True)


def hostile_seconds(
    loop: asyncio.AbstractEventLoop, mapper: Mapper, value: str, repetitions: int
) -> tuple[list[float], str]:
    """Seconds of each set, the first after loading included, and what comes of it."""
    taken = []
    for number in range(4 * repetitions):
        records = [record(0, value, number)]
        begin = time.perf_counter()
        decision = loop.run_until_complete(mapper.amap(records))
        taken.append(time.perf_counter() - begin)
    return taken, next((p.reason for p in decision.passed_over), "no match" if decision.account is None else "match")


class GivenUp(Exception):
    """The library took too long."""


def limited_seconds(mapper: Any, asked: Record) -> float | None:
    """Python's matcher looks for signals as it goes, so an alarm ends it."""

    def ring(number: int, frame: object) -> None:
        raise GivenUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        begin = time.perf_counter()
        mapper.map_identity(asked)
        return time.perf_counter() - begin
    except GivenUp:
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    main()
