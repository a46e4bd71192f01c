"""svdserve in a process of its own on free loopback ports, and its metrics."""

import json
import pathlib
import re
import signal
import subprocess
import tempfile
import time
import urllib.request

START_SECONDS = 120


class RunningServer:
    """Ready inside `with`; drained after it, with its exit code in `exit_code`."""

    def __init__(self, svdserve, model, **engine):
        """`engine`: keys of the config's engine section."""
        self.svdserve, self.exit_code = svdserve, None
        self.log = None  # a file for the log; None: our own stderr
        self.config = {  # JSON is YAML
            "model": {"directory": str(pathlib.Path(model).resolve())},
            "server": {"listen": "127.0.0.1:0"},
            "engine": engine,
            "metrics": {"listen": "127.0.0.1:0"},
            "log": {"level": "warning"}}

    def __enter__(self):
        self.scratch = tempfile.TemporaryDirectory()
        folder = pathlib.Path(self.scratch.name)
        config, ports = folder / "config.yaml", folder / "ports"
        config.write_text(json.dumps(self.config))
        self.process = subprocess.Popen(
            [self.svdserve, "--config", config, "--ports-file", ports], stderr=self.log)
        deadline = time.monotonic() + START_SECONDS
        while not (ports.exists() and ports.read_text().endswith("\n")):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise SystemExit(f"svdserve was not ready; exit code {self.process.wait()}")
            time.sleep(0.05)
        bound = dict(line.split() for line in ports.read_text().splitlines())
        self.address = "127.0.0.1:" + bound["grpc"]
        self.metrics_url = f"http://127.0.0.1:{bound['metrics']}/metrics"
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.exit_code = self.process.wait()
        self.scratch.cleanup()

    def metrics(self):
        """{'name{labels}': value} of one scrape."""
        with urllib.request.urlopen(self.metrics_url, timeout=10) as reply:
            lines = reply.read().decode().splitlines()
        rows = (re.fullmatch(r"([^# ]\S*(?: \S+)*) (\S+)", line) for line in lines)
        return {row[1]: float(row[2]) for row in rows if row}

    def cpu_seconds(self):
        return self.metrics()["process_cpu_seconds_total"]
