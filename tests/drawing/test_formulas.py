"""Formulas in ASCII become MathML; words stay words, and nothing is lost on the way."""

from __future__ import annotations

import re
from collections import Counter
from html import unescape

import pytest

from datadose.drawing.formulas import typeset
from datadose.studies.index import LEDGER, NAMES, study


def _plain(text: str) -> str:
    return unescape(re.sub(r"<[^>]+>", "", typeset(text)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a V0", "a <math><msub><mi>V</mi><mrow><mn>0</mn></mrow></msub></math>"),
        ("so V~ is", 'so <math><mover accent="true"><mi>V</mi><mo>~</mo></mover></math> is'),
        ("A stage (Thm B.1) of 95 percent", "A stage (Thm B.1) of 95 percent"),
        ("I read `datadose plan` & more", "I read <code>datadose plan</code> &amp; more"),
        ("(B = m, or", "(<math><mi>B</mi><mo>=</mo><mi>m</mi></math>, or"),
        ("R2 <b>", "<math><msup><mi>R</mi><mrow><mn>2</mn></mrow></msup></math> &lt;b&gt;"),
        ("at B=64 0.98", "at <math><mi>B</mi><mo>=</mo><mn>64</mn></math> 0.98"),
    ],
)  # fmt: skip
def test_symbols_are_typeset_and_words_are_not(text: str, expected: str) -> None:
    assert str(typeset(text)) == expected


def test_no_letter_and_no_number_of_any_study_is_lost() -> None:
    texts = [text for name in NAMES for text in (study(name).title, study(name).story)]
    texts += [t for name in LEDGER for c in study(name).claims for t in (c.statement, c.setting, c.statistic)]
    assert sum("<math>" in typeset(text) for text in texts) > 100
    greek = ("Sigma", "Delta", "Gamma", "lambda", "gamma", "beta", "eta", "rho", "mu", "tau")
    names = {name: unescape(f"&{name};") for name in greek}
    names |= {"infinity": "\u221e", "sum_": "\u2211", "what_": "w", "Sbar": "S"}
    symbols = re.compile(rf"(?<![A-Za-z])(?:(?:{'|'.join(names)})(?![a-z])|(?:sum|what)_)")
    for text in texts:
        source = symbols.sub(lambda found: names[found[0]], text.replace("_inf", "\u221e"))
        kept = [Counter(re.sub(r"[^\w\u221e\u2211]|_", "", version)) for version in (source, _plain(text))]
        assert kept[0] == kept[1], text
