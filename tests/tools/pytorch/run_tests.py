#!/usr/bin/env python3
"""Tests of tools/pytorch.

    run_tests.py [--svdserve PATH --svdctl PATH] [NAME ...]

Runs *_test.py, or the tests NAMEd (load_save_test.Saving). Exits with 77
(skipped) where the packages of tools/pytorch/requirements.txt are not installed;
what needs the two programs is skipped, and says so, without them.
"""

import argparse
import importlib.util
import os
import pathlib
import sys
import unittest

FOLDER = pathlib.Path(__file__).resolve().parent
ROOT = FOLDER.parents[2]
NEEDED = ["torch", "transformers", "sentence_transformers", "safetensors"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--svdserve", type=pathlib.Path)
    parser.add_argument("--svdctl", type=pathlib.Path)
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"SKIPPED: {', '.join(missing)} not installed; see tools/pytorch/README.md")
        return 77
    for name in ("svdserve", "svdctl"):
        if getattr(args, name):
            os.environ[f"TEST_{name.upper()}"] = str(getattr(args, name).resolve())
    os.environ["HF_HUB_OFFLINE"] = "1"  # all is here
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    sys.path[:0] = [str(ROOT), str(ROOT / "tools/pytorch"), str(ROOT / "tests/bench")]
    loader = unittest.defaultTestLoader
    names = [f"tests.tools.pytorch.{name}" for name in args.names or sorted(f.stem for f in FOLDER.glob("*_test.py"))]
    result = unittest.TextTestRunner(verbosity=2).run(loader.loadTestsFromNames(names))
    return 0 if result.wasSuccessful() and result.testsRun > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
