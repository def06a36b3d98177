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


@pytest.mark.parametrize("text", ["=1+1", "+a", "-a", "@a", "\ta"])
def test_a_cell_is_no_formula(text):
    assert plain_cell(text) == f"'{text}" and plain_cell(f"a{text}") == f"a{text}"
