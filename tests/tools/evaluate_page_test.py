#!/usr/bin/env python3
"""The page of `svdctl evaluate` in a real browser, headless Chromium.

    evaluate_page_test.py PATH_OF_SVDCTL [--screenshots FOLDER]

Makes reports of golden models and looks at their pages at 400 and 1280 pixels,
light and dark: nothing is fetched, nothing goes to the console, nothing
overflows, texts stay texts, and every figure is that of the JSON report. Exits
with 77 (skipped) where no Chromium is installed. Talks the DevTools protocol
over pipes, so that it needs nothing but Python.
"""

import argparse
import base64
import contextlib
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "models"
MANY_RATIOS = [round(0.94 - 0.04 * i, 2) for i in range(16)]
HOSTILE = [
    "<script>document.title = 'taken'; console.error('ran')</script>",
    "<img src=x onerror=\"console.error('ran')\"> & <b>bold</b>",
    "</script><script>console.error('ran')</script><!-- \\u003c/script>",
    "a line\u2028separator and \u202e the other way",
]


class Browser:
    """One headless Chromium with one tab."""

    def __init__(self, program, profile):
        ours_read, theirs_write = os.pipe()
        theirs_read, ours_write = os.pipe()

        def connect():  # the protocol is on file descriptors 3 and 4
            saved = os.dup(theirs_write)
            os.dup2(theirs_read, 3)
            os.dup2(saved, 4)

        self.process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--remote-debugging-pipe", "--no-first-run", "--disable-extensions", "--hide-scrollbars",
             "--disable-background-networking", f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=connect, close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        os.close(theirs_read)
        os.close(theirs_write)
        self.input = os.fdopen(ours_read, "rb", buffering=0)
        self.output = ours_write
        self.numbers = itertools.count(1)
        self.pending = b""
        self.events = []
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def receive(self):
        while b"\0" not in self.pending:
            more = self.input.read(1 << 16)
            if not more:
                sys.exit("FAILED: Chromium ended")
            self.pending += more
        message, self.pending = self.pending.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **parameters):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.output, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == number:
                if "error" in answer:
                    sys.exit(f"FAILED: {method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def run(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            sys.exit(f"FAILED: {expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def open(self, url, width, scheme):
        """Shows the page; returns the methods and parameters of what happened."""
        self.events.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=url)
        while not any(e["method"] == "Page.loadEventFired" for e in self.events if "method" in e):
            self.events.append(self.receive())
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return [(e["method"], e["params"]) for e in self.events if "method" in e]

    def screenshot(self, path):
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        image = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        path.write_bytes(base64.b64decode(image))

    def close(self):
        self.process.terminate()
        self.process.wait()


def value_at(report, path):
    value = report
    for key in path.split("."):
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def is_shown(text, value):
    """Whether `text`, such as "12.3 %" or "1.50 MB", is `value` rounded."""
    if value is None:
        return text == "–"
    match = re.fullmatch(r"(-?[\d.]+)(e[+-]\d+)? ?(%|[TGMk]?B?)", text)
    if not match:
        return False
    number, exponent, unit = match.groups()
    scale = 0.01 if unit == "%" else {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3}.get(unit[:1], 1)
    scale *= float("1" + exponent) if exponent else 1
    digits = len(number.partition(".")[2])
    return abs(float(number) * scale - value) <= 0.5001 * 10 ** -digits * scale


def contrast(one, other):
    """WCAG's contrast ratio of two colours such as "rgb(42, 111, 187)"; graphics need 3."""

    def luminance(color):
        channels = [int(c) / 255 for c in re.findall(r"\d+", color)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear))

    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


class Page:
    """A page and the report that it shows; check_* add to `errors`."""

    def __init__(self, browser, html, report, name):
        self.browser, self.url, self.report, self.name = browser, html.as_uri(), report, name
        self.errors = []
        self.where = ""

    def expect(self, holds, message):
        if not holds:
            self.errors.append(f"{self.name}, {self.where}: {message}")

    def check(self, width, scheme, screenshots):
        self.where = f"{width} px, {scheme}"
        events = self.browser.open(self.url, width, scheme)
        self.check_events(events)
        self.check_layout(width)
        self.check_figures()
        self.check_accessible()
        self.check_styles()
        self.check_texts()
        if screenshots:
            self.browser.screenshot(screenshots / f"{self.name}-{width}-{scheme}.png")
        return self.browser.run("getComputedStyle(document.body).backgroundColor")

    def check_events(self, events):
        for method, parameters in events:
            self.expect(method not in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"),
                        f"{method}: {json.dumps(parameters)[:300]}")
            if method == "Network.requestWillBeSent":
                url = parameters["request"]["url"]
                self.expect(url == self.url or url.startswith("data:"), f"asks for {url}")

    def check_layout(self, width):
        self.expect(self.browser.run("document.documentElement.scrollWidth") <= width, "is wider than its window")
        outside = self.browser.run("""[...document.querySelectorAll("svg")].filter(plot => {
            const box = plot.getBoundingClientRect();
            return [...plot.querySelectorAll("text, rect, circle, path")].some(e => {
              const r = e.getBoundingClientRect();
              return r.left < box.left - 1 || r.right > box.right + 1 || r.top < box.top - 1 ||
                     r.bottom > box.bottom + 1;
            });
          }).map(plot => plot.textContent.slice(0, 40))""")
        self.expect(not outside, f"something lies outside of {outside}")

    def check_figures(self):
        shown = self.browser.run("""[...document.querySelectorAll("[data-path]")]
            .map(e => [e.dataset.path, e.textContent])""")
        self.expect(len(shown) >= 10, f"shows {len(shown)} figures")
        for path, text in shown:
            if text != "100.0 %":  # the dense model's share of itself
                self.expect(is_shown(text, value_at(self.report, path)), f"{path} is shown as {text}")
        for i, model in enumerate(self.report["models"]):
            if "embedding" in model:
                bars = self.browser.run(f"""[...document.querySelectorAll("#model-{i} figure:first-child rect title")]
                    .map(t => Number(t.textContent.match(/: (\\d+) texts/)[1]))""")
                self.expect(bars == model["embedding"]["cosine"]["histogram"]["counts"], "another histogram")
            cells = self.browser.run(f"""[...document.querySelectorAll("#model-{i} .heat td")]
                .map(td => td.firstChild.textContent)""")
            ranks = [str(m["rank"] or "dense") for layer in model["layers"] for m in layer.values()]
            self.expect(cells == ranks, f"ranks {cells}")

    def check_accessible(self):
        unnamed = self.browser.run("""[...document.querySelectorAll("svg:not(.key)")].filter(plot =>
            plot.getAttribute("role") !== "img" ||
            !plot.getAttribute("aria-labelledby").split(" ").every(
                id => document.getElementById(id)?.textContent)).length""")
        self.expect(unnamed == 0, f"{unnamed} plots have no title or description")
        alone = self.browser.run("""[...document.querySelectorAll("figure:has(svg)")]
            .filter(f => !f.querySelector("details table tbody tr")).length""")
        self.expect(alone == 0, f"{alone} plots have no table beside them")
        self.expect(self.browser.run("""document.querySelectorAll("svg:not(.key)").length""") > 0, "has no plots")

    def check_styles(self):
        """Models are told apart by hue and marker, which the legends show; both stand out from what is behind."""
        count = len(self.report["models"])
        styles = self.browser.run("""(() => {
            const style = marker => [getComputedStyle(marker).fill, marker.getAttribute("d")];
            return {
              legends: [...document.querySelectorAll("ul.legend")].map(
                  legend => [...legend.querySelectorAll(".marker")].map(style)),
              titles: [...document.querySelectorAll("h2 .marker")].map(style),
              plots: [...document.querySelectorAll("figure:has(.legend) svg:not(.key)")].map(
                  plot => [...plot.querySelectorAll(".marker")].map(style)),
              dashes: [...document.querySelectorAll(".plots > .wide polyline")].map(
                  line => [getComputedStyle(line).stroke, getComputedStyle(line).strokeDasharray]),
              surface: getComputedStyle(document.querySelector("figure")).backgroundColor,
            };
          })()""")
        titles = [tuple(style) for style in styles["titles"]]
        self.expect(len(set(titles)) == count, f"{len(set(titles))} styles of {count} models")
        self.expect(len(styles["legends"]) == len(styles["plots"]) and (count == 1 or len(styles["plots"]) >= 2),
                    "plots or legends are missing")
        for legend, plot in zip(styles["legends"], styles["plots"]):
            self.expect([tuple(s) for s in legend] == titles, "a legend has other styles than the titles")
            self.expect({tuple(s) for s in plot} <= set(titles), "a plot has styles that no legend shows")
            self.expect(len({tuple(s) for s in plot}) == count, "two models look alike in a plot")
        for hue, _ in titles:
            self.expect(contrast(hue, styles["surface"]) >= 3, f"{hue} is hard to see on {styles['surface']}")
        lines = {tuple(line) for line in styles["dashes"]}
        self.expect(len(lines) == min(count, 24), f"{len(lines)} styles of the lines of {count} models")

    def check_texts(self):
        for i, model in enumerate(self.report["models"]):
            texts = self.browser.run(f"""[...document.querySelectorAll("#model-{i} .worst td.text")]
                .map(td => td.textContent)""")
            self.expect(texts == [w["text"] for w in model["worst"]], "other texts than the report's")
            hidden = [t for t in HOSTILE if t not in texts]
            self.expect(len(texts) == 10 or not hidden, f"does not show {hidden}")
        self.expect(self.browser.run("document.querySelectorAll('img, td b, td script').length") == 0,
                    "made elements of a text")
        self.expect(self.browser.run("document.title").startswith("Fidelity"), "another title")


def make_report(svdctl, golden, ratios, scratch):
    """A golden model, compressed to each ratio: the page's path and the report.

    For one ratio the hostile texts are all, so that they are the worst; else there are many others.
    """
    folder = scratch / golden
    folder.mkdir()
    source = GOLDEN / golden
    inputs = json.loads((source / "golden.json").read_text())
    texts = HOSTILE
    if len(ratios) > 1:
        texts = texts + [i["text"].replace("\n", " ") for i in inputs["inputs"] if i.get("text")]
        texts += [f"text {i} of many" for i in range(30)]
    (folder / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    models = []
    for ratio in ratios:
        models.append(folder / f"{golden}-{ratio}")
        subprocess.run([svdctl, "compress", source, models[-1], "--method", "svd", "--ratio", str(ratio)], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    page, report = folder / "report.html", folder / "report.json"
    subprocess.run([svdctl, "evaluate", source, *models, "--text", folder / "texts.txt", "--html", page, "--json",
                    report], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return page, json.loads(report.read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("svdctl", type=pathlib.Path)
    parser.add_argument("--screenshots", type=pathlib.Path)
    args = parser.parse_args()
    program = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
    if program is None:
        print("SKIPPED: no Chromium is installed")
        sys.exit(77)
    errors = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        reports = {golden: make_report(args.svdctl.resolve(), golden, ratios, scratch) for golden, ratios in
                   [("mean_normalize", [0.5]), ("cls_head64", [0.8, 0.5]), ("classify_5_labels_bf16", [0.6, 0.4]),
                    ("rerank_1_label", [0.5]), ("plain_f16", MANY_RATIOS)]}
        with contextlib.closing(Browser(program, scratch / "profile")) as browser:
            for name, (html, report) in reports.items():
                page = Page(browser, html, report, name)
                for width in (400, 1280):
                    light, dark = (page.check(width, scheme, args.screenshots) for scheme in ("light", "dark"))
                    page.expect(light != dark, "is the same in both colour schemes")
                errors += page.errors
    if errors:
        print("\n".join(f"FAILED: {error}" for error in errors))
        sys.exit(1)
    print(f"passed: {len(reports)} pages, each at two widths and in two colour schemes")


if __name__ == "__main__":
    main()
