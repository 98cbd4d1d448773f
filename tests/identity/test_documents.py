"""Which documents load, and what is said about those that do not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import jsontext
from identity.jsontext import DocumentError
from identity.mapper import Mapper

from .samples import decide, expression, external, text


def refused(content: str) -> str:
    with pytest.raises(DocumentError) as caught:
        Mapper.parse(content, "mapping.json")
    return str(caught.value)


def test_list_and_bare_object() -> None:
    assert Mapper.parse(text(expression(), external("/bin/true"))).hints == ()
    assert decide(Mapper.parse(json.dumps(expression())), []).account is None


def test_extra_keys_are_ignored() -> None:
    Mapper.parse(json.dumps({**expression({"comment": "x", "note": 5}), "comment": []}))


def test_error_names_place_problem_and_remedy() -> None:
    content = json.dumps([expression({}, {}, {"match": "abc\\"})], indent=1)
    line = 1 + content[: content.index("abc")].count("\n")
    message = refused(content)
    assert message.startswith(f"mapping.json:{line}: [0].mappings[2].match: the pattern ends in a single backslash; ")


@pytest.mark.parametrize(
    "content", ["{}", '""', "0", "false", "null", "[]", "5", "[null]", '["x"]', "[[]]", "", "[", "[1,]"]
)
def test_row_22_shapes(content: str) -> None:
    refused(content)


@pytest.mark.parametrize("mappings", [{}, "", None, [], [None], ["x"], {"a": 1}, 5])
def test_row_22_mappings(mappings: object) -> None:
    assert ".mappings" in refused(text({**expression(), "mappings": mappings}))


@pytest.mark.parametrize("key", ["source", "match", "output"])
@pytest.mark.parametrize("value", [None, 5, True, ["a"], {}])
def test_row_23_strings(key: str, value: object) -> None:
    assert f".{key}" in refused(text(expression({key: value})))


@pytest.mark.parametrize("key", ["source", "match", "output"])
def test_missing_keys(key: str) -> None:
    mapping = {"source": "a", "match": "b", "output": "c"}
    del mapping[key]
    assert key in refused(json.dumps({"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": [mapping]}))


@pytest.mark.parametrize("key", ["literal", "ignore_case"])
@pytest.mark.parametrize("value", ["false", "true", 0, 1, None, [], ""])
def test_row_23_flags(key: str, value: object) -> None:
    assert "true or false" in refused(text(expression({key: value})))


@pytest.mark.parametrize("output", ["{-1}", "{ 1 }", "{+1}", "{01}", "{}", "{1}"])
def test_row_23_output_tokens(output: str) -> None:
    assert ".output" in refused(text(expression({"output": output})))


@pytest.mark.parametrize("match", ["(?i)a", r"(.)\1", r"\0"])
def test_row_24_patterns(match: str) -> None:
    assert ".match" in refused(text(expression({"match": match, "output": "x"})))


@pytest.mark.parametrize(
    "kind",
    [None, "", 5, "other#1.0.0", "expression_identity_mapping", "expression_identity_mapping#1.0.1",
     "expression_identity_mapping#1.0.0 ", "Expression_identity_mapping#1.0.0", "#1.0.0"],
)  # fmt: skip
def test_rows_22_36_types(kind: object) -> None:
    assert "DATA_TYPE" in refused(text(expression(), {**expression(), "DATA_TYPE": kind}))


@pytest.mark.parametrize(
    "command", [None, "", "/bin/false", [], [5], ["map"], ["./map"], [""], ["/bin/x", None], ["/a", "\0"]]
)
def test_row_30_commands(command: object) -> None:
    assert ".command" in refused(text({**external(), "command": command}))


@pytest.mark.parametrize("command", [["/bin/false"], ["/bin/false", "--some", "flag", "-a", "-b", "-c"]])
def test_the_example_of_the_public_package_is_passed_over(command: list[str]) -> None:
    mapper = Mapper.parse(text({**external(), "command": command}, expression()))
    assert mapper.programs == ()
    (hint,) = [hint for hint in mapper.hints if hint.passed_over]
    assert "/bin/false decides nothing" in str(hint)
    other = Mapper.parse(text({**external(), "command": ["/usr/bin/false"]}))
    assert [document.command for document in other.programs] == [("/usr/bin/false",)]


def test_row_33_json() -> None:
    assert "given twice" in refused('[{"DATA_TYPE": "a", "DATA_TYPE": "b"}]')
    assert "NaN" in refused('{"a": NaN}')
    assert "Infinity" in refused('{"a": -Infinity}')
    assert "too large" in refused('{"a": 1e999}')
    assert "longer" in refused(" " * (1 << 20) + "[]")
    assert "deep" in refused("[" * 100)
    Mapper.parse("\ufeff" + text(expression()))
    refused("\ufeff\ufeff" + text(expression()))


def test_row_38_surrogates() -> None:
    assert "surrogate" in refused(text(expression({"output": "\ud800"})))
    assert "surrogate" in refused('"\ud800"')


@pytest.mark.parametrize(
    ("mapping", "word"),
    [
        ({"match": "(.*)@example.org"}, "any character"),
        ({"match": r"^(.*)@example\.org"}, "plain text"),
        ({"match": r"(.*)@a\.org|(.*)@b\.org"}, "losing"),
        ({"source": "{email}"}, "owner"),
        ({"source": "{name}"}, "owner"),
        ({"output": "{organization}"}, "owner"),
    ],
)
def test_rows_03_21_25_27_hints(mapping: dict[str, object], word: str) -> None:
    (hint,) = Mapper.parse(text(expression(mapping)), "m.json").hints
    assert word in hint.text
    assert hint.where.startswith("m.json:1: [0].mappings[0]")
    assert hint.suggestion in str(hint)


def test_row_21_provider_pinned() -> None:
    mapping = {
        "source": "{identity_provider}:{email}",
        "match": r"41143743-f3c8-4d60-bbdb-eeecaba85bd9:(.*)@example\.org",
    }
    assert Mapper.parse(text(expression(mapping))).hints == ()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=15,
)


def plain(node: jsontext.Node) -> object:
    if isinstance(node.value, dict):
        return {key: plain(value) for key, value in node.value.items()}
    return [plain(value) for value in node.value] if isinstance(node.value, list) else node.value


@given(json_values, st.sampled_from([None, 0, 2]))
def test_reads_what_json_writes(value: object, indent: int | None) -> None:
    assert plain(jsontext.parse(json.dumps(value, indent=indent), "t")) == value


@given(st.text('[]{}":,0 trueN\n\\', max_size=20))
def test_never_more_lenient_than_json(content: str) -> None:
    try:
        node = jsontext.parse(content, "t")
    except DocumentError:
        return
    assert plain(node) == json.loads(content)


def test_an_empty_match_is_refused() -> None:
    assert "pattern is empty" in refused(text(expression({"source": "{id}", "match": "", "output": "x"})))


@pytest.mark.parametrize("token", ["{0x1}", "{\u00b9}"])
def test_row_23_tokens_that_only_look_like_numbers(token: str) -> None:
    assert "neither a group nor a field" in refused(
        text(expression({"source": "{id}", "match": "(.*)x", "output": token}))
    )


@pytest.mark.parametrize(
    ("match", "meant"),
    [
        ("^(.*)@example.org$", r"(.*)@example\\.org"),
        ("(.+)@x", "(..*)@x"),
        ("(.*)@(a.org|b.org)", r"(.*)@(a\\.org|b\\.org)"),
    ],
)
def test_hints_offer_a_corrected_pattern(match: str, meant: str) -> None:
    found = Mapper.parse(text(expression({"source": "{username}", "match": match, "output": "x"}))).hints
    assert any(f'"match": "{meant}"' in str(hint) for hint in found)


@pytest.mark.parametrize("match", ["(.*)", "(.*)@.*", "(a|.*)"])
def test_patterns_that_accept_everybody_get_a_hint(match: str) -> None:
    (hint,) = Mapper.parse(text(expression({"source": "{username}", "match": match, "output": "x"}))).hints
    assert "accepts every value" in str(hint)
