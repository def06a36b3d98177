"""File names on terminals and in logs."""

import logging

import pytest

from recon_ad.runtime.files import plain_cell
from recon_ad.runtime.terminal import EscapingFormatter, escaped


def test_a_name_neither_moves_the_cursor_nor_forges_a_line_of_the_log():
    record = logging.LogRecord(
        "recon_ad", logging.INFO, "", 0, "%s: %d images\n", ("a\x1b[2J\nerror: b\u202e", 3), None
    )
    shown = EscapingFormatter("%(message)s").format(record)
    assert shown == "a\\x1b[2J\\nerror: b\\u202e: 3 images\n"
    assert escaped("Größe 5\u00a0µm, 円") == "Größe 5\u00a0µm, 円"


FORMULAS = {
    "=1+1": "'=1+1", "+a": "'+a", "-a": "'-a", "@a": "'@a", "\ta": "'\ta", "\ra": "'\ra",
    "\uff1da": "'\uff1da", "\uff0ba": "'\uff0ba", "\uff0da": "'\uff0da", "\uff20a": "'\uff20a",
    # What is a cell of its own where semicolons, tabs, lines or bars separate cells.
    "x;=1+1.png": "x;'=1+1.png", "x;\"=1": "x;\"'=1", "x; -1": "x; '-1", "x\t@a": "x\t'@a",
    "x\n+a": "x\n'+a", "x|\uff1da;=b": "x|'\uff1da;'=b",
}  # fmt: skip


@pytest.mark.parametrize("text", FORMULAS)
def test_a_cell_is_no_formula(text):
    assert plain_cell(text) == FORMULAS[text]


@pytest.mark.parametrize("text", ["", "a=b", "a-b+c@d", "größe;5,-1", "a b"])
def test_other_cells_stay_as_they_are(text):
    assert plain_cell(text) == text
