"""Rules and keep policies: what they accept, what they mean, and where an error points."""

import numpy as np
import pytest

from dedupkit.clustering import parse_policy, parse_rule
from dedupkit.errors import RuleError
from dedupkit.signals import known_signals

SIGNALS = {"exact": "identity", "verified": "identity", "pdq": "distance", "phash": "distance", "clip": "similarity"}


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("exact", "exact"),
        ("copies", "exact or pdq<=31"),
        ("pdq<=31 or exact", "pdq<=31 or exact"),
        ("(clip>=0.9 and verified) or pdq<=31", "(clip>=0.9 and verified) or pdq<=31"),
        ("exact and pdq<=3 or phash<=6", "(exact and pdq<=3) or phash<=6"),
        ("(exact or pdq<=3) and clip>=.5", "(exact and clip>=0.5) or (pdq<=3 and clip>=0.5)"),
        ("((exact))", "exact"),
    ],
)
def test_a_rule_is_alternatives_of_conditions(text, meaning):
    assert str(parse_rule(text, SIGNALS)) == meaning


@pytest.mark.parametrize(
    ("text", "column", "word"),
    [
        ("pdq<=31 or exat", 11, "did you mean 'exact'"),
        ("pdq>=31", 3, "distance"),
        ("clip<=0.9", 4, "similarity"),
        ("exact<=1", 5, "takes no comparison"),
        ("pdq<=", 5, "number"),
        ("pdq<=31 or", 10, "expected a signal"),
        ("(exact", 6, "expected ')'"),
        ("exact exact", 6, "'and', 'or'"),
        ("exact & pdq<=3", 6, "unexpected character"),
        ("", 0, "expected a signal"),
        ("frobnicate", 0, "known: exact, verified, pdq, phash, clip; presets: copies, crops, "),
        ("copys", 0, "or 'copies'? --embed adds an embedder"),
        ("pdq<=3 or copies", 10, "'copies' is the name of a whole rule"),
        ("exact or lite>=0.9", 9, "unknown signal 'lite'; add --embed lite"),
        ("exact or not pdq<=31", 9, "a rule has no 'not'"),
    ],
)
def test_a_bad_rule_gets_an_error_that_points_at_the_character(text, column, word):
    with pytest.raises(RuleError) as caught:
        parse_rule(text, SIGNALS)
    message, shown, caret = str(caught.value).split("\n")
    assert word in message
    assert shown == "  " + text
    assert caret == "  " + " " * column + "^"


def test_a_published_threshold_is_for_the_model_that_one_names():
    known = known_signals(["sscd", "copy"])
    assert str(parse_rule("sd3", known, embedder="sscd")) == "exact or sscd>=0.5"
    for unnamed in (None, "copy"):
        with pytest.raises(RuleError, match="'sd3' has a threshold that was published for SSCD"):
            parse_rule("sd3", known, embedder=unnamed)
    assert "copy>=0.35" in str(parse_rule("thorough", known, embedder="copy"))


def test_the_floor_of_a_signal_is_its_loosest_bound():
    rule = parse_rule("(pdq<=40 and clip>=0.9) or pdq<=20 or clip>=0.95", SIGNALS)
    assert rule.loosest("pdq").bound == 40
    assert rule.loosest("clip").bound == 0.9


def test_a_rule_with_too_many_alternatives_is_refused():
    text = " and ".join(f"(pdq<={bound} or phash<={bound} or clip>=0.{bound})" for bound in range(1, 6))
    with pytest.raises(RuleError, match="alternatives"):
        parse_rule(text, SIGNALS)


def test_a_policy_orders_by_its_columns_and_ends_in_the_sample():
    policy = parse_policy("-pixels, nbytes")
    assert str(policy) == "-pixels, nbytes, sample"
    pixels = np.array([10.0, 20.0, 20.0, 20.0, np.nan])
    nbytes = np.array([1.0, 9.0, 5.0, 5.0, 1.0])
    assert policy.order({"pixels": pixels, "nbytes": nbytes}, 5).tolist() == [2, 3, 1, 0, 4]


def test_a_policy_with_an_unknown_column_points_at_it():
    with pytest.raises(RuleError, match="unknown column 'beauty'") as caught:
        parse_policy("-pixels, -beauty")
    assert str(caught.value).endswith("\n  -pixels, -beauty\n           ^")
