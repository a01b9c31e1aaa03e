"""The drawing of a ranking's report: fronts, ticks and names, by hand."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from transfer.ranking.report.labels import Name, overlap, place_names
from transfer.ranking.report.rows_chart import Row, rows_chart
from transfer.ranking.report.scatter import Axes, Point, pareto_front, scatter
from transfer.ranking.report.svg import SHAPES, fitted, mark, nice_ticks, scale, text_width, tick_text
from transfer.ranking.report.wording import amount, interval, number, p_value, rank, signed

NOWHERE = (float("nan"), float("nan"))


def points(*places: tuple[float, float]) -> list[Point]:
    return [Point(str(number_of), "pretrained", *place) for number_of, place in enumerate(places)]


def test_pareto_front_by_hand() -> None:
    #   4 . . a . .      a and b are on the front of "fewer is better", c and d are not: a is as cheap as c and better,
    #   3 . b . . d      b is cheaper than d and as good; e is the cheapest
    #   2 e . c . .
    #     1 2 3 4 5
    a, b, c, d, e = found = points((3, 4), (2, 3), (3, 2), (5, 3), (1, 2))
    assert pareto_front(found, larger_is_better=False) == [e, b, a]
    assert pareto_front(found, larger_is_better=True) == [a, d]
    assert c not in pareto_front(found, larger_is_better=True)


def test_equal_points_are_both_on_the_front() -> None:
    found = points((1, 1), (1, 1), (2, 1))
    assert pareto_front(found, larger_is_better=False) == found[:2]
    assert pareto_front(found, larger_is_better=True) == found[2:]


@pytest.mark.parametrize(("larger", "corner"), [(False, "H"), (True, "V")])
def test_the_front_is_drawn_in_steps_below_which_everything_is_beaten(larger: bool, corner: str) -> None:
    found = points((1, 1), (2, 2)) if not larger else points((1, 2), (2, 1))
    chart = scatter("t", "d", found, Axes("x", "y", larger), {"front": "front"}, front=found)
    (path,) = re.findall(r'<path d="([^"]*)" class="front"', chart.shapes)
    (x1, y1), (x2, y2), (x3, y3) = (tuple(map(float, step.split())) for step in path[1:].split("L"))
    assert (x2 == x3 and y2 == y1) if corner == "H" else (x2 == x1 and y2 == y3)
    assert x3 > x1


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0.13, 0.88, [0.2, 0.4, 0.6, 0.8]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (76.1, 79.3, [77, 78, 79]),
        (1200, 98000, [20000, 40000, 60000, 80000]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: list[float]) -> None:
    assert nice_ticks(low, high, 5) == pytest.approx(expected)


def test_a_logarithmic_scale_is_even_in_ratios() -> None:
    axis = scale([1.0, 1000.0], 0.0, 300.0, is_log=True, margin=0.0)
    assert [axis(value) for value in (1, 10, 100, 1000)] == pytest.approx([0, 100, 200, 300])
    assert axis.ticks(9) == pytest.approx([1, 2, 5, 10, 20, 50, 100, 200, 500, 1000])
    assert axis.ticks(4) == pytest.approx([1, 10, 100, 1000])
    assert tick_text(1000.0) == "1,000"


def test_a_scale_of_equal_values_has_a_length() -> None:
    assert scale([5.0, 5.0], 0.0, 100.0)(5.0) == pytest.approx(50)
    assert scale([0.0], 0.0, 100.0)(0.0) == pytest.approx(50)
    assert scale([7.0], 0.0, 100.0, is_log=True)(7.0) == pytest.approx(50)


def test_names_cover_neither_each_other_nor_a_mark() -> None:
    rng = np.random.default_rng(3)
    bounds, obstacle = (0.0, 0.0, 500.0, 300.0), (200.0, 0.0, 204.0, 300.0)
    names = [Name(f"backbone {i}", float(x), float(y)) for i, (x, y) in enumerate(rng.uniform(100, 250, (12, 2)))]
    placed = place_names(names, bounds, [obstacle])
    assert len(placed) >= 8
    for one, other in itertools.combinations(placed, 2):
        assert not overlap(one.box, other.box)
    for each in placed:
        assert not overlap(each.box, obstacle)
        assert bounds[0] <= each.box[0] < each.box[2] <= bounds[2]
        assert not any(each.box[0] < name.x < each.box[2] and each.box[1] < name.y < each.box[3] for name in names)
        assert each.box[2] - each.box[0] >= text_width(each.name.text)


def test_a_name_alone_is_right_of_its_mark_and_one_at_the_edge_left_of_it() -> None:
    (alone,) = place_names([Name("a", 50, 50)], (0, 0, 100, 100))
    assert alone.box[0] > 50
    assert alone.line_to is None
    (edge,) = place_names([Name("a", 98, 50)], (0, 0, 100, 100))
    assert edge.box[2] < 98


def test_a_name_pushed_away_has_a_line_to_its_mark() -> None:
    walls = [(40.0, 40.0, 90.0, 60.0), (10.0, 40.0, 45.0, 60.0), (20.0, 20.0, 80.0, 42.0), (20.0, 58.0, 80.0, 82.0)]
    (placed,) = place_names([Name("a", 50, 50)], (0, 0, 300, 300), walls)
    assert placed.line_to is not None


def test_charts_are_well_formed_and_draw_every_value() -> None:
    rows = [Row("<a> & b", "grown", 3.0, (1.0, 5.0), [2.0, 4.0]), Row("c", "random", 1.0, NOWHERE, [1.0], breaks=True)]
    chart = rows_chart("t", "d", rows, "x <", zero=True)
    root = ElementTree.fromstring(f"<svg>{chart.shapes}</svg>")
    lines = [each.get("class") for each in root.iter("line")]
    assert lines.count("single") == 3
    assert lines.count("bar b-grown") == 1
    assert lines.count("bar b-random") == 0
    assert lines.count("zero") == 1
    assert lines.count("group") == 1
    texts = [each.text for each in root.iter("text")]
    assert {"<a> & b", "+3.00", "c", "+1.00", "x <"} <= set(texts)
    bar = next(each for each in root.iter("line") if each.get("class") == "bar b-grown")
    centre = next(each for each in root.iter("polygon") if "m-grown" in each.get("class", ""))
    corners = [float(corner.split(",")[0]) for corner in centre.get("points", "").split()]
    assert np.mean([float(bar.get("x1", 0)), float(bar.get("x2", 0))]) == pytest.approx(corners[0], abs=0.2)


def test_each_arm_has_a_shape_of_its_own() -> None:
    assert len(set(SHAPES.values())) == len(SHAPES)
    drawn = {kind: re.sub(r' class="[^"]*"', "", mark(kind, 10, 10)) for kind in SHAPES}
    assert len(set(drawn.values())) == len(SHAPES)


def test_a_logarithmic_axis_is_for_costs_of_different_orders_only() -> None:
    near, far = points((10, 1), (30, 2)), points((1, 1), (100, 2))
    for found, is_log in ((near, False), (far, True)):
        chart = scatter("t", "d", found, Axes("x", "y", False), {}, front=found)
        texts = [each.text for each in ElementTree.fromstring(f"<svg>{chart.shapes}</svg>").iter("text")]
        assert ({"1", "10", "100"} <= set(texts)) == is_log


def test_long_names_are_cut_in_their_middle() -> None:
    name = "a_backbone_with_a_very_long_name.in22k_ft_in1k_384"
    assert text_width(fitted(name, 190)) <= 190
    assert fitted(name, 190).startswith("a_backbone")
    assert fitted(name, 190).endswith("_384")
    assert text_width(fitted("一" * 40, 190)) <= 190
    assert fitted("short", 190) == "short"


def test_numbers_are_written_one_way() -> None:
    nan = float("nan")
    assert [number(value) for value in (12.345678, -0.001, 0.0, nan, None)] == ["12.35", "0.00", "0.00", "-", "-"]
    assert [signed(value) for value in (1.2, -1.2, 0.001, nan)] == ["+1.20", "-1.20", "0.00", "-"]
    assert interval((1.0, 2.0), with_sign=True) == "+1.00 to +2.00"
    assert interval((nan, nan)) == "-"
    assert [p_value(p) for p in (0.0004, 0.0312, 1.0, nan)] == ["< 0.001", "0.031", "1.000", "-"]
    assert [rank(value) for value in (1.0, 1.5, 7 / 3, 10.0)] == ["1", "1.5", "2.33", "10"]
    assert [amount(value) for value in (4.652, 43.21, 5600.4, None)] == ["4.65", "43.2", "5,600", "-"]


def test_a_chart_says_that_it_left_names_out() -> None:
    crowd = [Point(f"the name of number {number_of}", "pretrained", 1.0, 1.0) for number_of in range(40)]
    assert scatter("title", "d", crowd, Axes("x", "y"), {}).title == "title; the table has the names without room"
    assert scatter("title", "d", crowd[:1], Axes("x", "y"), {}).title == "title"
