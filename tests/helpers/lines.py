"""Rows that a line has written."""

from recon_ad.line.store import Store


def rows_of(output):
    store = Store(output / "line.sqlite")
    rows = list(store.rows())
    store.close()
    return rows
