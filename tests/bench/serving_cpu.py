#!/usr/bin/env python3
"""What gRPC, tokenization and scheduling leave of the engine's speed.

    tests/bench/serving_cpu.py --model models/minilm-r50 [--bin build/release]

Throughput: the engine alone (encoder_cpu, batches of the size that the server
forms) and the server at saturation, each measured once a round, in turn; texts
and batches of 128 tokens. The client runs on the same processors: what it takes
is stated. Then a lone 16-token query, at rest and while bulk requests saturate
the server: its p99 should stay within two batch times.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from bench_common import run_json, write_result
from running_server import RunningServer

BATCH = "16x128"  # 2,048 tokens: the default batch of two threads
IN_FLIGHT = 64


def lone_queries(svdctl, server, seconds):
    return run_json([svdctl, "load", "--json", "--server", server.address, "--lengths", "fixed:16",
                     "--rate", "10", "--duration", seconds])


def beside_bulk(svdctl, server, seconds):
    """Lone queries while others keep the server full: (their run, median seconds of a bulk batch)."""
    with tempfile.TemporaryDirectory() as folder:
        result = pathlib.Path(folder) / "bulk.json"
        with subprocess.Popen(
                [svdctl, "load", "--server", server.address, "--lengths", "fixed:128", "--inputs", "16",
                 "--saturate", "8", "--duration", str(seconds + 4), "--output", result],
                stdout=subprocess.DEVNULL):
            time.sleep(2)
            run = lone_queries(svdctl, server, seconds)
        bulk = json.loads(result.read_text())
    return run, bulk["stages_seconds"]["compute"]["p50"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--bin", type=pathlib.Path, default=pathlib.Path("build/release"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6)
    args = parser.parse_args()
    svdctl = args.bin / "tools/svdctl"

    engine, served, share = [], [], []
    with RunningServer(args.bin / "server/svdserve", args.model, threads=args.threads) as server:
        for number in range(args.rounds):
            alone = run_json([args.bin / "tests/bench/encoder_cpu/encoder_cpu", "--model", args.model,
                              "--threads", args.threads, "--shapes", BATCH, "--seconds", args.seconds])
            engine.append(alone["results"][0]["tokens_per_second"])
            load = run_json([svdctl, "load", "--json", "--server", server.address, "--lengths",
                             "fixed:128", "--saturate", IN_FLIGHT, "--duration", args.seconds + 1,
                             "--warmup", 1])
            served.append(load["ok_tokens_per_second"])
            share.append(load["client_cpu_share"])
            print(f"round {number + 1}: engine {engine[-1]:.0f}, served {served[-1]:.0f} tokens/s",
                  file=sys.stderr)
        at_rest = lone_queries(svdctl, server, 2 * args.seconds)
        beside, batch_seconds = beside_bulk(svdctl, server, 4 * args.seconds)
    rest, busy = (run["by_status"]["OK"]["latency_seconds"] for run in (at_rest, beside))
    result = {
        "threads": args.threads, "engine_tokens_per_second": statistics.median(engine),
        "served_tokens_per_second": statistics.median(served),
        "served_share": statistics.median(served) / statistics.median(engine),
        "client_cpu_share": statistics.median(share), "in_flight": IN_FLIGHT,
        "lone_query_at_rest_seconds": rest, "lone_query_beside_bulk_seconds": busy,
        "lone_query_stages_seconds": {"at_rest": at_rest["stages_seconds"],
                                      "beside_bulk": beside["stages_seconds"]},
        "bulk_batch_seconds": batch_seconds,
        "lone_query_p99_in_batches": busy["p99"] / batch_seconds}
    write_result("serving_cpu", result)
    print("served %.0f of %.0f tokens/s (%.1f %%); the client took %.1f %% of the processors" % (
        result["served_tokens_per_second"], result["engine_tokens_per_second"],
        100 * result["served_share"], 100 * result["client_cpu_share"]))
    print("lone query: p50 %.2f ms at rest; p99 %.1f ms beside bulk = %.2f batches" % (
        1e3 * rest["p50"], 1e3 * busy["p99"], result["lone_query_p99_in_batches"]))


if __name__ == "__main__":
    main()
