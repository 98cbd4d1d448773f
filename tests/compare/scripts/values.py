"""Arguments and values that travel to a task and back."""

import dataclasses
from typing import NamedTuple

from tests.compare.scripts.script import script


@script(returns=(3, -1))
def positional(site):
    return site.call(lambda a, b: (a + b, a - b), 1, 2)


@script(returns=[1, 20, "default"])
def keywords_and_defaults(site):
    def f(a, b=2, *, c="default"):
        return [a, b, c]

    return site.call(f, 1, b=20)


@script(returns=((1, 2, 3), {"x": 4, "y": None}))
def star_arguments(site):
    def f(*args, **kwargs):
        return args, kwargs

    return site.call(f, 1, 2, 3, x=4, y=None)


@script(returns=None)
def nothing(site):
    def f():
        pass

    return site.call(f)


UNICODE = "grüße, 世界 \N{ROCKET} \0 \ud800 e\u0301"


@script(returns=(UNICODE, 15 + 3))
def unicode_text(site):
    return site.call(lambda text: (text, len(text)), UNICODE)


@script(returns=(b"\x00\xff\n", bytearray(b"ab"), b"v"))
def binary(site):
    return site.call(lambda a, b, c: (a, b, bytes(c)), b"\x00\xff\n", bytearray(b"ab"), b"v")


NESTED = {"a": [1, 2.5, (None, True, {"deep": [[], {}, ()]})], 7: "seven", (1, 2): {3: {4: {5: [6]}}}}


@script(returns=NESTED)
def nested(site):
    return site.call(lambda x: x, NESTED)


@script(returns=True)
def shared_and_cyclic(site):
    def f(x):
        return x[0] is x[1] and x[2] is x

    ring = [{}, {}]
    ring[1] = ring[0]
    ring.append(ring)
    return site.call(f, ring)


@script(returns=({1, 2, 3}, frozenset({"a"}), {4, 5}))
def sets(site):
    return site.call(lambda a, b: (a | {3}, b, {4, 5}), {1, 2}, frozenset({"a"}))


@script(returns=("2026-02-28T12:30:00+00:00", "1 day, 0:00:03", "2026-03-01"))
def dates(site):
    from datetime import date, datetime, timedelta, timezone

    def f(moment, span, day):
        return moment, span, day + span

    given = datetime(2026, 2, 28, 12, 30, tzinfo=timezone.utc), timedelta(days=1, seconds=3), date(2026, 2, 28)
    moment, span, day = site.call(f, *given)
    return moment.isoformat(), str(span), day.isoformat()


@script(returns=("Decimal('0.30')", "Fraction(5, 6)", "(1-2j)", 2**200))
def numbers(site):
    from decimal import Decimal
    from fractions import Fraction

    def f(a, b, c, d):
        from decimal import Decimal
        from fractions import Fraction

        return a + Decimal("0.20"), b + Fraction(1, 2), c.conjugate(), d << 100

    *others, big = site.call(f, Decimal("0.10"), Fraction(1, 3), 1 + 2j, 2**100)
    return (*map(repr, others), big)


@script(returns=["inf", "-inf", "nan", "-0.0", "5e-324"])
def floats(site):
    return [repr(x) for x in site.call(lambda *x: x, float("inf"), float("-inf"), float("nan"), -0.0, 5e-324)]


@dataclasses.dataclass
class Point:
    x: int
    y: int = 2

    def moved(self, by):
        return dataclasses.replace(self, x=self.x + by)


@script(returns="Point(x=1, y=2) 1")
def dataclass_instance(site):
    back = site.call(lambda p: p, Point(1))
    return f"{back} {back.x}"


@script(returns=(11, "Counter"))
def class_instance(site):
    class Counter:
        def __init__(self, start):
            self.n = start

        def up(self):
            self.n += 1
            return self

    def f(counter):
        return counter.up()

    back = site.call(f, Counter(10))
    return back.n, type(back).__name__


class Pair(NamedTuple):
    a: int
    b: object


@script(returns=(3, "Pair(a=1, b='x')"))
def namedtuple(site):
    back = site.call(lambda pair: pair._replace(b="x"), Pair(1, None))
    return back.a + len(back), repr(back)


@script(returns=("/a/b", "12345678-1234-5678-1234-567812345678", ["12"], [1, 2], "range(0, 3)"))
def library_objects(site):
    import array
    import pathlib
    import re
    import uuid

    def f(path, id, pattern, numbers, span):
        return str(path / "b"), str(id), pattern.findall("a12"), list(numbers), repr(span)

    id = uuid.UUID("12345678123456781234567812345678")
    return site.call(f, pathlib.Path("/a"), id, re.compile(r"\d+"), array.array("i", [1, 2]), range(3))


@script(returns=5 << 20)
def big_argument(site):
    return site.call(len, "x" * (5 << 20))


@script(returns="ab" * (5 << 19))
def big_result(site):
    return site.call(lambda: "ab" * (5 << 19))


@script(fails="MaxResultSizeExceeded(15581488, 10485760)")
def too_big_result(site):
    return site.call(lambda: "x" * (11 << 20))
