#!/usr/bin/env python3
"""What the host does for each request and token, beside a device that computes nothing.

    tests/bench/host_path/host_path.py --model models/minilm-r50 [--bin build/release]

Runs idle_server (svdserve with the device of idle_backend.cc, whose time per
batch is --device) and svdctl load against it; prints, for requests of several
sizes, tokens a second and processor time by the server's groups of threads:
`worker` drives the device, `finish` answers, `text` tokenizes, `grpc` is all else.
Processor time carries over to a machine with a GPU; tokens a second are those
of this machine's cores, which the client shares.
"""

import argparse
import collections
import json
import os
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import corpus  # noqa: E402  pylint: disable=wrong-import-position
from bench_common import run_json, write_result  # noqa: E402  pylint: disable=wrong-import-position
from running_server import RunningServer  # noqa: E402  pylint: disable=wrong-import-position

TICK = os.sysconf("SC_CLK_TCK")
# name, lengths, inputs of a request, requests in flight
LEVELS = [("1x16", "fixed:16", 1, 64), ("1x128", "fixed:128", 1, 256), ("8x128", "fixed:128", 8, 64),
          ("64x128", "fixed:128", 64, 32), ("64 texts", None, 64, 32)]
GROUPS = {"svd-device": "worker", "svd-finish": "finish", "svd-text": "text"}


def thread_seconds(pid):
    """Processor time by group of threads."""
    seconds = collections.Counter()
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            name = (task / "comm").read_text().strip()
            run_ns = int((task / "schedstat").read_text().split()[0])
        except OSError:  # it ended
            continue
        seconds[GROUPS.get(name, "grpc")] += 1e-9 * run_ns
    return seconds


def load(svdctl, server, seconds, *options):
    return run_json([svdctl, "load", "--json", "--server", server.address, "--truncate",
                     "--duration", seconds, *options])


def level(svdctl, server, seconds, name, lengths, inputs, in_flight):
    before, metrics = thread_seconds(server.process.pid), server.metrics()
    result = load(svdctl, server, seconds, "--warmup", 0.5, "--lengths", lengths, "--inputs", inputs,
                  "--saturate", in_flight)
    after, grown = thread_seconds(server.process.pid), server.metrics()
    tokens = grown["svdserve_tokens_total"] - metrics["svdserve_tokens_total"]
    batches = grown["svdserve_batch_tokens_count"] - metrics["svdserve_batch_tokens_count"]
    requests = sum(v - metrics.get(k, 0) for k, v in grown.items() if k.startswith("svdserve_requests_total"))
    used = {group: after[group] - before[group] for group in after}
    return {"name": name, "tokens_per_second": result["ok_tokens_per_second"],
            "requests_per_second": result["ok_requests_per_second"],
            "mean_batch_tokens": tokens / max(batches, 1),
            "statuses": {code: row["requests"] for code, row in result["by_status"].items()},
            "us_per_request": {g: 1e6 * s / requests for g, s in used.items()},
            "ns_per_token": {g: 1e9 * s / tokens for g, s in used.items()},
            "us_per_batch_worker": 1e6 * used["worker"] / max(batches, 1),
            "client_us_per_request": 1e6 * result["client_cpu_share"] * os.cpu_count()
            / max(result["ok_requests_per_second"], 1)}


def lone(svdctl, server, seconds):
    result = load(svdctl, server, seconds, "--warmup", 0.5, "--lengths", "fixed:16", "--rate", 50,
                  "--arrivals", "uniform")
    latency = result["by_status"]["OK"]["latency_seconds"]
    return {"p50_ms": 1e3 * latency["p50"], "p99_ms": 1e3 * latency["p99"],
            "stages_p50_ms": {k: 1e3 * v["p50"] for k, v in result["stages_seconds"].items()}}


def show(row):
    print(f"{row['name']:<9}{row['tokens_per_second']:>12,.0f} tokens/s{row['requests_per_second']:>10,.0f} requests/s, "
          f"batches of {row['mean_batch_tokens']:>7,.0f}, worker {row['us_per_batch_worker']:>6.0f} us a batch; "
          "us a request:", ", ".join(f"{g} {us:.1f}" for g, us in sorted(row["us_per_request"].items())),
          f"(client {row['client_us_per_request']:.1f}); ns a token:",
          f"{sum(row['ns_per_token'].values()):.1f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--bin", type=pathlib.Path, default=pathlib.Path("build/release"))
    parser.add_argument("--device", default="100 40 0", help="BATCH_US NS_PER_TOKEN LAUNCH_US")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--only", default="", help="of the names of levels, or lone")
    parser.add_argument("--tokenizer-threads", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    svdctl = args.bin / "tools/svdctl"
    os.environ["IDLE_DEVICE"] = args.device
    result = {"device": args.device, "levels": []}
    with tempfile.TemporaryDirectory() as folder, RunningServer(
            args.bin / "tests/bench/host_path/idle_server", args.model, queue_budget="8GiB",
            tokenizer_threads=args.tokenizer_threads) as server:
        texts = pathlib.Path(folder) / "texts"
        texts.write_text("".join(" ".join(text.split()) + "\n" for text in corpus.make_texts(500)))
        if args.only in "lone":
            result["lone"] = lone(svdctl, server, args.seconds + 1)
            print("lone query:", json.dumps(result["lone"]), flush=True)
        for name, lengths, inputs, in_flight in LEVELS:
            if args.only in name:
                row = level(svdctl, server, args.seconds, name, lengths or f"file:{texts}", inputs, in_flight)
                result["levels"].append(row)
                show(row)
    if args.out:
        write_result("host_path", result, args.out.resolve())


if __name__ == "__main__":
    main()
