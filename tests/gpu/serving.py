"""The programs of a server bundle, for serve_check: a server and its clients."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "bench"))
import bench_common  # noqa: E402,F401  pylint: disable=wrong-import-position,unused-import
import running_server  # noqa: E402  pylint: disable=wrong-import-position

BUNDLE = ROOT if (ROOT / "bin").is_dir() else ROOT / "build" / "server-bundle"
SVDCTL = BUNDLE / "bin" / "svdctl"
os.environ["LD_LIBRARY_PATH"] = f"{BUNDLE / 'lib'}:{os.environ.get('LD_LIBRARY_PATH', '')}"
running_server.START_SECONDS = 20


class Server(running_server.RunningServer):
    """svdserve with a JSON log that can be asked."""
    current = None  # what a timeout ends

    def __init__(self, model, **engine):
        super().__init__(BUNDLE / "bin" / "svdserve", model, **engine)
        self.config["log"] = {"level": "info", "format": "json"}

    def __enter__(self):
        self.log = tempfile.TemporaryFile("w+")
        begin = time.monotonic()
        try:
            super().__enter__()
        except SystemExit as error:
            raise RuntimeError(f"{error}; its log:\n{self.log_text()}") from error
        self.start_seconds = time.monotonic() - begin
        Server.current = self
        return self

    def __exit__(self, *details):
        super().__exit__(*details)
        Server.current = None

    def log_text(self):
        self.log.seek(0)
        return self.log.read()

    def logged(self, message):
        """The fields of the first line with that message."""
        lines = (json.loads(line) for line in self.log_text().splitlines() if line.startswith("{"))
        return next((line for line in lines if line["message"] == message), {})

    def problems(self):
        return [line for line in self.log_text().splitlines()
                if '"level":"warning"' in line or '"level":"error"' in line]


def run(argv):
    """What the program prints."""
    done = subprocess.run([str(a) for a in argv], check=False, text=True, capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f"{argv[0]} failed with exit code {done.returncode}: {done.stderr[-1000:]}")
    return done.stdout


def load(server, seconds, *options):
    """What svdctl load says of a server's answers."""
    return json.loads(run([SVDCTL, "load", "--json", "--server", server.address, "--truncate",
                           "--duration", seconds, *options]))


def embed(server, texts):
    """For each line of a file of texts its vector, and how many tokens it has."""
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "vectors.jsonl"
        run([SVDCTL, "embed", "--server", server.address, "--truncate", "--normalize",
             "--input", texts, "--output", output])
        rows = [json.loads(line) for line in output.read_text().splitlines()]
    return [row["embedding"] for row in rows], [row["tokens"] for row in rows]


def saturate(server, inputs, in_flight, lengths="fixed:128"):
    """Speed with so many requests in flight, and what it took."""
    before, begin = server.metrics(), time.monotonic()
    result = load(server, 3, "--warmup", "1", "--lengths", lengths, "--inputs", inputs, "--saturate", in_flight)
    after, seconds = server.metrics(), time.monotonic() - begin

    def grown(name):
        return after[name] - before[name]

    batches = max(grown("svdserve_batch_tokens_count"), 1)
    return {"lengths": lengths, "inputs": inputs, "in_flight": in_flight,
            "ok_tokens_per_second": result["ok_tokens_per_second"],
            "ok_requests_per_second": result["ok_requests_per_second"],
            "p50_seconds": result["by_status"]["OK"]["latency_seconds"]["p50"],
            "statuses": {code: row["requests"] for code, row in result["by_status"].items()},
            "mean_batch_tokens": grown("svdserve_batch_tokens_sum") / batches,
            "mean_batch_seconds": grown("svdserve_batch_compute_seconds_sum") / batches,
            "client_cpu_share": result["client_cpu_share"],
            "server_cores": grown("process_cpu_seconds_total") / seconds}
