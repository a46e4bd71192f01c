#!/usr/bin/env python3
"""A server at ten times what it can do: does it stay up, fast and in bounds?

  tests/bench/overload.py --model DIR [--bin build/serve] [--seconds 60]

Starts svdserve on free loopback ports, measures its rate at saturation and its
latency at rest, offers `--factor` times that rate in an open loop (lengths 1 to
512, longer ones truncated) while sampling memory and budgets twice a second,
then asks again at rest. Writes results/overload.json; exits 1 if a bound does
not hold. Needs nothing but Python and the two programs.
"""

import argparse
import pathlib
import re
import sys
import threading
import time

from bench_common import run_json, write_result
from running_server import RunningServer

LENGTHS = "uniform:1-600"  # the model's limit is less: the rest is truncated


def histogram_quantile(before, after, name, labels, share):
    """The upper bound of the bucket that holds the quantile of what came between."""
    counts = {}
    for key, value in after.items():
        found = re.fullmatch(name + r"_bucket\{(.*)\}", key)
        if found and all(label in found[1] for label in labels):
            bound = float(re.search(r'le="([^"]+)"', found[1])[1].replace("+Inf", "inf"))
            counts[bound] = counts.get(bound, 0) + value - before.get(key, 0)
    total = counts.get(float("inf"), 0)
    return next((b for b in sorted(counts) if total and counts[b] >= share * total), None)


def sample(server, samples, stop):
    start = time.monotonic()
    while not stop.wait(0.5):
        m = server.metrics()
        samples.append({
            "second": round(time.monotonic() - start, 2),
            "resident_bytes": m["process_resident_memory_bytes"],
            "charged_total": m["svdserve_activation_bytes_total"],
            **{f"{kind}_{what}": m[f"svdserve_{kind}_{what}_bytes"]
               for kind, what in [("arena", "in_use"), ("arena", "peak"), ("queue", "reserved"),
                                  ("queue", "peak"), ("text", "reserved")]}})


def longest_drain(samples):
    """Queued work over the rate at which it was worked off: of all samples the
    longest time until the device had done as much as was queued then."""
    longest = 0
    for i, then in enumerate(samples):
        goal = then["charged_total"] + then["queue_reserved"]
        for last, now in zip(samples[i:], samples[i + 1:]):
            if now["charged_total"] >= goal:
                done = (goal - last["charged_total"]) / (now["charged_total"] - last["charged_total"])
                end = last["second"] + done * (now["second"] - last["second"])
                longest = max(longest, end - then["second"])
                break
    return longest


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--bin", type=pathlib.Path, default=pathlib.Path("build/serve"))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--factor", type=float, default=10)
    args = parser.parse_args()
    running = RunningServer(args.bin / "server/svdserve", args.model)
    samples, stop = [], threading.Event()
    with running as server:
        load = [args.bin / "tools/svdctl", "load", "--json", "--server", server.address, "--truncate"]
        at_rest = load + ["--lengths", "fixed:16", "--rate", "10", "--duration", "3"]
        loads = {"at_rest_before": run_json(at_rest)}
        # Enough in flight to fill batches, few enough that none is refused.
        loads["saturated"] = run_json(load + ["--lengths", LENGTHS, "--saturate", "64",
                                              "--duration", "8", "--warmup", "2"])
        rate = args.factor * loads["saturated"]["ok_requests_per_second"]
        before = server.metrics()
        sampler = threading.Thread(target=sample, args=(server, samples, stop))
        sampler.start()
        loads["overload"] = run_json(
            load + ["--lengths", LENGTHS, "--rate", f"{rate:.1f}", "--duration", args.seconds,
                    "--timeout", "120", "--max-in-flight", "100000"])
        stop.set()
        sampler.join()
        after = server.metrics()
        loads["at_rest_after"] = run_json(at_rest)
    report(args, before, after, samples, running.exit_code, loads)


def report(args, before, after, samples, code, loads):
    limits = {k: after[f"svdserve_{k}_budget_bytes"] for k in ("arena", "queue", "text")}
    settled = [s for s in samples if 20 <= s["second"] <= args.seconds]
    if not settled:
        raise SystemExit("nothing is settled before second 20: --seconds 60")
    resident = [s["resident_bytes"] for s in settled]
    accepted = loads["overload"]["by_status"]["OK"]["latency_seconds"]
    batch = histogram_quantile(before, after, "svdserve_batch_compute_seconds", [], 1)
    bound = longest_drain(samples) + batch
    refused = histogram_quantile(before, after, "svdserve_request_seconds",
                                 ['outcome="refused"'], 0.99)
    reasons = {k: after[k] - before.get(k, 0) for k in after
               if k.startswith("svdserve_refusals_total")}
    checks = {
        "server drained and exited with 0": code == 0,
        "resident memory within 1 % from second 20":
            max(resident) <= 1.01 * min(resident),
        "p99 of accepted <= queued work / rate + one batch": accepted["p99"] <= bound,
        "server-side p99 of refusals < 5 ms": refused is not None and refused <= 0.005,
        "every refusal has its reason":
            sum(reasons.values()) >= loads["overload"]["by_status"]
            .get("RESOURCE_EXHAUSTED", {"requests": 0})["requests"] > 0,
        "no sample above a budget": all(
            max(s[f"{k}_{w}"] for w in ws) <= limits[k] for s in samples
            for k, ws in [("arena", ("in_use", "peak")), ("queue", ("reserved", "peak")),
                          ("text", ("reserved",))]),
        "normal right after": loads["at_rest_after"]["by_status"].keys() == {"OK"} and
            loads["at_rest_after"]["by_status"]["OK"]["latency_seconds"]["p50"] <=
            2 * loads["at_rest_before"]["by_status"]["OK"]["latency_seconds"]["p50"],
    }
    write_result("overload", {
        "checks": checks,
        "resident_bytes_from_second_20": {"min": min(resident), "max": max(resident)},
        "accepted_p99_seconds": accepted["p99"], "bound_seconds": bound,
        "queued_bytes_most": max(s["queue_reserved"] for s in samples),
        "largest_batch_seconds_at_most": batch,
        "refusal_p99_seconds_at_most": refused, "refusals": reasons,
        "budgets_bytes": limits, **loads})
    for name, good in checks.items():
        print(("ok      " if good else "FAILED  ") + name)
    sys.exit(0 if all(checks.values()) else 1)


if __name__ == "__main__":
    main()
