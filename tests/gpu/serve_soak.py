"""A server under bursts of mixed lengths: its memory must be of constant size."""

import contextlib
import shutil
import subprocess
import threading
import time

from serving import load, saturate

# The soak's bursts, over and over, 21 seconds a round: seconds, and what svdctl
# load is told. The largest comes first, so that memory is high from the start.
BURSTS = [
    (3, ["--saturate", "128", "--inputs", "64"]),  # more than the queue takes
    (2, ["--saturate", "1"]),
    (3, ["--saturate", "8", "--inputs", "4"]),
    (3, ["--rate", "200"]),
    (4, ["--saturate", "256"]),
    (4, ["--saturate", "32", "--inputs", "16"]),
]
LENGTHS = "uniform:1-512"  # beyond the model's limit: truncated
SAMPLE_SECONDS = 0.5
SAMPLED = {
    "resident": "process_resident_memory_bytes", "heap": "process_heap_bytes", "arena_in_use": "svdserve_arena_in_use_bytes",
    "arena_peak": "svdserve_arena_peak_bytes", "arena_touched": "svdserve_arena_touched_bytes",
    "queue_reserved": "svdserve_queue_reserved_bytes", "queue_peak": "svdserve_queue_peak_bytes",
    "text_reserved": "svdserve_text_reserved_bytes", "healthy": "svdserve_healthy"}
BUDGETED = {"arena": ["arena_in_use", "arena_peak", "arena_touched"], "queue": ["queue_reserved", "queue_peak"],
            "text": ["text_reserved"]}


def sample(server, begin):
    metrics = server.metrics()
    device = {kind: sum(v for k, v in metrics.items()
                        if k.startswith("svdserve_device_memory_bytes") and f'kind="{kind}"' in k)
              for kind in ("weights", "arena", "other")}
    return {"second": round(time.monotonic() - begin, 1), **{k: metrics[name] for k, name in SAMPLED.items()},
            "other": device["other"], "fixed": device["weights"] + device["arena"]}


def sample_until(stop, server, begin, samples):
    while not stop.wait(SAMPLE_SECONDS):
        samples.append(sample(server, begin))


@contextlib.contextmanager
def driver_memory(check, begin, samples):
    """What the driver says of the GPU's memory, of all processes: (second, bytes)."""
    if check.args.device != "cuda" or shutil.which("nvidia-smi") is None:
        yield
        return
    with subprocess.Popen(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-lms", "500"],
                          stdout=subprocess.PIPE, text=True) as smi:
        def read():
            for line in smi.stdout:
                if line.strip().isdigit():
                    samples.append((time.monotonic() - begin, int(line) << 20))

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield
        finally:
            smi.kill()
            reader.join()


def burst_until(begin, end, server, totals):
    """Bursts with a pause after each; counts answers by status. [(second, bytes on the heap)] at rest."""
    number, at_rest = 0, []
    while time.monotonic() < end:
        seconds, options = BURSTS[number % len(BURSTS)]
        number += 1
        seconds = max(min(seconds, end - time.monotonic()), 0.5)
        result = load(server, f"{seconds:.2f}", "--lengths", LENGTHS, "--seed", number, "--timeout", "60",
                      *options)
        for code, row in result["by_status"].items():
            totals[code] = totals.get(code, 0) + row["requests"]
        time.sleep(0.3)
        at_rest.append((time.monotonic() - begin, server.metrics()[SAMPLED["heap"]]))
    return at_rest


def growth(samples, warm, end, of=max):
    """The most in the second half after warm-up, above the most in the first; or what else it is `of`."""
    middle = (warm + end) / 2
    first = [value for second, value in samples if warm <= second < middle]
    second = [value for second, value in samples if second >= middle]
    return of(second) - of(first) if first and second else float("nan")


def soak(check, dtype):
    """As deployed: every key but device and type has its default."""
    samples, driver, totals, stop = [], [], {}, threading.Event()
    with check.server(dtype) as server:
        default_speed = saturate(server, 8, 32)
        begin = time.monotonic()
        sampler = threading.Thread(target=sample_until, args=(stop, server, begin, samples))
        sampler.start()
        try:
            with driver_memory(check, begin, driver):
                at_rest = burst_until(begin, begin + check.args.soak, server, totals)
        finally:
            stop.set()
            sampler.join()
        end = time.monotonic() - begin
        after = server.metrics()
        problems = server.problems()
    judge(check, samples, at_rest, driver, end, after)
    check.expect(f"soak: only OK and refusals: {totals}",
                 "OK" in totals and set(totals) <= {"OK", "RESOURCE_EXHAUSTED"})
    check.expect(f"soak: nothing to warn of, and drained with 0 {problems[:3] or ''}",
                 not problems and server.exit_code == 0)
    check.result["soak"] |= {"answers": totals, "tokens": after["svdserve_tokens_total"],
                             "batches": after["svdserve_batch_tokens_count"], "default_config": default_speed}


def judge(check, samples, at_rest, driver, end, after):
    warm = min(check.args.warmup, end / 3)
    settled = [s for s in samples if s["second"] >= warm]

    def grown(key):
        return growth([(s["second"], s[key]) for s in samples], warm, end)

    budgets = {kind: after[f"svdserve_{kind}_budget_bytes"] for kind in BUDGETED}
    most = {key: max(s[key] for s in samples) for keys in BUDGETED.values() for key in keys}
    peak, touched = after[SAMPLED["arena_peak"]], after[SAMPLED["arena_touched"]]
    resident = max(s["resident"] for s in settled)
    heap = min((value for second, value in at_rest if second >= warm), default=float("nan"))
    figures = {"other": grown("other"), "fixed": grown("fixed"), "resident": grown("resident"),
               "heap_at_rest": growth(at_rest, warm, end, of=min)}
    check.result["soak"] = {
        "seconds": round(end, 1), "warmup_seconds": round(warm, 1), "samples": len(samples),
        "lengths": LENGTHS, "bursts": [" ".join(options) for _, options in BURSTS],
        "growth_bytes": figures, "budgets_bytes": budgets, "most_bytes": most,
        "arena_peak_bytes": peak, "arena_touched_bytes": touched, "heap_at_rest_bytes": heap,
        "every_tenth_sample": samples[::10] + samples[-1:]}
    check.expect(f"soak: device memory outside the arena grew by {figures['other']:,.0f} bytes after {warm:.0f} s",
                 figures["other"] <= 0)
    if driver:
        by_driver = growth(driver, warm, end)
        check.result["soak"]["driver"] = {"growth_bytes": by_driver, "first_bytes": driver[0][1],
                                          "last_bytes": driver[-1][1], "most_bytes": max(v for _, v in driver)}
        check.expect(f"soak: by the driver the GPU's memory grew by {by_driver:,.0f} bytes", by_driver <= 0)
    check.expect(f"soak: weights and arena are what they were: {samples[0]['fixed']:,.0f} bytes",
                 len({s["fixed"] for s in samples}) == 1)
    # What is allocated when nothing runs: a leak shows here, and nothing else does.
    check.expect(f"soak: the heap at rest grew by {figures['heap_at_rest']:,.0f} of {heap:,.0f} bytes: at most 1 %",
                 figures["heap_at_rest"] <= 0.01 * heap)
    # malloc keeps what each thread's arena has held at the most, each at another burst.
    check.expect(f"soak: resident memory grew by {figures['resident']:,.0f} of {resident:,.0f} bytes: at most 5 %",
                 figures["resident"] <= 0.05 * resident)
    # A plan is for a bucket of shapes, which the batch may not have filled.
    check.expect(f"soak: touched {touched:,.0f} bytes of the arena, planned {peak:,.0f}",
                 0.98 * peak <= touched <= peak)
    for kind, keys in BUDGETED.items():
        worst = max(most[key] for key in keys)
        check.expect(f"soak: {kind}: at most {worst:,.0f} of {budgets[kind]:,.0f} bytes", worst <= budgets[kind])
    check.expect("soak: always healthy", all(s["healthy"] == 1 for s in samples))
