"""Papers' tables, reproduced by one command: the runs they consist of and the page that shows them.

A table's cells, the papers' figures with their sources, protocols in words, and the code with which
`recon_ad.reproduce` runs, stores and shows them belong here. Training of a method, metrics and
defaults of configs do not: each cell is a run like any other, of a file in `configs/`.
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
