"""Reference metrics, computed from their definitions by slow loops over thresholds and regions."""

from itertools import pairwise

import numpy as np


def regions(truth):
    """Return the pixels of each 8-connected region of a mask, found by flood fill."""
    left, found = set(zip(*np.nonzero(truth), strict=True)), []
    while left:
        region = [left.pop()]
        for y, x in region:  # the list grows in the loop
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
    """Return the highest IoU, its threshold and its recall."""
    return _best(maps, truths, lambda called, truth, both: both / np.sum(called | truth))


def f1_max(maps, truths):
    """Return the highest F1."""
    best = _best(maps, truths, lambda called, truth, both: 2 * both / np.sum([called, truth]))
    return best[0]


def aupimo(maps, truths, low, high, valid=None):
    """Return the mean over images of the area of recall over the log FPR of the good images."""
    valid = [np.ones(t.shape, bool) for t in truths] if valid is None else valid
    counted = list(zip(maps, truths, valid, strict=True))
    good = [m[v] for m, t, v in counted if v.any() and not t.any()]
    marked = [m[t & v] for m, t, v in counted if (t & v).any()]
    thresholds = np.unique(np.concatenate([*good, *marked]))[::-1]
    rates = [0.0, *(np.mean([np.mean(g >= t) for g in good]) for t in thresholds)]
    areas = []
    for scores in marked:
        recalls = [0.0, *(np.mean(scores >= t) for t in thresholds)]
        points = pairwise(zip(rates, recalls, strict=True))
        areas.append(sum(_under(*line, low, high) for line in points) / np.log(high / low))
    return float(np.mean(areas))


def _under(first, last, low, high):
    """Return the area under a line over the logarithm of x within the limits, by quadrature."""
    (x0, y0), (x1, y1) = first, last
    left, right = np.log(np.clip(x0, low, high)), np.log(np.clip(x1, low, high))
    if left == right:
        return 0.0
    nodes, weights = np.polynomial.legendre.leggauss(20)
    x = np.exp((left + right) / 2 + nodes * (right - left) / 2)
    return weights @ (y0 + (y1 - y0) * (x - x0) / (x1 - x0)) * (right - left) / 2
