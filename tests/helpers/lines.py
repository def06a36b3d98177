"""Reading what a line has written."""

from recon_ad.inspection.store import Store


def rows_of(output):
    store = Store(output / "line.sqlite")
    rows = list(store.rows())
    store.close()
    return rows
