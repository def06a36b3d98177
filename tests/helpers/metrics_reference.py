"""The metrics once more, by their definitions and slowly: loops over thresholds and regions."""

from itertools import pairwise

import numpy as np


def regions(truth):
    """Pixel lists of the 8-connected regions of a mask, by flood fill."""
    left, found = set(zip(*np.nonzero(truth), strict=True)), []
    while left:
        region = [left.pop()]
        for y, x in region:  # which grows
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            region.extend(near)
        found.append(region)
    return found


def aupro(maps, truths, limit):
    scores = [[m[p] for p in region] for m, t in zip(maps, truths, strict=True)
              for region in regions(t)]  # fmt: skip
    normal = maps[~truths]
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        shares = [np.mean(np.array(region) >= threshold) for region in scores]
        points.append((float(np.mean(normal >= threshold)), float(np.mean(shares))))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            area += (limit - x0) * (y0 + y1) / 2
            break
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def _best(maps, truths, figure):
    best = (-1.0, 0.0, 0.0)
    for threshold in np.unique(maps)[::-1]:
        called = maps >= threshold
        both = np.sum(called & truths)
        value = figure(called, truths, both)
        if value > best[0]:
            best = (float(value), float(threshold), float(both / truths.sum()))
    return best


def iou_max(maps, truths):
    """(IoU, threshold, recall)."""
    return _best(maps, truths, lambda called, truth, both: both / np.sum(called | truth))


def f1_max(maps, truths):
    """F1 alone."""
    best = _best(maps, truths, lambda called, truth, both: 2 * both / np.sum([called, truth]))
    return best[0]
