"""HTML report of a run and its figures, for the person who decides on the detector.

The drawing and wording of figures, curves and pictures that were computed elsewhere belong here.
Computing a metric or a score (`recon_ad.metrics`), running a detector, and JAX do not. A report
needs NumPy, SciPy, Pillow and matplotlib only, and never touches pyplot's global state.
"""

from recon_ad.report.content import Panel, Report, Scale, Score, SmallPanel
from recon_ad.report.html import render_report, write_report
from recon_ad.report.pictures import shrink_panel
from recon_ad.report.plots import (
    patch_histogram,
    pro_curve,
    roc_curve,
    score_histogram,
    training_curve,
)
from recon_ad.report.sheets import panel_sheet, reconstruction_sheet
from recon_ad.report.sliders import pixel_scale

__all__ = [
    "Panel",
    "Report",
    "Scale",
    "Score",
    "SmallPanel",
    "panel_sheet",
    "patch_histogram",
    "pixel_scale",
    "pro_curve",
    "reconstruction_sheet",
    "render_report",
    "roc_curve",
    "score_histogram",
    "shrink_panel",
    "training_curve",
    "write_report",
]
