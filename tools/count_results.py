#!/usr/bin/env python3
"""Counts what tools/test ran and prints `N passed, N failed, N skipped`.

  tools/count_results.py DIRECTORY

Reads DIRECTORY/PRESET.xml (ctest's JUnit file) with DIRECTORY/PRESET/*.xml (one
file of googletest's a binary, so that its cases are counted one by one), and
DIRECTORY/*.txt with lines `passed|failed|skipped NAME`. Exits 1 if anything
failed or nothing passed.
"""

import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def gtest_cases(path):
    """(outcome, name, reason) of every case in a googletest file."""
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        skipped = case.find("skipped")
        if case.find("failure") is not None:
            yield "failed", name, ""
        elif skipped is not None:
            yield "skipped", name, (skipped.get("message") or "").strip()
        elif case.get("status") == "run":
            yield "passed", name, ""


def ctest_cases(path):
    """The same of a ctest file, and of the googletest files beside it."""
    outcomes = {"run": "passed", "fail": "failed"}
    for test in ElementTree.parse(path).getroot().iter("testcase"):
        name = test.get("name")
        outcome = outcomes.get(test.get("status"), "skipped")
        details = path.with_suffix("") / f"{name}.xml"
        cases = []
        if details.exists() and outcome != "skipped":
            cases = list(gtest_cases(details))
            yield from ((o, f"{name}: {n}", r) for o, n, r in cases)
        # A crash, a time-out or a leak at exit is a failure of its own.
        if outcome == "failed" and all(c[0] != "failed" for c in cases):
            yield "failed", name, ""
        elif not cases:
            skipped = test.find("skipped")
            reason = "" if skipped is None else skipped.get("message") or ""
            if reason.startswith("Unable to find executable"):
                outcome = "failed"  # it was not built
            yield outcome, name, reason


def all_cases(directory):
    for path in sorted(directory.glob("*.xml")):
        for outcome, name, reason in ctest_cases(path):
            yield outcome, f"{path.stem}: {name}", reason
    for path in sorted(directory.glob("*.txt")):
        for line in path.read_text().splitlines():
            outcome, _, name = line.partition(" ")
            if outcome in ("passed", "failed", "skipped"):
                yield outcome, f"{path.stem}: {name}", ""


def main(directory):
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for outcome, name, reason in all_cases(pathlib.Path(directory)):
        counts[outcome] += 1
        if outcome != "passed":
            print(f"{outcome}: {name}" + (f" ({reason})" if reason else ""))
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    sys.exit(counts["failed"] > 0 or counts["passed"] == 0)


if __name__ == "__main__":
    main(sys.argv[1])
