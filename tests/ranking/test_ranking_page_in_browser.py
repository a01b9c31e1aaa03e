"""The page of a ranking in headless Chromium, where that is installed: nothing wider than the window.

A page of frames, one for each width and colour scheme, holds the report and measures it; the browser starts once.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from typing import Any

import drawn_record
import pytest

from transfer.ranking.report.write import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = (320, 375, 768, 1280)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-quic"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)
MEASURE = """
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, root = page.documentElement;
    for (const details of page.querySelectorAll("details")) details.open = true;
    const covered = [];
    for (const svg of page.querySelectorAll("svg")) {
      const texts = [...svg.querySelectorAll("text")];
      const boxes = texts.map(text => text.getBoundingClientRect());
      boxes.forEach((a, i) => boxes.forEach((b, j) => {
        const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (i < j && across > 1 && down > 3) covered.push(texts[i].textContent + " / " + texts[j].textContent);
      }));
      const frame = svg.getBoundingClientRect();
      boxes.forEach((box, i) => {
        if (box.left < frame.left - 1 || box.right > frame.right + 1) covered.push("cut: " + texts[i].textContent);
      });
    }
    const style = element => page.defaultView.getComputedStyle(element);
    return {
      frame: frame.title, width: root.scrollWidth, window: root.clientWidth, covered,
      paper: style(page.body).backgroundColor, ink: style(page.body).color,
      mark: style(page.querySelector(".m-pretrained")).fill,
      broken: [...page.images].filter(image => !image.naturalWidth).length, images: page.images.length,
      wide: [...page.querySelectorAll("main *")].filter(each => !each.closest(".scroll")
        && each.getBoundingClientRect().right > root.clientWidth + 1).map(each => each.outerHTML.slice(0, 80)),
      scrolls: [...page.querySelectorAll(".scroll")].filter(box => box.scrollWidth > box.clientWidth).length,
    };
  });
  document.getElementById("found").textContent = JSON.stringify(found);
});
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the browser finds in each frame."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"needs a browser on PATH: {', '.join(BROWSERS)}")
    folder = tmp_path_factory.mktemp("page")
    record = drawn_record.drawn_record(folder, backbones=12, classes=20, pictures=1)
    drawn_record.fail(record, "lite0 frozen", "detection", 0, "Traceback\n" + "x" * 400 + "\nError: " + "/long" * 60)
    report = html.escape(write_report(record, folder)[0].read_text(encoding="utf-8"))
    frames = "".join(
        f'<iframe title="{width} {scheme}" srcdoc="{report}" height="900" '
        f'style="border:0;width:{width}px;color-scheme:{scheme}"></iframe>'
        for width in WIDTHS
        for scheme in (("light", "dark") if width == 375 else ("light",))
    )
    wrapper = folder / "frames.html"
    wrapper.write_text(
        f'<!doctype html><meta charset="utf-8"><pre id="found"></pre>{frames}<script>{MEASURE}</script>',
        encoding="utf-8",
    )
    command = [browser, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1000", "--dump-dom"]
    done = subprocess.run([*command, wrapper.as_uri()], capture_output=True, timeout=180, check=True)
    (text,) = re.findall(r'<pre id="found">(.*?)</pre>', done.stdout.decode(), re.DOTALL)
    return json.loads(html.unescape(text))


def test_the_page_is_never_wider_than_its_window(measured: list[dict[str, Any]]) -> None:
    assert [each["window"] for each in measured] == [320, 375, 375, 768, 1280]
    for each in measured:
        assert each["width"] <= each["window"], each["frame"]
        assert each["wide"] == [], each["frame"]
    assert measured[1]["scrolls"] > 10  # wide tables scroll in their own boxes


def test_no_text_of_a_chart_covers_another_or_is_cut(measured: list[dict[str, Any]]) -> None:
    for each in measured:
        assert each["covered"] == [], each["frame"]


def test_the_style_and_the_pictures_pass_the_page_s_own_policy(measured: list[dict[str, Any]]) -> None:
    light, dark = measured[1], measured[2]
    assert (light["paper"], light["mark"]) == ("rgb(255, 255, 255)", "rgb(0, 114, 178)")
    assert (dark["paper"], dark["mark"]) == ("rgb(20, 24, 29)", "rgb(86, 180, 233)")
    assert light["ink"] != dark["ink"]
    assert [(each["broken"], each["images"]) for each in measured] == [(0, 26)] * len(measured)
