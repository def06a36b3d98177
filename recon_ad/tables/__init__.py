"""The papers' tables by one command: which runs they are made of, and the page that shows them.

Belongs here: a table's cells, the papers' figures with where they stand, protocols in words, and
how `recon_ad.reproduce` runs, keeps and shows them. Does not belong here: how a method learns, what
a metric is, or a default of a config; each cell is a run like any other, of a file in `configs/`.
"""

from collections.abc import Mapping

from recon_ad.tables import bergmann2019, covision, detectors, mvtec_ad, preste, schneider2022
from recon_ad.tables.base import Table

TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        schneider2022.TABLE,
        bergmann2019.TABLE,
        preste.TABLE,
        mvtec_ad.TABLE,
        covision.TABLE,
        detectors.TABLE,
    )
}
