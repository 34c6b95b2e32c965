"""The pictures show the numbers that they were given."""

import re
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.metrics import confusion_matrix

from anygrain.metrics import expected_calibration_error, wilson_interval
from anygrain.report import (
    BalanceDisplay,
    ConfusionDisplay,
    HeatDisplay,
    HistoryDisplay,
    IntervalDisplay,
    MapDisplay,
    PrecisionDisplay,
    ReliabilityDisplay,
    TogetherDisplay,
    row_map,
)
from anygrain.report.svg import Drawing, shortened, tick_labels, ticks

matplotlib.use("Agg")


def predictions(n: int = 400, k: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(k, 0.5), n)
    return (probs.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1), probs


def attributes(svg: str, kind: str, css: str) -> list[dict[str, str]]:
    return [e.attrib for e in ET.fromstring(svg).iter(kind) if css in e.attrib.get("class", "").split()]


def test_reliability_is_that_of_the_rows():
    truth, probs = predictions()
    display = ReliabilityDisplay.from_predictions(truth, probs, bins=10, plot=False)
    top, right = probs.max(axis=1), probs.argmax(axis=1) == truth
    inside = (top > 0.5) & (top <= 0.6)
    at = int(np.argmin(np.abs(display.confidence - top[inside].mean())))
    assert display.count.sum() == len(truth)
    assert display.count[at] == inside.sum()
    np.testing.assert_allclose(display.accuracy[at], right[inside].mean())
    low, high = wilson_interval(int(right[inside].sum()), int(inside.sum()))
    np.testing.assert_allclose([display.low[at], display.high[at]], [low, high])
    error = np.average(np.abs(display.accuracy - display.confidence), weights=display.count)
    np.testing.assert_allclose(error, expected_calibration_error(probs, truth, bins=10))


def test_reliability_maps_names_to_columns():
    truth, probs = predictions()
    names = np.array(["pear", "apple", "fig", "lemon"])
    by_name = ReliabilityDisplay.from_predictions(names[truth], probs, classes=names, plot=False)
    by_number = ReliabilityDisplay.from_predictions(truth, probs, plot=False)
    np.testing.assert_array_equal(by_name.accuracy, by_number.accuracy)
    with pytest.raises(ValueError, match="'plum', which is not among the classes"):
        ReliabilityDisplay.from_predictions(["plum"], probs[:1], classes=names, plot=False)


def test_reliability_points_stand_where_the_numbers_say():
    display = ReliabilityDisplay([0.25, 0.75], [0.5, 1.0], [10, 30])
    marks = attributes(display.to_svg(), "circle", "ours")
    assert len(marks) == 2
    x, y = (np.array([float(m[a]) for m in marks]) for a in ("cx", "cy"))
    frame = Drawing(460, 380, margins=(50, 12, 14, 46))
    np.testing.assert_allclose(x, [frame.x(0.25), frame.x(0.75)], atol=0.1)
    np.testing.assert_allclose(y, [frame.y(0.5), frame.y(1.0)], atol=0.1)
    assert float(marks[1]["r"]) > float(marks[0]["r"])
    with pytest.raises(ValueError, match="bins differ in number"):
        ReliabilityDisplay([0.2], [0.1, 0.2], [3])


def test_confusion_counts_like_scikit_learn():
    rng = np.random.default_rng(1)
    truth, guess = rng.integers(0, 5, 300), rng.integers(0, 5, 300)
    names = ["e", "d", "c", "b", "a"]
    display = ConfusionDisplay.from_predictions(truth, guess, class_names=names, plot=False)
    np.testing.assert_array_equal(display.matrix, confusion_matrix(truth, guess))
    assert display.class_names == names
    by_name = ConfusionDisplay.from_predictions(np.array(names)[truth], np.array(names)[guess], plot=False)
    assert by_name.class_names == sorted(names)
    np.testing.assert_array_equal(by_name.matrix, confusion_matrix(4 - truth, 4 - guess))
    np.testing.assert_allclose(display.shares.sum(axis=1), 1)


def test_confusion_refuses_unknown_classes_and_lengths():
    with pytest.raises(ValueError, match="class 'z' is not among"):
        ConfusionDisplay.from_predictions(["a", "z"], ["a", "a"], class_names=["a", "b"], plot=False)
    with pytest.raises(ValueError, match="class 2 is not among"):
        ConfusionDisplay.from_predictions([0, 2], [0, 1], class_names=["a", "b"], plot=False)
    with pytest.raises(ValueError, match=r"expected \(N,\) for both"):
        ConfusionDisplay.from_predictions(["a"], ["a", "a"], plot=False)
    with pytest.raises(ValueError, match="2 class names"):
        ConfusionDisplay(np.eye(3), ["a", "b"])


def test_confusion_keeps_a_class_without_rows_empty():
    svg = ConfusionDisplay([[3, 1], [0, 0]], ["a", "b"]).to_svg()
    assert len(attributes(svg, "rect", "right")) == 1
    assert len(attributes(svg, "rect", "wrong")) == 1


def test_history_rings_the_best_round_of_all_tracks():
    tracks = {"head": ([1, 2, 3], [-2, -1.1, -1.4]), "graph": ([1, 2, 3], [-2, np.nan, -1.2]), "final": ([1], [-1.0])}
    display = HistoryDisplay(tracks)
    assert display.best == ("head", 2)
    svg = display.to_svg()
    ring = attributes(svg, "circle", "flag")[0]
    marks = attributes(svg, "circle", "c0")
    assert (ring["cx"], ring["cy"]) == (marks[1]["cx"], marks[1]["cy"])
    assert float(ring["cy"]) == min(float(m["cy"]) for m in marks)  # y grows downwards
    assert len(attributes(svg, "polyline", "dashed")) == 1  # the final fit is a level
    assert HistoryDisplay({"head": ([1, 2], [np.nan, np.nan])}).best is None


def test_interval_bars_span_their_limits():
    display = IntervalDisplay(["one", "two"], [0.5, np.nan], [0.25, np.nan], [0.75, np.nan])
    bars = attributes(display.to_svg(500), "rect", "band")
    assert len(bars) == 1
    whole = [float(line["x1"]) for line in attributes(display.to_svg(500), "line", "grid")]
    np.testing.assert_allclose(float(bars[0]["width"]), (max(whole) - min(whole)) / 2, atol=0.2)
    assert "not measured" in display.to_svg(500)


def test_balance_bars_are_proportional():
    bars = attributes(BalanceDisplay(["a", "b"], [30, 10], [0, 2]).to_svg(), "rect", "bar")
    np.testing.assert_allclose(float(bars[0]["width"]) / float(bars[1]["width"]), 3, rtol=0.01)


def test_map_draws_every_row_once():
    rng = np.random.default_rng(2)
    places, groups = rng.normal(size=(500, 2)), rng.integers(0, 12, 500).astype(str)
    flagged = np.arange(500) < 7
    display = MapDisplay(places, groups, flagged=flagged)
    paths = [e.attrib for e in ET.fromstring(display.to_svg()).iter("path")]
    # the legend's cross is a path of its own, and the last
    drawn = {path["class"].split()[0]: len(re.findall("M", path["d"])) for path in paths[:-1]}
    assert len(display.names) == 8
    assert len(display.others) == 4
    flags = drawn.pop("flag")
    assert flags == 7
    assert sum(drawn.values()) == 500


def test_map_names_classes_where_their_rows_lie():
    places = np.array([[0, 0], [1, 0], [0, 1], [90, 90], [91, 90], [0.5, 0.5]], float)
    classes = ["near", "near", "near", "far", "far", "hidden below near"]
    svg = MapDisplay(places, ["a"] * 6, classes=classes).to_svg()
    text = {e.text: e.attrib for e in ET.fromstring(svg).iter("text") if e.attrib["class"] == "place"}
    assert text.keys() == {"near", "far"}
    assert float(text["near"]["x"]) < float(text["far"]["x"])
    assert float(text["near"]["y"]) > float(text["far"]["y"])


def test_row_map_keeps_groups_apart():
    rng = np.random.default_rng(3)
    classes = np.repeat(np.arange(4), 40)
    features = rng.normal(size=(4, 30))[classes] * 3 + rng.normal(size=(160, 30))
    places = row_map(features, np.eye(4)[classes])
    gap = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(gap, np.inf)
    assert (classes[gap.argmin(axis=1)] == classes).mean() > 0.95
    limited = row_map(features, np.eye(4)[classes], limit=50)
    assert np.isfinite(limited).all(axis=1).sum() == 50
    assert np.isfinite(row_map(features[:, :1], np.eye(4)[classes])).all()
    two = row_map(features, np.eye(2)[classes // 2])  # a plane, though two means span a line
    assert min(np.linalg.svd(two - two.mean(axis=0), compute_uv=False)) > 10
    np.testing.assert_array_equal(row_map(csr_array(features), np.eye(4)[classes]).shape, (160, 2))


@pytest.mark.parametrize(
    "display",
    [
        ReliabilityDisplay([0.2, 0.8], [0.1, 0.9], [5, 20]),
        ConfusionDisplay([[3, 1], [0, 2]], ["a", "b"]),
        HistoryDisplay({"head": ([1, 2], [-2, -1.5]), "final": ([1], [-1.2])}),
        IntervalDisplay(["a", "b"], [0.2, 0.5], [0.1, 0.4], [0.3, 0.6]),
        BalanceDisplay(["a", "b"], [3, 5], [1, 0]),
        MapDisplay([[0, 1], [2, 3]], ["a", "b"], flagged=[True, False]),
    ],
)
def test_displays_draw_on_given_axes(display):
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    assert display.plot(ax) is display
    assert display.ax_ is ax
    assert display.figure_ is figure
    assert ax.has_data()
    plt.close(figure)
    ET.fromstring(display.to_svg())  # well-formed


def test_text_is_escaped_in_pictures():
    svg = ConfusionDisplay(np.eye(2), ["<b>&", "plain"], name='"<i>').to_svg()
    assert "<b>" not in svg
    assert "<i>" not in svg
    assert "&lt;b&gt;&amp;" in svg


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 10))
def test_ticks_are_round_and_inside(low, span, count):
    found = ticks(low, low + span, count)
    assert len(found) <= count + 2
    assert all(low - 1e-6 * span <= t <= low + span * (1 + 1e-6) for t in found)
    if len(found) > 2:
        steps = np.diff(found)
        np.testing.assert_allclose(steps, steps[0], rtol=1e-5)
        lead = steps[0] / 10 ** np.floor(np.log10(steps[0]) + 1e-9)
        assert min(abs(lead - m) for m in (1, 2, 5, 10)) < 1e-5


def test_tick_labels_share_their_decimals():
    assert tick_labels([-1.05, -1.0, -0.95]) == ["\u22121.05", "\u22121.00", "\u22120.95"]
    assert tick_labels([0, 2000, 4000]) == ["0", "2\u202f000", "4\u202f000"]
    assert tick_labels([0.0, 0.2, 0.4]) == ["0.0", "0.2", "0.4"]
    assert tick_labels([]) == []


def test_shortened_text_fits():
    assert shortened("a long sentence", 7) == "a long…"
    assert shortened("short", 7) == "short"


def test_tags_that_go_together_are_shares_of_the_tag_of_a_line():
    rng = np.random.default_rng(0)
    on = rng.random((50, 4)) < 0.4
    on[:, 3] = False
    display = TogetherDisplay(on.T.astype(float) @ on, ["a", "b", "c", "never"])
    for row in range(4):
        for column in range(4):
            wanted = on[on[:, row], column].mean() if row != column and on[:, row].any() else 0.0
            assert display.shares[row, column] == pytest.approx(wanted)
    cells = attributes(display.to_svg(), "rect", "right")
    assert len(cells) == (display.shares >= 0.01).sum()
    display.plot()
    with pytest.raises(ValueError, match="for 3 tags"):
        TogetherDisplay(np.eye(2), ["a", "b", "c"])


def test_the_marked_threshold_lies_on_the_line():
    display = PrecisionDisplay([0.2, 0.5, 0.9], [1.0, 0.7, 0.3], [0.1, 0.45, 0.6], base=0.2, marked=0.5)
    assert display.marked == 2
    assert PrecisionDisplay([0.2], [1.0], [0.1]).marked is None
    mark = attributes(display.to_svg(), "circle", "ours")
    line = attributes(display.to_svg(), "polyline", "ours")[0]["points"].split()
    assert len(mark) == 1
    assert f"{mark[0]['cx']},{mark[0]['cy']}" == line[2]
    display.plot()


def test_heat_is_darkest_where_the_score_is_highest():
    coords = np.array([[0, 0], [256, 0], [256, 512]])
    boxes = attributes(HeatDisplay([0.1, 0.8, 0.4], coords).to_svg(), "rect", "heat")
    dark = [float(box.get("fill-opacity", 1)) for box in boxes]
    assert dark == pytest.approx([0.06 + 0.94 * 0.125, 1, 0.06 + 0.94 * 0.5], abs=1e-3)
    first, second, third = (float(b["x"]) for b in boxes)
    assert first < second == third
    assert float(boxes[2]["y"]) - float(boxes[0]["y"]) == pytest.approx(2 * float(boxes[0]["height"]), abs=0.3)


def test_heat_of_several_bags_may_share_a_scale():
    dark = [float(b["fill-opacity"]) for b in attributes(HeatDisplay([0.1, 0.4], highest=0.8).to_svg(), "rect", "heat")]
    assert dark == pytest.approx([0.06 + 0.94 / 8, 0.06 + 0.94 / 2], abs=1e-3)


def test_heat_of_many_instances_keeps_the_highest_of_a_square():
    rng = np.random.default_rng(0)
    score = rng.random(40_000) * 0.5
    score[777] = 1.0
    display = HeatDisplay(score, rng.random((40_000, 2)) * 1e4)
    assert len(display.score) <= 2500
    assert display.score.max() == 1.0
    with pytest.raises(ValueError, match="expected one or more"):
        HeatDisplay([], np.zeros((0, 2)))
