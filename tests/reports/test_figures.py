"""Tests of the cluster figure."""

import re
from collections import Counter
from xml.etree import ElementTree

import numpy as np

from kinema.layers.relative_position import Clusters
from kinema.reports.figures import balance_figure, cluster_figure, confusion_figure, projection_figure


def test_the_cluster_figure_numbers_every_patch_but_the_reference():
    clusters = Clusters().map_from(7, 7, rows=14, columns=14)
    svg = cluster_figure(clusters.numpy(), reference=(7, 7)).decode()
    ElementTree.fromstring(svg)
    written = Counter(re.findall(r"<!-- (\d+) -->", svg))
    expected = Counter(str(cluster) for cluster in clusters.flatten().tolist())
    expected["24"] -= 1
    for tick in range(0, 14, 2):
        expected[str(tick)] += 2  # tick labels of rows and columns
    assert written == +expected


def test_class_names_are_drawn_as_they_are():
    """matplotlib reads `$x_$` as mathematics, and fails; it hides `_x` in legends, and writes control characters."""
    names = ["$x_$", "_a_b^c", r"\frac$_$", "cost $5 --> %", "\x1b[1m\n\udce9", r"\$$"]
    figures = [
        confusion_figure(np.eye(6, dtype=np.int64), names),
        balance_figure({"$tr_$": [1] * 6, "_v": [1] * 6}, names),
        balance_figure({"$tr_$": [1] * 90, "_v": [1] * 90}, ["a"] * 90),
        projection_figure(np.zeros((6, 2)), np.arange(6), names),
    ]
    for figure in figures:
        ElementTree.fromstring(figure)
    for figure in figures[1:3]:
        assert "<!-- _v -->" in figure.decode()
    assert "<!-- _a_b^c -->" in figures[3].decode()
