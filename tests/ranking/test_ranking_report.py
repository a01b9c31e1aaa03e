"""The report of a ranking: its numbers by hand, what it escapes, what it needs, how it is built."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import drawn_record
import numpy as np
import page_reader
import pytest
from PIL import Image
from scipy import stats

from transfer.ranking.record import RankingRecord, RunRecord
from transfer.ranking.report.style import DARK, LIGHT, MARKS
from transfer.ranking.report.write import write_report
from transfer.types import UserError

FIGURES = {
    ("resnet50d best", "detection"): [80.1, 82.3, 81.4],
    ("resnet50d mixup", "detection"): [77.0, 79.5, 78.1],
    ("lite0 random init", "detection"): [40.0, 43.0, 41.5],
    ("resnet50d best", "segmentation"): [50.0, 51.0, 52.0],
    ("resnet50d mixup", "segmentation"): [50.5, 50.9, 52.3],
    ("lite0 random init", "segmentation"): [20.0, 22.0, 21.0],
}


def written(record: RankingRecord, folder: Path) -> tuple[page_reader.Page, str]:
    """The page as read back, and the Markdown."""
    page, text = write_report(record, folder)
    assert (page, text) == (folder / "report.html", folder / "report.md")
    return page_reader.read_page(page.read_text(encoding="utf-8")), text.read_text(encoding="utf-8")


def by_hand(folder: Path) -> RankingRecord:
    """Three backbones with known figures."""
    record = drawn_record.drawn_record(folder, backbones=5, classes=3)
    names = {name for name, _ in FIGURES}
    record.backbones = [each for each in record.backbones if each.name in names]
    for part in ("costs", "runs", "searches", "forecasts"):
        setattr(record, part, [each for each in getattr(record, part) if each.backbone in names])
    for run in record.runs:
        run.figure = FIGURES[run.backbone, run.task][run.seed]
    return record


def cells(rows: list[list[str]], name: str) -> dict[str, str]:
    """The row of that name, by column."""
    return dict(zip(rows[0], next(row for row in rows[1:] if row[0] == name)))


def ends(values: np.ndarray) -> str:
    interval = stats.ttest_1samp(values, 0).confidence_interval()
    return f"{interval.low:.2f} to {interval.high:.2f}"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[page_reader.Page, str]:
    """The report of the record with known figures."""
    folder = tmp_path_factory.mktemp("known")
    return written(by_hand(folder), folder)


def test_means_intervals_and_ranks_are_those_of_the_seeds(known: tuple[page_reader.Page, str]) -> None:
    rows = known[0].tables["detection: mAP50 in percent on 48 test images, best first"]
    assert [row[0] for row in rows[1:]] == ["resnet50d best", "resnet50d mixup", "lite0 random init"]
    for rank, name in enumerate(("resnet50d best", "resnet50d mixup", "lite0 random init"), start=1):
        values = np.array(FIGURES[name, "detection"])
        row = cells(rows, name)
        assert row["mean mAP50"] == f"{values.mean():.2f}"
        assert row["95 % interval"] == ends(values)
        assert [row[f"seed {seed}"] for seed in range(3)] == [f"{value:.2f}" for value in values]
        assert (row["rank"], row["group"], row["possible ranks"]) == (str(rank),) * 3
    over_all = known[0].tables["Over 2 tasks"]
    # on segmentation mixup has 51.23, best 51.00, which ties; the ranks are 1 and 2 there
    assert cells(over_all, "resnet50d best")["mean rank"] == "1.5"
    assert cells(over_all, "resnet50d best")["segmentation: rank"] == "2 (group 1)"
    assert cells(over_all, "resnet50d best")["possible ranks"] == "1 to 1.5"
    assert cells(over_all, "lite0 random init")["mean rank"] == "3"


def test_the_answer_names_the_backbone_and_its_evidence(known: tuple[page_reader.Page, str]) -> None:
    best, mixup = (np.array(FIGURES[f"resnet50d {name}", "detection"]) for name in ("best", "mixup"))
    low, high = stats.ttest_rel(best, mixup).confidence_interval()
    p = holm_of_largest([best, mixup, np.array(FIGURES["lite0 random init", "detection"])])
    answer = (
        f"Use resnet50d best for both tasks: on detection it is ahead of all others, of resnet50d mixup as the next by "
        f"+{(best - mixup).mean():.2f} (95 % +{low:.2f} to +{high:.2f}, Holm p = {p:.3f}); on segmentation it ties "
        "with resnet50d mixup (0.23 more, "
    )
    assert answer in known[0].text


def holm_of_largest(arms: list[np.ndarray]) -> float:
    """Adjusted p of the first two of three arms: theirs is the largest of the three p values."""
    p_values = [stats.ttest_rel(arms[i], arms[j]).pvalue for i, j in ((0, 1), (0, 2), (1, 2))]
    assert p_values[0] == max(p_values)
    smallest, middle, largest = sorted(p_values)
    return max(3 * smallest, 2 * middle, largest)


def test_gains_over_the_random_arm_are_paired(known: tuple[page_reader.Page, str]) -> None:
    row = cells(known[0].tables["detection: gain over the random arm"], "resnet50d mixup over lite0 random init")
    mine, random = (np.array(FIGURES[name, "detection"]) for name in ("resnet50d mixup", "lite0 random init"))
    low, high = stats.ttest_rel(mine, random).confidence_interval()
    assert row["gain"] == f"+{(mine - random).mean():.2f}"
    assert row["95 % interval"] == f"+{low:.2f} to +{high:.2f}"
    assert row["by seed"] == "+37.00, +36.50, +36.60"
    assert row["verdict"] == "ahead"
    tie = known[0].tables["segmentation: each backbone over the next of the ranking"]
    assert cells(tie, "resnet50d mixup over resnet50d best")["verdict"] == "tie"
    assert cells(tie, "resnet50d mixup over resnet50d best")["by seed"] == "+0.50, -0.10, +0.30"


def test_what_a_trick_brought_is_over_the_backbone_that_it_was_added_to(tmp_path: Path) -> None:
    record = by_hand(tmp_path)
    page, _ = written(record, tmp_path)
    assert "detection: what each trick brought" not in page.tables
    best, mixup, random = record.backbones
    assert (mixup.name, best.name) == ("resnet50d mixup", "resnet50d best")
    mixup.adds_to, random.adds_to = best.name, "not measured here"
    page, text = written(record, tmp_path)
    table = page.tables["detection: what each trick brought"]
    row = cells(table, "resnet50d mixup over resnet50d best")
    ours, below = (np.array(FIGURES[name, "detection"]) for name in (mixup.name, best.name))
    low, high = stats.ttest_rel(ours, below).confidence_interval()
    assert row["gain"] == f"{(ours - below).mean():+.2f}"
    assert row["95 % interval"] == f"{low:+.2f} to {high:+.2f}"
    assert "not measured here" not in text


def test_a_gain_that_is_a_loss_has_its_interval_turned_round(tmp_path: Path) -> None:
    record = by_hand(tmp_path)
    figures = {"resnet50d best": [1.0, 2.0, 3.5], "resnet50d mixup": [9.0, 9.0, 9.0], "lite0 random init": [5, 6, 7]}
    for run in record.runs:
        run.figure = float(figures[run.backbone][run.seed])
    page, _ = written(record, tmp_path)
    row = cells(page.tables["detection: gain over the random arm"], "resnet50d best over lite0 random init")
    low, high = stats.ttest_rel([1, 2, 3.5], [5, 6, 7]).confidence_interval()
    assert (row["gain"], row["95 % interval"], row["verdict"]) == ("-3.83", f"{low:.2f} to {high:.2f}", "behind")


def test_class_differences_are_paired_and_the_largest_comes_first(tmp_path: Path) -> None:
    record = by_hand(tmp_path)
    shift = {"class 0": 1.0, "class 1": -6.0, "class 2": 3.0}
    for run in record.runs:
        best = run.backbone == "resnet50d best"
        run.per_class = {
            name: {"ap": 50.0 + run.seed + (shift[name] + 0.5 * run.seed if best else 0.0), "truths": 9}
            for name in shift
        }
    page, text = written(record, tmp_path)
    rows = page.tables["detection: resnet50d best against the others by class, largest difference first"]
    assert [row[0] for row in rows[1:]] == ["class 1", "class 2", "class 0"]
    low, high = stats.ttest_1samp([-6.0, -5.5, -5.0], 0).confidence_interval()
    assert cells(rows, "class 1")["over resnet50d mixup"] == f"-5.50 ({low:.2f} to {high:.2f})"
    assert cells(rows, "class 1")["resnet50d best: AP"] == "45.50"
    assert (
        page_reader.read_markdown_tables(text)[
            "detection: resnet50d best against the others by class, largest difference first"
        ]
        == rows
    )


def test_forecasts_have_the_tau_of_scipy_and_the_random_arm_no_top1(tmp_path: Path) -> None:
    record = drawn_record.drawn_record(tmp_path, backbones=8)
    page, text = written(record, tmp_path)
    means = {
        each.name: np.mean([run.figure for run in record.runs if (run.backbone, run.task) == (each.name, "detection")])
        for each in record.backbones
    }
    table = page.tables["detection: agreement of each forecast with the measured order"]
    for score in drawn_record.SCORES:
        values = {
            each.backbone: each.value for each in record.forecasts if (each.task, each.score) == ("detection", score)
        }
        expected = stats.kendalltau([values[name] for name in means], list(means.values()))
        row = cells(table, score)
        assert (row["Kendall's tau"], row["p"]) == (f"{expected.statistic:.2f}", f"{expected.pvalue:.3f}")
        assert row["backbones"] == "8"
    row = cells(table, "ImageNet top-1")
    assert (row["backbones"], row["left out"]) == ("6", "lite0 random init and lite0 grown here")
    same = page.tables["detection: on the backbones alone that have an ImageNet top-1"]
    assert [row[7] for row in same[1:]] == ["6"] * 6
    assert "cannot tell its order from chance" in text


def test_costs_and_searches(tmp_path: Path) -> None:
    record = by_hand(tmp_path)
    for cost in record.costs:
        cost.inference_images_per_second = {"resnet50d best": 10.0, "resnet50d mixup": 30.0}.get(cost.backbone, 20.0)
    first, second, third = (
        each for each in record.searches if (each.backbone, each.task) == ("resnet50d best", "detection")
    )
    first.figure, second.figure, third.figure, third.state = 61.0, 60.0, None, "failed"
    first.chosen, second.chosen, third.chosen = True, False, False
    page, _ = written(record, tmp_path)
    table = page.tables["detection: mAP50 and cost"]
    on = {row[0]: row[-1] for row in table[1:]}
    # the random arm has the fewest parameters; mixup is faster than it and better
    assert on == {
        "resnet50d best": "images/s, parameters, multiply-adds",
        "resnet50d mixup": "images/s",
        "lite0 random init": "parameters, multiply-adds",
    }
    assert cells(table, "resnet50d mixup")["images/s in inference, whole model"] == "30.0"
    assert cells(table, "resnet50d mixup")["multiply-adds of the backbone, millions"] == "5,600"
    search = next(
        row for row in page.tables["Search for the learning rate"] if row[:2] == ["resnet50d best", "detection"]
    )
    assert search == ["resnet50d best", "detection", "0", "61.00 *", "60.00", "failed", "0.3333", "0.003333", "yes"]
    assert "resnet50d best on detection (factor 0.3333)" in page.text
    assert ["resnet50d best (search)", "detection", "0", "failed"] in [
        row[:4] for row in page.tables["Runs without a figure"]
    ]


def test_what_failed_is_said_with_its_error(tmp_path: Path) -> None:
    record = by_hand(tmp_path)
    drawn_record.fail(record, "resnet50d mixup", "detection", 1, "Traceback\n  line 3\nRuntimeError: out of memory")
    record.runs = [run for run in record.runs if (run.backbone, run.task) != ("lite0 random init", "segmentation")]
    halved = next(
        run for run in record.runs if (run.backbone, run.task, run.seed) == ("resnet50d best", "detection", 2)
    )
    halved.command = ""  # never made
    halved.state = "halved"  # its figure is of a smaller budget: it does not count
    page, _ = written(record, tmp_path)
    assert page.tables["Runs without a figure"][1:] == [
        ["resnet50d best", "detection", "2", "given up by successive halving", "-", halved.directory],
        [
            "resnet50d mixup",
            "detection",
            "1",
            "failed",
            "RuntimeError: out of memory",
            "runs/detection/resnet50d-mixup/1",
        ],
        ["lite0 random init", "segmentation", "0, 1, 2", "missing", "-", "-"],
    ]
    assert "Preliminary: 5 of 18 runs have no figure" in page.text
    assert "Not ranked over all tasks: lite0 random init (no figure on segmentation)." in page.text
    assert "Traceback\n  line 3" in page.text
    assert "8 runs on detection" in page.text
    row = cells(page.tables["detection: mAP50 in percent on 48 test images, best first"], "resnet50d best")
    assert (row["mean mAP50"], row["seed 2"]) == ("81.20", "-")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[page_reader.Page, str, Path]:
    """The report of a large record."""
    folder = tmp_path_factory.mktemp("large")
    record = drawn_record.drawn_record(folder, backbones=12, classes=40)
    return *written(record, folder), folder / "report.html"


def test_markdown_and_page_have_the_same_tables(large: tuple[page_reader.Page, str, Path]) -> None:
    tables = page_reader.read_markdown_tables(large[1])
    assert len(tables) > 25
    assert tables == large[0].tables
    assert len(large[0].tables["segmentation: all pairs"]) == 1 + 12 * 11 // 2


def test_the_page_is_whole_in_itself(large: tuple[page_reader.Page, str, Path]) -> None:
    page, text = large[0], large[2].read_text(encoding="utf-8")
    names = {name for name, _ in page.elements}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base", "use", "image", "foreignobject"}
    for name, attributes in page.elements:
        assert not any(key.startswith("on") or key == "style" for key in attributes), name
        for key in ("src", "href", "srcset", "data", "action", "poster"):
            assert re.match(r"data:image/(png|jpeg);base64,|#", attributes.get(key, "#")), (name, attributes)
    assert "url(" not in text
    assert "@import" not in text
    policy = next(each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["script-src"] == rules["base-uri"] == "'none'"
    assert rules["img-src"] == "data:"
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert rules["style-src"] == f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'"


def test_the_page_is_well_built(large: tuple[page_reader.Page, str, Path]) -> None:
    page = large[0]
    assert not page.unclosed
    assert page.elements[0] == ("html", {"lang": "en"})
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:]))
    identities = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identities) == len(set(identities))
    pointed = [key for _, of in page.elements for key in of.get("aria-labelledby", "").split()]
    pointed += [of["href"][1:] for of in page.all("a")]
    assert set(pointed) <= set(identities)
    assert len(page.drawings) > 10
    assert all(each["role"] == "img" and each["title"] and each["desc"] for each in page.drawings)
    assert len(page.all("caption")) == len(page.all("table")) == len(page.tables)
    assert all(each.get("scope") in ("col", "row") for each in page.all("th"))
    assert all(each["alt"] and int(each["width"]) == 160 and int(each["height"]) == 120 for each in page.all("img"))
    assert len(page.all("img")) == 2 * 2 * 13
    scrolled = [of for _, of in page.elements if of.get("class") == "scroll"]
    assert all(of.get("tabindex") == "0" and of.get("role") == "region" for of in scrolled)
    titles = [text for level, text in page.headings if level == 2]
    assert titles[:2] == ["Answer", "Ranking"]
    assert titles[-3:] == ["What failed or is missing", "Exact commands", "Backbones, protocols, facts"]


EVIL = "<script>alert(1)</script>|`a` _b_ \"'&amp;\u202e\x1b[0m"


def test_every_name_is_escaped(tmp_path: Path) -> None:
    record = drawn_record.drawn_record(tmp_path, backbones=3, classes=2, pictures=1)
    name = record.backbones[0].name
    for part in (record.costs, record.searches, record.runs, record.forecasts):
        for each in part:
            each.backbone = EVIL if each.backbone == name else each.backbone
    for run in record.runs:
        run.per_class[EVIL] = {"ap": 12.0, "iou": 12.0}
        run.command, run.directory = EVIL, EVIL
    drawn_record.fail(record, EVIL, "detection", 0, f"{EVIL}\n{EVIL}")
    record.backbones[0].name = record.backbones[0].description = record.backbones[0].top1_source = EVIL
    record.backbones[0].weights, record.backbones[0].changes, record.name = EVIL, [EVIL], EVIL
    record.backbones[0].grown = {EVIL: EVIL}
    record.command, record.made, record.facts = EVIL, EVIL, {EVIL: EVIL}
    for picture in record.pictures:
        picture.predictions[EVIL] = picture.predictions.pop(name)
        picture.image_id = EVIL
    for task in record.tasks:
        task.protocol = task.config = EVIL
    for point in record.published:
        point.backbone = point.source = EVIL
    page, text = written(record, tmp_path)
    assert not page.all("script")
    assert not page.unclosed
    seen = EVIL.replace("\u202e", "\\u202e").replace("\x1b", "\\x1b")
    rows = page.tables["detection: mAP50 in percent on 48 test images, best first"]
    assert seen in [row[0] for row in rows]
    assert seen in [row[0] for caption, rows in page.tables.items() if "by class" in caption for row in rows]
    outside_of_fences = re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert "<script" not in outside_of_fences
    assert "\x1b" not in text
    assert page_reader.read_markdown_tables(text).keys() == page.tables.keys()
    assert all(len({len(row) for row in rows}) == 1 for rows in page_reader.read_markdown_tables(text).values())


def test_nothing_done_yet_is_said(tmp_path: Path) -> None:
    record = drawn_record.drawn_record(tmp_path)
    for part in (record.costs, record.searches, record.runs, record.forecasts, record.pictures, record.published):
        part.clear()
    page, text = written(record, tmp_path)
    assert "Nothing is measured yet: none of 42 runs has a figure." in page.text
    assert "**Nothing is measured yet: none of 42 runs has a figure.**" in text
    assert not page.drawings
    assert len(page.tables["Runs without a figure"]) == 1 + 14


def test_one_seed_has_no_interval_and_proves_nothing(tmp_path: Path) -> None:
    page, _ = written(drawn_record.drawn_record(tmp_path, backbones=3, seeds=1, tasks=("detection",)), tmp_path)
    assert "No backbone is proven best." in page.text
    assert "There is one seed: no interval" in page.text
    assert "nan" not in page.text
    rows = page.tables["detection: mAP50 in percent on 48 test images, best first"]
    assert [row[rows[0].index("95 % interval")] for row in rows[1:]] == ["-"] * 3


def test_one_backbone_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    record = drawn_record.drawn_record(
        tmp_path, backbones=1, seeds=2, tasks=("detection",), pictures=0, published=False
    )
    page, _ = written(record, tmp_path)
    mean = np.mean([run.figure for run in record.runs])
    assert f"Only resnet50d best was measured, so there is nothing to compare it with: {mean:.2f} mAP50" in page.text
    assert "There are no pictures." in page.text


def test_without_any_top1_and_with_tasks_of_different_winners(tmp_path: Path) -> None:
    record = by_hand(tmp_path)
    for backbone in record.backbones:
        backbone.top1 = None
    record.published.clear()
    for run in record.runs:
        if run.task == "segmentation":
            run.figure = {"resnet50d best": 30.0, "resnet50d mixup": 60.0}.get(run.backbone, 1.0) + 0.1 * run.seed
    page, _ = written(record, tmp_path)
    assert "No backbone here has an ImageNet top-1." in page.text
    assert "ImageNet top-1" not in [
        row[0] for row in page.tables["detection: agreement of each forecast with the measured order"]
    ]
    assert "No backbone is among the best on every task: use resnet50d best for detection (" in page.text


def test_a_task_without_figures_is_left_out_and_said_so(tmp_path: Path) -> None:
    record = by_hand(tmp_path)
    record.runs = [run for run in record.runs if run.task == "detection"]
    page, _ = written(record, tmp_path)
    assert page.text.count("Use resnet50d best for detection: on detection it is ahead") == 1
    assert "segmentation has no figure yet" in page.text
    assert "Over 2 tasks" not in page.tables


def test_pictures_outside_the_folder_or_damaged_are_not_shown(tmp_path: Path) -> None:
    folder = tmp_path / "ranking"
    record = drawn_record.drawn_record(folder, backbones=4, tasks=("detection",), pictures=1)
    (picture,) = record.pictures
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    Image.new("RGB", (2000, 1000), (200, 30, 30)).save(folder / "large.png")
    (folder / "text.png").write_text("<svg/>")
    names = list(picture.predictions)
    picture.predictions = dict(zip(names, ["../secret.png", "text.png", "gone.png", "large.png"]))
    page, text = written(record, folder)
    sizes = [(each["width"], each["height"]) for each in page.all("img")]
    assert sizes == [("160", "120"), ("480", "240")]
    assert page.text.count("no picture") == text.count("no picture") == 3
    assert "![Test image 000000 of detection: the truth](pictures/detection-0-truth.png)" in text


def test_the_folder_is_made_and_one_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    record = drawn_record.drawn_record(tmp_path, backbones=1, tasks=("detection",), pictures=0)
    write_report(record, tmp_path / "new" / "folder")
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["report.html", "report.md"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(record, tmp_path / "file" / "folder")


def test_runs_that_the_record_lists_twice_or_not_at_all_do_not_count_twice(tmp_path: Path) -> None:
    record = by_hand(tmp_path)
    record.runs.append(RunRecord("unknown", "detection", 0, 99.0, {}, None, None, "done", None, None, "x"))
    page, _ = written(record, tmp_path)
    assert "18 of 18 runs done" in page.text
    assert "unknown" not in [row[0] for rows in page.tables.values() for row in rows]


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast(colours: dict[str, str]) -> None:
    for text in ("ink", "muted", "link", "alert"):
        assert contrast(colours[text], colours["paper"]) >= 4.5, text
    for text in ("ink", "link"):
        assert contrast(colours[text], colours["panel"]) >= 4.5, text
    for mark in MARKS:
        assert contrast(colours[mark], colours["paper"]) >= 3, mark


def contrast(one: str, other: str) -> float:
    """WCAG 2.1, 1.4.3."""

    def luminance(colour: str) -> float:
        channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
