# The report's page: well formed, self-contained, escaped, complete, of bounded size.
import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation import fixing_report
from evaluation import report as report_module
from evaluation.choice import choose_views
from evaluation.embed import VIDEO_LIMIT
from evaluation.fixing import FixingMetrics
from evaluation.metrics import Metrics
from evaluation.plot import choose_ticks, draw_curves
from evaluation.report import Report, ReportView, write_report

VOID = {"meta", "link", "img", "input", "br", "hr"}


class Page(HTMLParser):
    """Holds the page's elements and text, and that every element is closed where it should be."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.text = [], [], ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        assert len(dict(attributes)) == len(attributes), f"<{tag}> has an attribute twice"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):  # SVG's <path/>
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag, **attributes):
        names = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
        return [a for t, a in self.elements if t == tag and names.items() <= a.items()]


def image(height=24, width=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def view(name="a.png", **metrics):
    images = {"render": image(seed=1), "ground truth": image(seed=2)}
    return ReportView(name, images, metrics or {"psnr": 20.0, "ssim": 0.5, "lpips": None})


def report(**changes):
    given = {
        "title": "A title",
        "subtitle": "two views",
        "summary": [{"views": "held-out", "psnr": 20.0, "lpips": None}, {"views": "train"}],
        "views": [view("a.png"), view("b.png")],
        "curves": {"train PSNR": [(1, 10.0), (2, 12.0)], "held-out PSNR": [(2, 11.0)]},
        "settings": {"steps": 2, "strategy": {"name": "mcmc"}},
        "versions": {"torch": "2"},
        "protocol": "the protocol",
        "notes": ["LPIPS is not available."],
    }
    return Report(**given | changes)


def page(tmp_path, **changes):
    return Page(write_report(tmp_path, report(**changes)).read_text(encoding="utf-8"))


def test_everything_is_on_the_page(tmp_path):
    shown = page(tmp_path)
    text = re.sub(r"\s+", " ", shown.text)
    for expected in ("A title", "two views", "the protocol", "LPIPS is not available.", "mcmc"):
        assert expected in text
    for expected in ("20.00", "0.500", "n/a", "train PSNR", "re-encoded for display", "torch"):
        assert expected in text
    for name in ("a.png", "b.png"):
        assert len(shown.all("img", alt=f"render of {name}")) == 1
        assert len(shown.all("img", alt=f"ground truth of {name}")) == 1
        assert (
            len(shown.all("img", alt=f"Absolute error of render against the ground truth, {name}"))
            == 1
        )
    assert len(shown.all("input", type="range")) == 2
    assert {a["href"] for a in shown.all("a")} >= {"#view-1", "#view-2"}
    assert len(shown.all("article", id="view-2")) == 1


@pytest.mark.parametrize(
    "values, roles",
    [
        ([], {}),
        ([None], {}),
        ([None, 1.0], {"only": 1}),
        ([2.0, 1.0], {"best": 0, "worst": 1}),
        ([1.0, 1.0], {"best": 1, "worst": 0}),
        ([3.0, 1.0, 2.0], {"median": 2, "best": 0, "worst": 1}),
        ([5.0, 5.0, 5.0], {"median": 1, "best": 2, "worst": 0}),
        ([4.0, 1.0, None, 3.0, 2.0], {"median": 4, "best": 0, "worst": 1}),  # lower median
    ],
)
def test_the_views_that_stand_for_all(values, roles):
    assert choose_views(values) == roles


def three_ways(name, gain, psnr):
    """A view before and after, its photo and its numbers."""
    names = ("vanilla", "distilled", "ground truth")
    images = {key: image(seed=i) for i, key in enumerate(names)}
    return ReportView(name, images, {"gain_psnr": gain, "psnr": psnr}, "distilled")


def test_the_median_best_and_worst_view_come_first_and_once(tmp_path):
    gains = {"a": 1.0, "b": -1.0, "c": 3.0, "d": 2.0, "e": 0.0}
    views = [three_ways(name, gain, 20 - gain) for name, gain in gains.items()]
    shown = page(tmp_path, views=views, ranked_by="gain_psnr")
    cards = [a["id"] for a in shown.all("article")]
    assert cards == ["view-1", "view-3", "view-2", "view-4", "view-5"]
    headings = [words for words in ("Median: a", "Best: c", "Worst: b") if words in shown.text]
    assert len(headings) == 3 and "by gain in PSNR" in shown.text
    assert [a["alt"] for a in shown.all("img") if "beside" in a["alt"]] == [
        f"ground truth beside {name}" for name in "acb"
    ]
    for name in gains:
        assert len(shown.all("img", alt=f"distilled of {name}")) == 1
        for way in ("vanilla", "distilled"):
            alt = f"Absolute error of {way} against the ground truth, {name}"
            assert len(shown.all("img", alt=alt)) == 1
    by_psnr = page(tmp_path, views=views)
    assert [a["id"] for a in by_psnr.all("article")][:3] == ["view-1", "view-2", "view-3"]


@pytest.mark.parametrize("count, title", [(1, "The only view"), (2, "Best and worst view, by")])
def test_few_views_are_shown_once_each(tmp_path, count, title):
    views = [three_ways(name, 1.0, 20.0) for name in "ab"[:count]]
    shown = page(tmp_path, views=views, ranked_by="gain_psnr")
    assert title in shown.text
    assert len(shown.all("article")) == count


def test_sections_are_in_the_order_of_interest(tmp_path):
    (tmp_path / "path.mp4").write_bytes(b"small")
    page(
        tmp_path,
        tables={"Rounds": [{"step": 1, "why": "because " * 10}]},
        gains={"distilled": [0.1, -0.1]},
        seconds={"fixing": 2.0},
        video=tmp_path / "path.mp4",
    )
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    order = ["Best and worst view, by PSNR", "Mean over all views", "Rounds", "Plots", "Video"]
    order += ["Time and settings", "All views"]
    assert re.findall(r"<h2[^>]*>([^<]*)</h2>", html) == order
    assert "distilled: 1 of 2 views became worse" in html


def test_one_table_says_each_mean_once_with_its_gain_beside_it(tmp_path):
    summary = [
        {"way": "vanilla", "psnr": 17.03, "gain_psnr": 0.0, "minutes": 0.51, "worth it": ""},
        {"way": "distilled", "psnr": 19.37, "gain_psnr": 2.34, "minutes": 0.92, "worth it": ""},
        {"way": "renders fixed", "psnr": 21.04, "gain_psnr": 4.01, "worth it": "yes, by views"},
    ]
    facts = {"Gaussians": 12_345, "steps": 678}
    shown = page(tmp_path, summary=summary, facts=facts, curves={})
    for figure in ("17.03", "19.37", "+2.34", "21.04", "+4.01", "0.51", "yes, by views", "12,345"):
        assert shown.text.count(figure) == 1, figure
    assert "+0.00" not in shown.text and "gain PSNR" not in shown.text


def test_every_table_can_be_scrolled(tmp_path):
    page(tmp_path, tables={"Rounds": [{"step": 1}]}, seconds={"fixing": 2.0})
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert html.count("<table") == len(
        re.findall(r'<div class="scroll[^>]*tabindex="0"[^>]*>\s*<table', html)
    )


def test_a_test_of_a_fixer_shows_its_median_best_and_worst_image(tmp_path, monkeypatch):
    monkeypatch.setattr(fixing_report, "PICTURES", 2)
    judge = FixingMetrics(Metrics(None))
    truth = torch.full((24, 32, 3), 0.5)
    errors = {"a": 0.1, "b": 0.2, "c": 0.05, "d": 0.15, "e": 0.12}
    rows = {key: judge(truth + 0.2, truth + error, truth) for key, error in errors.items()}
    keys = fixing_report.choose_shown(rows)
    assert keys == ["a", "b", "c", "e"]  # the first two, the best, the median
    names = ("render", "fixed", "reference", "ground truth")
    pictures = {key: {name: image(seed=i) for i, name in enumerate(names)} for key in keys}
    result = fixing_report.summarize(rows, judge)
    file = fixing_report.write_fixing_report(tmp_path, result, pictures, title="t", settings={})
    shown = Page(file.read_text(encoding="utf-8"))
    assert [a["id"] for a in shown.all("article")] == ["view-5", "view-3", "view-2", "view-1"]
    assert [a["data-name"] for a in shown.all("img", class_="left")] == ["render"] * 4
    assert [a["data-name"] for a in shown.all("img", class_="right")] == ["fixed"] * 4
    assert {a["href"] for a in shown.all("a")} >= {"#view-1"} and "#view-4" not in file.read_text()


def test_nothing_is_fetched(tmp_path):
    shown = page(tmp_path)
    for tag, attributes in shown.elements:
        for key in ("src", "srcset", "poster", "data", "action", "xlink:href"):
            assert attributes.get(key, "data:").startswith("data:"), (tag, key)
        if "href" in attributes:
            assert attributes["href"].startswith(("#", "data:"))
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(", html)


def test_pictures_and_controls_are_labelled(tmp_path):
    shown = page(tmp_path)
    assert all(a.get("alt") for a in shown.all("img"))
    assert all(a.get("aria-label") for a in shown.all("input"))
    ids = [a["id"] for _, a in shown.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in shown.elements:
        assert attributes.get("aria-labelledby", ids[0]) in ids


@pytest.mark.parametrize("name", ["<script>.png", '"><img src=x onerror=1>.jpg', "a&amp;b'.png"])
def test_names_are_escaped(tmp_path, name):
    plain = page(tmp_path / "plain")
    shown = page(
        tmp_path,
        title=name,
        subtitle=name,
        summary=[{name: name, "psnr": 1.0}],
        views=[ReportView(name, {name: image(), "ground truth": image()}, {name: 1.0})] * 2,
        curves={f"{name} PSNR": [(1, 1.0)]},
        settings={name: name},
        versions={name: name},
        protocol=name,
        notes=[name],
    )
    assert shown.text.count(name) > 10
    assert len(shown.all("script")) == len(plain.all("script"))
    assert not shown.all("img", src="x")
    assert shown.all("img", alt=f"{name} of {name}")


def test_a_report_without_views(tmp_path):
    shown = page(tmp_path, views=[], summary=[], curves={}, settings={}, versions={}, notes=[])
    assert "No views were evaluated." in shown.text
    assert not shown.all("img") and not shown.all("table")


def test_views_with_one_picture_or_none(tmp_path):
    views = [ReportView("one", {"render": image()}, {}), ReportView("none", {}, {"psnr": None})]
    shown = page(tmp_path, views=views)
    assert len(shown.all("img")) == 1
    assert not shown.all("input")


def test_four_pictures_offer_a_choice(tmp_path):
    names = ("render", "fixed", "reference", "ground truth")
    images = {name: image(seed=i) for i, name in enumerate(names)}
    images["reference"] = image(50, 20)
    shown = page(tmp_path, views=[ReportView("v", images, {"psnr": 1.0})])
    classes = [a.get("class") for a in shown.all("img") if a["alt"].endswith(" of v")]
    assert classes == ["left", "", "", "right"]
    shown_first = [
        [a["alt"] for a in page(tmp_path, views=[v]).all("img") if a.get("class") == "right"]
        for v in (ReportView("v", images, {}, "fixed"), ReportView("v", images, {}, "none"))
    ]
    assert shown_first == [["fixed of v"], ["ground truth of v"]]
    assert len(shown.all("select", data_side="left")) == 1
    maps = [a for a in shown.all("figure") if "data-error" in a]
    assert [a["data-error"] for a in maps] == ["render", "fixed"]
    assert ["hidden" in a for a in maps] == [False, True]  # those of the slider's two are shown


def test_numbers_that_do_not_exist(tmp_path):
    views = [view("a", psnr=float("nan")), view("b", psnr=np.float32(21.5)), view("c", psnr=None)]
    shown = page(tmp_path, views=views, notes=[])
    values = [a["data-value"] for a in shown.all("td") if "data-value" in a]
    assert values == ["", "21.5", ""]
    assert "nan" not in shown.text.lower()
    assert "n/a: there is no such number" in shown.text


def embedded(shown, tag="img"):
    return [a["src"].split(",", 1) for a in shown.all(tag)]


def sizes(shown):
    """Sizes of the JPEGs."""
    jpegs = [data for head, data in embedded(shown) if "jpeg" in head]
    return [Image.open(io.BytesIO(base64.b64decode(data))).size for data in jpegs]


def test_size_is_bounded(tmp_path, monkeypatch):
    big = {"render": image(900, 1500, 1), "ground truth": image(900, 1500, 2)}
    shown = page(tmp_path, views=[ReportView("v", big, {})])
    assert sizes(shown) == [(960, 576), (960, 576), (640, 384)]
    monkeypatch.setattr(report_module, "FULL_SIZE_PICTURES", 2)
    before = (tmp_path / "index.html").stat().st_size
    page(tmp_path, views=[ReportView("v", big, {})] * 4)
    assert (tmp_path / "index.html").stat().st_size < 1.5 * before
    views = [ReportView(f"{i}", big, {"psnr": float(i)}) for i in range(7)]
    shown = sizes(page(tmp_path, views=views))
    assert shown[:9] == [(960, 576), (960, 576), (640, 384)] * 3  # the first views stay large
    assert shown[9:] == [(480, 288), (480, 288), (320, 192)] * 4


def test_pictures_wait_until_they_are_looked_at(tmp_path):
    for picture in page(tmp_path).all("img"):
        assert picture.get("loading") == "lazy" or "scale" in picture["alt"]


def test_a_small_video_is_inside_and_a_large_one_linked(tmp_path):
    (tmp_path / "a path.mp4").write_bytes(b"small")
    shown = page(tmp_path / "report", video=tmp_path / "a path.mp4")
    assert embedded(shown, "video") == [
        ["data:video/mp4;base64", base64.b64encode(b"small").decode()]
    ]
    (tmp_path / "a path.mp4").write_bytes(bytes(VIDEO_LIMIT))
    shown = page(tmp_path / "report", video=tmp_path / "a path.mp4")
    assert not shown.all("video")
    assert shown.all("a", href="../a%20path.mp4")


def test_the_file_may_be_named(tmp_path):
    assert write_report(tmp_path / "r", report()) == tmp_path / "r" / "index.html"
    assert write_report(tmp_path / "a.html", report()) == tmp_path / "a.html"


@pytest.mark.parametrize(
    "change, error",
    [
        ({"video": "missing.mp4"}, FileNotFoundError),
        ({"video": __file__}, ValueError),
        ({"views": [ReportView("v", {"render": np.zeros((4, 4, 3))}, {})]}, ValueError),
        ({"curves": {"PSNR": [("a", "b")]}}, TypeError),
    ],
)
def test_a_report_that_fails_leaves_no_file(tmp_path, change, error):
    with pytest.raises(error):
        write_report(tmp_path / "report", report(**change))
    assert not (tmp_path / "report").exists()


def test_a_report_that_fails_keeps_the_last_one(tmp_path):
    file = write_report(tmp_path, report(title="The first"))
    with pytest.raises(FileNotFoundError):
        write_report(tmp_path, report(title="The second", video="missing.mp4"))
    assert "The first" in file.read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [file]


def test_curves_of_one_quantity_share_a_plot(tmp_path):
    curves = {"train PSNR": [(1, 2.0)], "loss": [(1, 0.1), (2, 0.05)], "held-out PSNR": [(1, 1.0)]}
    assert len(page(tmp_path, curves=curves).all("svg")) == 2


def test_a_curve_is_interrupted_where_it_has_no_value():
    svg = draw_curves(
        {"PSNR": [(0, 1.0), (1, 2.0), (2, float("nan")), (3, 3.0), (4, float("inf"))]}
    )
    line = re.search(r'class="curve c0" d="([^"]*)"', svg)[1]
    assert re.sub(r"[\d. ]", "", line) == "MLM"
    assert "nan" not in svg and "inf" not in svg
    assert draw_curves({"PSNR": [(0, float("nan"))]}) == draw_curves({}) == ""


def test_long_curves_are_thinned_to_their_end():
    svg = draw_curves({"loss": [(step, 1.0 / (step + 1)) for step in range(30_001)]})
    assert svg.count("<circle") <= 500
    assert "at step 30,000" in svg


@pytest.mark.parametrize("low, high", [(0, 1), (17.3, 24.9), (-3e-5, 2e-5), (5, 5), (0, 30_000)])
def test_ticks_are_round_and_span_the_values(low, high):
    ticks = choose_ticks(low, high, 5)
    assert ticks[0] <= low and ticks[-1] >= high
    assert 3 <= len(ticks) <= 8
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0])
