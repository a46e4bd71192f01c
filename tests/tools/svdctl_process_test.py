#!/usr/bin/env python3
"""`svdctl compress` and `svdctl evaluate` as processes, given what is wrong.

    svdctl_process_test.py PATH_OF_SVDCTL [NAME ...]

Each bad input is a non-zero exit code and one line that says what was wrong, and nothing is written; so are
an interruption and a full disk. Needs nothing but Python.
"""

import json
import math
import os
import pathlib
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import unittest

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "models"
WORDS = "the a of and to in is it that for was on are as with his they at be this".split()
SVDCTL = None  # the program


def sentences(count):
    return "".join(" ".join(WORDS[(i * 7 + j * (1 + i % 5)) % len(WORDS)] for j in range(4 + i % 9)) + "\n"
                   for i in range(count))


def set_weight(model, value):
    """Makes the first number of a matrix `value`, in the file as it lies."""
    path = model / "model.safetensors"
    data = bytearray(path.read_bytes())
    header = struct.unpack_from("<Q", data)[0]
    entry = json.loads(data[8:8 + header])["encoder.layer.0.attention.self.query.weight"]
    assert entry["dtype"] == "F32"
    struct.pack_into("<f", data, 8 + header + entry["data_offsets"][0], value)
    path.write_bytes(data)


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


class SvdctlTest(unittest.TestCase):
    """A folder with a dense model `in`, a text `text`, and copies of the model that tests damage."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.copy("in")
        self.write("text", sentences(400))

    def copy(self, name, golden="mean_normalize"):
        shutil.copytree(GOLDEN / golden, self.root / name)
        return self.root / name

    def write(self, name, contents):
        if isinstance(contents, str):
            contents = contents.encode()
        (self.root / name).write_bytes(contents)

    def run_svdctl(self, *args, **options):
        return subprocess.run([SVDCTL, *map(str, args)], cwd=self.root, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=120, **options)

    def expect_refused(self, args, message, code=1, **options):
        """One line of error, which holds `message`, and no file more or less."""
        with self.subTest(args=" ".join(map(str, args))):
            before = listing(self.root)
            done = self.run_svdctl(*args, **options)
            lines = [line for line in done.stderr.splitlines() if line.startswith("svdctl")] or [done.stderr]
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertEqual(len(lines), 1, done.stderr)
            self.assertIn(message, lines[0])
            self.assertEqual(listing(self.root), before)

    def expect_compress_refused(self, message, *args, model="in", output="out", code=1, **options):
        if "--calibration" not in args and "svd" not in args:
            args = (*args, "--calibration", "text")
        self.expect_refused(["compress", model, output, *args], message, code, **options)


class CompressTest(SvdctlTest):
    def test_what_is_right_is_done(self):
        done = self.run_svdctl("compress", "in", "out", "--calibration", "text")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue((self.root / "out" / "model.safetensors").exists())

    def test_weights_that_are_no_numbers(self):
        for name, value in (("nan", math.nan), ("inf", math.inf)):
            set_weight(self.copy(name), value)
            for method in ("auto", "svd"):
                self.expect_compress_refused(
                    "\"encoder.layer.0.attention.self.query.weight\": holds NaN or infinity", "--method", method,
                    model=name)

    def test_calibration_text(self):
        self.write("empty", "")
        self.write("tiny", "one line\n")
        self.write("binary", bytes(range(256)) * 100)
        (self.root / "folder").mkdir()
        for name, message in (("empty", "holds no text"), ("tiny", "has only"), ("folder", "holds no text"),
                              ("binary", "holds a zero byte"), ("none", "no such file")):
            self.expect_compress_refused(message, "--calibration", name)
        self.write("secret", sentences(400))
        (self.root / "secret").chmod(0)
        if not os.access(self.root / "secret", os.R_OK):  # root may read all
            self.expect_compress_refused("secret: cannot be read", "--calibration", "secret")

    def test_budgets(self):
        for ratio in ("0", "1", "1.5", "nan", "-1"):
            for method in ("auto", "svd"):
                self.expect_compress_refused(f"ratio {ratio}: want a number above 0 and below 1", "--ratio", ratio,
                                             "--method", method)
        self.expect_compress_refused("too small for this model", "--ratio", "0.001")
        self.expect_compress_refused("cosine 1.2: want a number above 0 and below 1", "--min-cosine", "1.2")
        self.expect_compress_refused("the least is", "--max-activation-bytes-per-token", "1")
        self.expect_compress_refused("Requires at most 1", "--ratio", "0.5", "--min-cosine", "0.9", code=106)

    def test_numbers_out_of_range(self):
        for option, value in (("--threads", "-1"), ("--seed", "-1"), ("--calibration-tokens", "5")):
            self.expect_compress_refused(option, option, value, code=105)
        self.expect_compress_refused("F32, F16 or BF16", "--dtype", "int8")
        self.expect_compress_refused("known: auto, whitened, component, svd", "--method", "asvd")

    def test_models_that_are_none_or_compressed(self):
        for golden in ("factored", "narrow_heads_f16"):
            self.expect_compress_refused("is compressed already", model=self.copy(golden, golden))
        other = self.copy("gpt2") / "config.json"
        other.write_text(json.dumps(json.loads(other.read_text()) | {"model_type": "gpt2"}))
        self.expect_compress_refused("\"gpt2\"; served are bert, roberta", model="gpt2")
        without = self.copy("without")
        for name in ("tokenizer.json", "vocab.txt"):
            (without / name).unlink()
        self.expect_compress_refused("holds neither tokenizer.json nor vocab.txt", model="without")
        (without / "config.json").unlink()
        self.expect_compress_refused("config.json: no such file", model="without")
        self.expect_compress_refused("config.json: no such file", model="absent")

    def test_places_of_the_output(self):
        self.expect_compress_refused("lies in the input in", output="in/out")
        self.expect_compress_refused("is, or lies in, the output", output="in")
        self.expect_compress_refused("text exists; choose another name", output="text")
        self.expect_compress_refused("none/page.html cannot be written", "--html", "none/page.html")
        self.expect_compress_refused("is there and is no file", "--html", "in")

    def test_an_interruption_leaves_nothing(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            code, left = self.interrupt(number, times=1)
            self.assertEqual(code, 1)
            self.assertIn("CANCELLED: interrupted; nothing was written", left)
            self.assertEqual(sorted(p.name for p in self.root.iterdir()), ["in", "text"])

    def test_a_second_signal_kills(self):
        self.assertEqual(self.interrupt(signal.SIGTERM, times=2)[0], -signal.SIGINT)

    def interrupt(self, number, times):
        """Signals a run that waits for its text, then gives it; its exit code and what it said after that."""
        pipe = self.root / "pipe"
        os.mkfifo(pipe)
        process = subprocess.Popen([SVDCTL, "compress", "in", "out", "--calibration", pipe], cwd=self.root,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        with process, open(pipe, "w", encoding="utf-8") as text:  # open: it reads
            pipe.unlink()
            self.assertTrue(list(self.root.glob("out.tmp-*")))
            process.send_signal(number)
            while "stopping" not in process.stderr.readline():
                self.assertIsNone(process.poll())
            if times == 2:
                process.send_signal(signal.SIGINT)  # of another kind
                process.wait()
            else:
                text.write(sentences(400))
                text.close()
            return process.wait(), process.stderr.read()

    def test_a_limit_on_files_leaves_nothing(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

        for method in ("auto", "svd"):
            self.expect_compress_refused("model.safetensors", "--method", method, preexec_fn=limit)

    def test_a_full_disk_leaves_nothing(self):
        disk = self.root / "disk"
        disk.mkdir()
        # A disk of that many KiB in a mount namespace of its own; it ends with what is left on it.
        script = "mount -t tmpfs -o size=\"$1\"k none disk && shift && \"$@\"; code=$?; ls -A disk; exit $code"
        if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", disk], capture_output=True,
                          check=False).returncode:
            self.skipTest("no disk can be mounted here")
        for method in ("auto", "svd"):
            for size in (16, 60, 120, 200):
                with self.subTest(method=method, size=size):
                    done = subprocess.run(
                        ["unshare", "-rm", "sh", "-c", script, "sh", str(size), SVDCTL, "compress", "in", "disk/out",
                         "--method", method, "--calibration", "text"], cwd=self.root, capture_output=True, text=True,
                        timeout=120, check=False)
                    self.assertEqual(done.returncode, 1, done.stderr)
                    self.assertIn("No space left on device", done.stderr)
                    self.assertIn(f"{disk}/out.tmp-", done.stderr)
                    self.assertEqual(done.stdout, "")


class EvaluateTest(SvdctlTest):
    def setUp(self):
        super().setUp()
        done = self.run_svdctl("compress", "in", "small", "--method", "svd")
        self.assertEqual(done.returncode, 0, done.stderr)

    def expect_evaluate_refused(self, message, *args, model="small", text="text", code=1):
        self.expect_refused(["evaluate", "in", model, "--text", text, *args], message, code)

    def test_one_text_is_enough(self):
        self.write("one", "a single line\n")
        done = self.run_svdctl("evaluate", "in", "small", "--text", "one", "--html", "page", "--json", "report")
        self.assertEqual(done.returncode, 0, done.stderr)
        model = json.loads((self.root / "report").read_text())["models"][0]
        self.assertIsNone(model["embedding"]["neighbours"]["recall_at_1"])

    def test_texts(self):
        self.write("empty", "")
        self.write("binary", bytes(range(256)) * 100)
        for text, message in (("empty", "holds no text"), ("binary", "holds a zero byte"),
                              ("none", "No such file"), ("in", "is a directory")):
            self.expect_evaluate_refused(message, text=text)

    def test_models(self):
        self.expect_evaluate_refused("hidden size 64 in the dense model, 128", model=GOLDEN / "narrow_heads_f16")
        self.expect_evaluate_refused("make other tokens of text 1", model=GOLDEN / "roberta")
        self.expect_evaluate_refused("none/config.json: no such file", model="none")

    def test_outputs_and_numbers(self):
        self.expect_evaluate_refused("none/page.html cannot be written", "--html", "none/page.html")
        self.expect_evaluate_refused("is there and is no file", "--html", "in")
        self.expect_evaluate_refused("name the same file", "--html", "x", "--json", "x")
        for option in ("--threads", "--seed"):
            self.expect_evaluate_refused(option, option, "-1", code=105)


if __name__ == "__main__":
    SVDCTL = pathlib.Path(sys.argv.pop(1)).resolve()
    unittest.main()
