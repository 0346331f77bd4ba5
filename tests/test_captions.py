"""Captions: what counts as the same text, which words it has, and which captions are near-duplicates."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedupkit.captions import Folding, Vocabulary, caption_pairs, tokenize, words


def pairs(texts, threshold=0.5, **options):
    found = caption_pairs(texts, threshold, **options)
    return dict(zip(zip(found.a.tolist(), found.b.tolist(), strict=True), found.score.tolist(), strict=True))


@pytest.mark.parametrize(
    ("one", "other", "step"),
    [
        ("Fish &amp; chips", "Fish & chips", "entities"),
        ("Caf&#233;", "Café", "entities"),
        ("ＣＡＦＥ ﬁne", "CAFE fine", "nfkc"),
        ("Cafe\u0301", "Café", "nfkc"),
        ("STRASSE", "Straße", "casefold"),
        ("ΑΣ", "ας", "casefold"),
        (" a \t b\n", "a b", "spaces"),
        ("a\u00a0b", "a b", "spaces"),
    ],
)
def test_each_step_of_folding_removes_its_difference(one, other, step):
    assert Folding()(one) == Folding()(other)
    without = Folding(**{step: False})
    if not (step == "spaces" and "\u00a0" in one):  # NFKC makes a space of it
        assert without(one) != without(other)
    assert step not in str(without)
    assert Folding.parse(str(without)) == without


def test_an_unknown_step_is_named():
    with pytest.raises(ValueError, match="unknown step 'stem'; known: entities, nfkc, casefold, spaces"):
        Folding.parse("nfkc,stem")


@given(st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_folding_twice_is_folding_once_where_no_entity_is_left(text):
    folding = Folding(entities=False)
    assert folding(folding(text)) == folding(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("red, green-blue!", ["red", "green", "blue"]),
        ("東京タワー at night", ["東京", "京タ", "タワ", "ワー", "at", "night"]),
        ("猫", ["猫"]),
        ("สวัสดี", ["สว", "วั", "ัส", "สด", "ดี"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("می‌خواهم", ["میخواهم"]),
        ("قطة سوداء", ["قطة", "سوداء"]),
        ("한국어 텍스트", ["한국어", "텍스트"]),
        ("party 🎉🎉", ["party", "🎉", "🎉"]),
        ("«quoted» — dash", ["quoted", "dash"]),
    ],
)
def test_words_in_many_scripts(text, expected):
    assert words(Folding()(text)).split() == [unicodedata.normalize("NFKC", word) for word in expected]


@given(st.lists(st.text(max_size=12), max_size=12))
@settings(max_examples=200, deadline=None)
def test_the_vocabulary_gives_back_the_words_of_every_text(texts):
    offsets, tokens, vocabulary = tokenize(texts)
    known = vocabulary.words()
    folding = Folding()
    for number, text in enumerate(texts):
        folded = folding(text)
        mine = [known[token] for token in tokens[offsets[number] : offsets[number + 1]]]
        assert mine == words(folded).split() or len(mine) == bool(folded) == (not words(folded))
    assert len(set(known)) == len(known)


def test_the_vocabulary_grows_over_blocks():
    vocabulary = Vocabulary()
    seen = [vocabulary.encode([f"word{n} word{n + 1}"])[1].tolist() for n in range(3000)]
    assert seen[2999] == [2999, 3000]
    assert vocabulary.words()[2999] == "word2999"


def test_near_captions_are_paired_by_their_first_rows():
    texts = [
        "A black cat on a sofa",
        "a black cat, on a SOFA",
        "a black cat on the sofa",
        "Eiffel tower",
        None,
        "",
        "A black cat on a sofa",
    ]
    assert pairs(texts, 0.6) == pytest.approx({(0, 1): 1.0, (0, 2): 5 / 6, (0, 6): 1.0})


def test_a_caption_without_words_equals_only_itself():
    assert pairs(["!!!", "???", "!!!", "…", "a"]) == {(0, 2): 1.0}


@given(st.lists(st.text("!?\u2026\x80\x1b\u200d", max_size=4), min_size=2, max_size=2))
@settings(max_examples=200, deadline=None)
def test_texts_without_words_are_equal_only_if_they_are_the_same(texts):
    one, other = map(Folding(), texts)
    assert pairs(texts) == ({(0, 1): 1.0} if one == other != "" else {})


def test_a_template_is_one_text_with_many_rows():
    found = caption_pairs(["Image may contain: people"] * 50_000 + ["image may contain two people"], 0.8)
    assert len(found) == 50_000
    assert set(found.a.tolist()) == {0}


def test_odd_texts_do_no_harm():
    texts = [
        "nul \0 byte",
        "lone \ud800 surrogate",
        "nul \0 byte",
        "x" * 100_000,
        "y " * 50_000,
        "lone \ud800 surrogate",
        "\u200d",
        "&#xD800;",
    ]
    found = pairs(texts, 0.9)
    assert found == {(0, 2): 1.0, (1, 5): 1.0}


def test_long_captions_are_found_by_signatures_and_it_is_said():
    paragraph = " ".join(f"w{n}" for n in range(400))
    found = caption_pairs([paragraph, paragraph + " end", "short"], 0.8)
    assert list(zip(found.a, found.b, strict=True)) == [(0, 1)]
    assert found.method.startswith("exact up to 128 tokens, MinHash-LSH above")
    assert caption_pairs(["short one"], 0.8).method == "exact"
    assert found.folding == "entities,nfkc,casefold,spaces"


def test_the_length_of_n_grams_is_the_callers():
    one, other = "東京タワー", "東京スカイツリー"
    assert pairs([one, other], 0.1, ngram=1) != pairs([one, other], 0.1, ngram=3)
