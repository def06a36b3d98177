"""Sheets of pictures for viewing outside the report's page."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from recon_ad.report.content import Panel
from recon_ad.report.drawing import FONT, SIZE, png, short_label, style_text
from recon_ad.report.pictures import HEAT, PAPER, heat_scale, panel_pictures, rgb, shrink_panel


def reconstruction_sheet(
    inputs: Float[np.ndarray, "n h w c"],
    reconstructions: Float[np.ndarray, "n h w c"],
    *,
    pairs_per_row: int = 4,
    gap: int = 2,
) -> UInt8[np.ndarray, "p q 3"]:
    """Draw patches beside their reconstructions, pair by pair, to watch the training.

    Args:
      inputs: Patches in [0, 1], clipped for display. Non-finite pixels turn magenta.
      reconstructions: The network's reconstructions of the patches.
      pairs_per_row: Number of pairs in a row.
      gap: Number of white pixels between input and reconstruction. Pairs are three gaps apart.

    Returns:
      One picture, row by row in the order of the patches.

    Raises:
      ValueError: If no patch is given, or a setting is out of range.
    """
    count, height, width, _ = inputs.shape
    if count == 0 or pairs_per_row < 1 or gap < 0:
        raise ValueError(
            "a reconstruction sheet needs one patch, one pair per row and a gap of 0, or more of "
            f"each, not {count}, {pairs_per_row} and {gap}"
        )
    columns = min(pairs_per_row, count)
    rows = -(-count // columns)
    step_y, step_x = height + 3 * gap, 2 * width + 4 * gap
    sheet = np.full((rows * step_y - 3 * gap, columns * step_x - 3 * gap, 3), PAPER, np.uint8)
    for index, (patch, made) in enumerate(zip(inputs, reconstructions, strict=True)):
        y, x = index // columns * step_y, index % columns * step_x
        sheet[y : y + height, x : x + width] = rgb(patch)
        x += width + gap
        sheet[y : y + height, x : x + width] = rgb(made)
    return sheet


def panel_sheet(panels: Sequence[Panel], *, long_side: int = 512) -> bytes:
    """Draw rows of input, reconstruction, heat map and outlines with a common colour scale.

    The column of reconstructions is left out if no panel has one.

    Args:
      panels: Panels, one for each row.
      long_side: Largest number of pixels on the longer side of a picture. Images are shrunk by the
        mean, residuals and masks by the maximum.

    Returns:
      PNG bytes on a white background.

    Raises:
      ValueError: If no panel is given, or a panel's arrays do not fit each other.
    """
    if not panels:
        raise ValueError("a panel sheet needs at least one panel")
    small = [shrink_panel(panel, long_side=long_side) for panel in panels]
    scale = heat_scale(small)
    drawn = [panel_pictures(panel, scale=scale) for panel in small]
    heads = {
        "image": "input",
        "reconstruction": "reconstruction",
        "residual": "heat map",
        "outlines": "truth dashed, mask solid",
    }
    if not any(pictures.reconstruction is not None for pictures in drawn):
        del heads["reconstruction"]
    heights = [2.3 * p.image.shape[0] / p.image.shape[1] + 0.6 for p in drawn]
    size = (2.4 * len(heads) + 0.6, sum(heights) + 0.3)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    # The first row's name needs space above the area that the layout reserves.
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.3 / size[1]))
    shape = (len(panels), len(heads))
    grid = figure.subplots(*shape, squeeze=False, gridspec_kw={"height_ratios": heights})
    for row, panel, pictures in zip(grid, panels, drawn, strict=True):
        for axes, (field, head) in zip(row, heads.items(), strict=True):
            pixels = getattr(pictures, field)
            axes.set_axis_off()
            blank = pixels is None  # still drawn, so that the row keeps its height
            small = max(pictures.image.shape) < 128  # smoothing would hide the network's output
            axes.imshow(
                np.full_like(pictures.image, PAPER) if blank else pixels,
                interpolation="nearest" if small else "auto",
            )
            style_text(axes.set_title("no reconstruction" if blank else head), size=SIZE - 1)
        name = (
            f"{short_label(panel.name, limit=60)} · {short_label(panel.defect)} · {panel.score:.3g}"
        )
        place = {"xycoords": "axes fraction", "textcoords": "offset points"}
        title = row[0].annotate(name, (0, 1), xytext=(0, 20), **place)
        # A long name may extend over the neighbours; the layout must not make room for it.
        title.set_in_layout(False)
        style_text(title)
    colours = ScalarMappable(Normalize(*scale), HEAT)
    bar = figure.colorbar(colours, ax=grid, extend="both", shrink=min(1.0, 3 / size[1]), aspect=30)
    bar.ax.tick_params(labelsize=SIZE - 1, labelfontfamily=FONT)
    style_text(bar.ax.yaxis.label)
    return png(figure)
