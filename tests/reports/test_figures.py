"""Figures say what they are made of."""

import re
from collections import Counter
from xml.etree import ElementTree

from kinema.layers.relative_position import Clusters
from kinema.reports.figures import cluster_figure


def test_the_cluster_figure_numbers_every_patch_but_the_one_it_is_seen_from():
    seen = Clusters().map_from(7, 7, rows=14, columns=14)
    svg = cluster_figure(seen.numpy(), reference=(7, 7)).decode()
    ElementTree.fromstring(svg)
    written = Counter(re.findall(r"<!-- (\d+) -->", svg))
    expected = Counter(str(cluster) for cluster in seen.flatten().tolist())
    expected["24"] -= 1
    for tick in range(0, 14, 2):
        expected[str(tick)] += 2  # the numbers of rows and columns
    assert written == +expected
