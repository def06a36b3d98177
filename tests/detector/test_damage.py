"""Texts about damaged files, shortened for messages."""

import pytest

from recon_ad.detector.damage import MOST, brief

SHORTENED = {
    "field 'A' is wrong": "field 'A' is wrong",
    f"field '{'A' * 99}' is wrong": f"field '{'A' * 39}…' is wrong",
    f'"{"A" * 99}".': f'"{"A" * 39}…".',
    f"{'9' * 5000}, {'8' * 90}": f"{'9' * 40}…, {'8' * 40}…",
    f"{'a' * 90}/{'b' * 90}": f"{'a' * 40}…/{'b' * 40}…",
}


@pytest.mark.parametrize("text", SHORTENED)
def test_long_words_are_shortened_and_what_closes_them_stays(text):
    assert brief(text) == SHORTENED[text]


@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_quote_that_is_cut_is_closed(quote):
    made = brief(f"the field {quote}{'b c ' * 200}{quote} is wrong")
    assert len(made) <= MOST and made.endswith(f"…{quote}")
    assert not brief("it's " + "b c " * 200).endswith("'")
