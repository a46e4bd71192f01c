#!/usr/bin/env python3
"""Writes the tables of the top README from tests/bench/results/*.json.

    tests/bench/make_tables.py          # rewrites README.md between the markers
    tests/bench/make_tables.py --check  # fails if README.md is not what it would write

The markers are the lines `<!-- benchmarks: begin -->` and `<!-- benchmarks: end -->`.
A table whose result file is absent is left out. Needs only Python itself.
"""

import argparse
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tests" / "bench" / "results"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def origin(result):
    machine = result["machine"]
    features = ", ".join(machine["features"])
    return (f"{machine['processor']}, {machine['cores']} cores ({features}), {result['date'][:10]}; "
            f"`{result['benchmark']}.json`.")


def speed(result):
    rows = {}
    for row in result["speed"]:
        rows.setdefault(row["name"], {})[row["shape"]] = row
    lines = [f"**Speed**, {result['threads']} threads; compressed keeps {result['kept_ratio']:.3f} of the "
             f"encoder's weights. {origin(result)}", ""]
    body = []
    for name, by_shape in rows.items():
        bulk, lone = by_shape["32x128"], by_shape["1x16"]
        if "mode" in bulk:
            name = f"{name} ({bulk['mode']})"
        body.append([name, f"{bulk['tokens_per_second']:,.0f}", f"{bulk['against_torch_eager_float32']:.2f}×",
                     f"{lone['median_ms']:.2f} ms", f"{lone['against_torch_eager_float32']:.2f}×"])
    return lines + table(["", "tokens/s, 32×128", "against PyTorch eager fp32", "latency, 1×16",
                          "against PyTorch eager fp32"], body)


def memory(result):
    memory = result["memory"]
    lines = [f"**Activation bytes**, {memory['shape'].replace('x', '×')}. {memory['accounting'][0].upper()}"
             f"{memory['accounting'][1:]}.", ""]
    body = []
    for dtype, ours in memory["svdserve"].items():
        torch = memory["torch"][dtype]
        body.append([dtype, f"{torch['measured_bytes'] / 1e6:.1f} MB", f"{torch['formula_bytes'] / 1e6:.1f} MB",
                     f"{ours['plan_peak_bytes'] / 1e6:.1f} MB", f"{100 * ours['share_of_formula']:.1f} %"])
    return lines + table(["", "PyTorch dense, measured", "PyTorch dense, formula", "svdserve compressed, plan",
                          "of the formula"], body)


def peers(result):
    return speed(result) + [""] + memory(result)


def accuracy(result):
    lines = [f"**Accuracy** of {result['model']} over gRPC against {result['against']}. {origin(result)}", ""]
    body = [[compute, str(c["inputs"]), f"{c['min']:.7f}", f"{c['p1']:.7f}", f"{c['mean']:.7f}",
             f"{c['required_min']}"] for compute, c in result["cosine"].items()]
    return lines + table(["compute", "texts", "least cosine", "1st percentile", "mean", "required least"], body)


def compression(result):
    lines = [f"**Compression** of {result['model']}: embeddings against the dense model's, on "
             f"{result['texts']['count']:,} texts that calibration never saw: {result['texts']['of']}. "
             "Activations: planned for an H100 in 16 bits, 32 inputs of 256 tokens; dense "
             f"{result['dense_activation_bytes_per_token']:,} bytes a token. {origin(result)}", ""]
    body = [[f"{row['ratio']}", row["method"], f"{row['mean_cosine']:.4f}", f"{1 - row['mean_cosine']:.4f}",
             f"{row['p5_cosine']:.4f}", f"{row['recall_at_10']:.3f}",
             f"{row['activation_bytes_per_token']:,}", f"{row['processor_seconds']:,.0f} s"]
            for row in result["results"]]
    return lines + table(["weights kept", "method", "mean cosine", "mean error (1 − cosine)", "5th percentile",
                          "recall@10", "activation bytes a token", "processor time"], body)


def serving(result):
    busy, rest = result["lone_query_beside_bulk_seconds"], result["lone_query_at_rest_seconds"]
    lines = [f"**Serving** over gRPC, the client on the same processors. {origin(result)}", ""]
    return lines + table(
        ["engine alone", "served at saturation", "share", "the client's share of the processors",
         "lone 16-token query, p50", "its p99 beside bulk load"],
        [[f"{result['engine_tokens_per_second']:,.0f} tokens/s",
          f"{result['served_tokens_per_second']:,.0f} tokens/s", f"{100 * result['served_share']:.1f} %",
          f"{100 * result['client_cpu_share']:.1f} %", f"{1e3 * rest['p50']:.2f} ms",
          f"{1e3 * busy['p99']:.0f} ms = {result['lone_query_p99_in_batches']:.2f} batches"]])


def overload(result):
    offered, accepted = result["overload"], result["overload"]["by_status"]
    refused = sum(s["requests"] for name, s in accepted.items() if name != "OK")
    resident = result["resident_bytes_from_second_20"]
    growth = 100 * (resident["max"] / resident["min"] - 1)
    lines = [f"**Overload**: {offered['sent_requests_per_second']:,.0f} requests/s offered to a server that does "
             f"{result['saturated']['ok_requests_per_second']:,.0f}, for {offered['measured_seconds']:.0f} s. "
             f"{origin(result)}", ""]
    return lines + table(
        ["answered", "refused", "p99 of accepted", "its bound: longest time to work off what was queued, and one batch (its histogram bucket's end)",
         "p99 of refusals, in the server", "resident memory, second 20 on"],
        [[f"{accepted['OK']['requests']:,}", f"{refused:,}", f"{result['accepted_p99_seconds']:.2f} s",
          f"{result['bound_seconds']:.2f} s", f"< {1e3 * result['refusal_p99_seconds_at_most']:.2f} ms",
          f"within {growth:.2f} %"]])


def tokenizer(result):
    lines = [f"**Tokenization**, MB/s of one thread by processor time, the same ids as Hugging Face `tokenizers` {result['tokenizers']}; "
             f"with offsets, and in brackets without. {origin(result)}", ""]
    runs = {}
    for row in result["rows"]:
        run = runs.setdefault((row["model"], row["texts"], str(row["max_tokens"] or "-")), {})
        run[row["program"]] = row
    speeds = lambda run, a, b: f"{run[a]['mb_per_s']:.1f} ({run[b]['mb_per_s']:.1f})"
    lines += table(
        ["vocabulary", "texts", "longest", "ours", "`encode_batch` (`_fast`)", "ratio"],
        [[*key, speeds(run, "ours, offsets", "ours"), speeds(run, "encode_batch", "encode_batch_fast"),
          f"{run['ours, offsets']['speedup_over_encode_batch']:.1f}× "
          f"({run['ours']['mb_per_s'] / run['encode_batch_fast']['mb_per_s']:.1f}×)"] for key, run in runs.items()])
    lines += ["", "**Loading a tokenizer**: processor time, and resident memory after it.", ""]
    return lines + table(
        ["vocabulary", "tokens", "time, ours", "time, `tokenizers`", "memory, ours", "memory, `tokenizers`"],
        [[load["model"], f"{load['tokens']:,}"] +
         [f"{load[who + '_seconds']:.2f} s" for who in ("ours", "tokenizers")] +
         [f"{load[who + '_bytes'] / 2**20:.0f} MiB" for who in ("ours", "tokenizers")] for load in result["loads"]])


# ---- GPU (frontier_gpu.json is for reading as it is) ----

def gpu_origin(result):
    return f"{result['gpu']['name']}, {result['dtype']}, {result['date'][:10]}; `{result['benchmark']}.json`."


def measured(rows):
    return [row for row in rows if "median_ms" in row]


def in_order(values):
    """Each once, as they first come."""
    return list(dict.fromkeys(values))


def shapes_of(rows):
    def size(shape):
        sequences, length = map(int, shape.split("x"))
        return sequences * length, length
    return sorted(in_order(row["shape"] for row in rows), key=size)


def by_shape(rows, name_of):
    """One line a name: its median at each shape."""
    rows = measured(rows)
    shapes = shapes_of(rows)
    cells = {}
    for row in rows:
        cells.setdefault(name_of(row), {})[row["shape"]] = f"{row['median_ms']:.3f}"
    body = [list(name) + [line.get(shape, "-") for shape in shapes] for name, line in cells.items()]
    return [shape.replace("x", "×") for shape in shapes], body


def is_strict(row):
    return row.get("mode", "strict") == "strict"


def encoder_gpu(result):
    kept = [row for row in result["results"] if row["plan"] in ("bar", "fused/1", "unfused/1") or not is_strict(row)]
    heads, body = by_shape(kept, lambda r: (r["model"], r["ranks"], r["plan"] if is_strict(r) else "fast mode"))
    fast = "" if all(map(is_strict, kept)) else "; fast mode: as planned, small batches with split sums, all else is strict"
    lines = [f"**Encoder on a GPU**, ms from one batch's end to the next, copies included; bar: within 20 % of "
             f"PyTorch's activation bytes (35 % below 16,384 tokens); NAME/1: that way, not in chunks{fast}. "
             f"{gpu_origin(result)}", ""]
    return lines + table(["model", "ranks", "plan"] + heads, body)


def peer_results(part):
    path = RESULTS / "peers_gpu.json"
    return measured(json.loads(path.read_text())[part]) if path.exists() else []


BARRED = ["32x128", "32x512", "64x512", "8x2048"]  # shapes whose bytes are held to a bar


def memory_gpu(result):
    """Plans that keep the bar, where there is one, beside the fastest that PyTorch does with the same model."""
    stack = peer_results("stack")
    if not stack:
        return []
    peaks = {(r["model"], r["shape"]): r["peak_bytes"] for r in stack
             if r["weights"] == "dense" and r["mode"] == "eager"}
    fastest = {}
    for row in stack:
        key = (row["model"], row["weights"], row["shape"])
        fastest[key] = min(row["median_ms"], fastest.get(key, row["median_ms"]))
    lines = ["", "**Time and activation bytes on a GPU**: the planner's plan, everything included, of 32×128 and "
             "from 16,384 tokens on within the bar, against the fastest PyTorch (eager, compiled or a graph of either; "
             "encoder stack alone), dense and of the same factors, and against the bytes of PyTorch dense, eager with "
             "SDPA.", ""]
    body = []
    for row in sorted(measured(result["results"]), key=lambda r: (r["model"], r["ranks"] != "r50", r["shape"])):
        model, ranks, shape, ours = row["model"], row["ranks"], row["shape"], row["median_ms"]
        peak = peaks.get((model, shape))
        if not is_strict(row) or not peak or ranks == "dense":
            continue
        if row["plan"] != ("bar" if shape in BARRED else "planned"):
            continue
        times = [fastest.get((model, weights, shape)) for weights in ("dense", ranks)]
        body.append([model, ranks, shape.replace("x", "×"), f"{ours:.3f}"] +
                    [f"{time:.3f} ({time / ours:.2f}×)" if time else "-" for time in times] +
                    [f"{row['peak_bytes'] / 2**20:.1f} MiB", f"{peak / 2**20:.1f} MiB",
                     f"{100 * row['peak_bytes'] / peak:.1f} %"])
    return lines + table(["model", "ranks", "shape", "ours, ms", "PyTorch dense", "PyTorch factored", "ours",
                          "PyTorch", "share"], body)


def peers_gpu(result):
    lines = [f"**PyTorch {result['torch_version']} on the GPU**, encoder stack only, ms. {gpu_origin(result)}", ""]
    kept = [row for row in result["stack"] if row["mode"] in ("eager", "eager + graph", "compiled + graph")]
    heads, body = by_shape(kept, lambda r: (r["model"], r["weights"], r["mode"]))
    return lines + table(["model", "weights", "mode"] + heads, body)


def kernels_gpu(result):
    """The kernels of one model at one shape, attention by length beside PyTorch's, and of heads of other widths."""
    lines = [f"**CUDA kernels**, bert-base r50 at 32×512, cold inputs. {gpu_origin(result)}", ""]
    rows = measured(result["results"])
    body = [[row["op"], f"{row['median_ms']:.4f}", f"{row['tflops']:.0f}", f"{row['gb_per_s']:,.0f}"]
            for row in rows if (row["model"], row.get("ranks"), row["shape"]) == ("bert-base", "r50", "32x512")]
    lines += table(["kernel", "ms", "TFLOP/s", "GB/s"], body)
    torch = {(row["backend"], row["shape"], row["head_dim"], row["causal"]): f"{row['tflops']:.0f}"
             for row in peer_results("attention")}
    body = []
    for row in rows:
        if row["model"] is None and row["op"] == "attention":
            key = (row["shape"], row["head_dim"], row["causal"])
            body.append([row["shape"].replace("x", "×"), str(row["head_dim"]), "yes" if row["causal"] else "no",
                         f"{row['tflops']:.0f}"] + [torch.get((backend, *key), "-") for backend in ("flash", "cudnn")])
    lines += ["", "**Attention**, TFLOP/s, width 768, beside PyTorch's backends.", ""]
    lines += table(["shape", "head dim", "causal", "ours", "FlashAttention-2", "cuDNN"], body)
    return lines + reduced_attention(rows) + strictness(rows)


def reduced_attention(rows):
    """Heads whose queries and keys are not as wide as their values."""
    portable = {(row["shape"], row["qk_dim"], row["v_dim"]): f"{row['median_ms']:.4f}"
                for row in rows if row["op"] == "attention_reduced_portable"}
    body = [[row["shape"].replace("x", "×"), str(row["qk_dim"]), str(row["v_dim"]), f"{row['median_ms']:.4f}",
             portable.get((row["shape"], row["qk_dim"], row["v_dim"]), "-"), f"{row['tflops']:.0f}"]
            for row in rows if row["op"] == "attention_reduced"]
    if not body:
        return []
    return ["", "**Attention of reduced heads**, 12 of them.", ""] + table(
        ["shape", "queries and keys", "values", "ms", "portable, ms", "TFLOP/s"], body)


def strictness(rows):
    """Products whose sums are never split beside cuBLAS, which chooses by the number of rows."""
    ours = {}
    for row in rows:
        if row["model"] and "rows" in row:
            ours.setdefault((row["model"], row["op"], row["rows"]), row["median_ms"])
    cells = {}
    for row in peer_results("gemm"):
        key = (row.get("model"), row["op"], row.get("rows"))
        if row.get("rows") and key in ours and row["model"] == "bert-base":
            cells.setdefault((row["op"], row["in"], row["out"]), {})[row["rows"]] = (ours[key], row["median_ms"])
    counts = sorted({count for line in cells.values() for count in line})
    body = [[name, f"{width:,} → {out:,}"] +
            ["{:.1f} / {:.1f} ({:+.0f} %)".format(*(1e3 * ms for ms in line[count]),
                                                  100 * (line[count][0] / line[count][1] - 1))
             if count in line else "-" for count in counts] for (name, width, out), line in cells.items()]
    return ["", "**What strictness costs**: products that give a row the same bits whatever the batch, beside cuBLAS "
            "through PyTorch (which may choose and split by the number of rows), µs.", ""] + table(
                ["product", "in → out"] + [f"{count:,} rows" for count in counts], body)


def serving_gpu(result):
    devices = result["bfloat16"]["server"]["devices"]
    rows = result["bfloat16"]["throughput"]
    best = max(row["ok_tokens_per_second"] for row in rows if row["lengths"].startswith("fixed"))
    text = max(row["ok_tokens_per_second"] for row in rows if not row["lengths"].startswith("fixed"))
    engine = result["engine"]["results"]
    alone = devices * max(row["tokens_per_second"] for row in engine if not row["shape"].endswith("lengths"))
    alone_text = devices * max((row["tokens_per_second"] for row in engine if row["shape"].endswith("lengths")),
                               default=0)
    lone = [result["bfloat16"].get(key) for key in ("lone_query_seconds", "next_query_seconds")]
    body = [[f"{result[dtype]['cosine']['min']:.6f}" for dtype in ("bfloat16", "float16")] +
            [f"{best:,.0f} tokens/s", f"{alone:,.0f} tokens/s", f"{100 * best / alone:.0f} %",
             f"{text:,.0f} tokens/s"] +
            ([f"{alone_text:,.0f} tokens/s", f"{100 * text / alone_text:.0f} %"] if alone_text else ["-", "-"]) +
            [f"{1e3 * latency['p50']:.2f} ms" if latency else "-" for latency in lone]]
    lines = [f"**Serving on a GPU** over gRPC, the client on the same processors: {result['model']}; {devices} × "
             f"{result['gpu']['name']}, {result['date'][:10]}; `{result['benchmark']}.json`.", ""]
    return lines + table(["least cosine, bfloat16", "float16", "served at saturation", "engine alone, all devices",
                          "share", "served, real text", "engine alone, such lengths", "share",
                          "16-token query every 20 ms, p50", "one after the other, p50"], body)


def soak_gpu(result):
    if "soak" not in result:
        return []
    soak = result["soak"]
    growth, most = soak["growth_bytes"], soak["most_bytes"]
    body = [[f"{soak['seconds']:.0f} s", f"{growth['other'] + growth['fixed']:,.0f} bytes",
             f"{growth['heap_at_rest']:,.0f} bytes", f"{most['arena_touched']:,.0f} bytes",
             f"{most['arena_peak']:,.0f} bytes"]]
    lines = ["", "**Soak on the same**: bursts of mixed lengths.", ""]
    return lines + table(["bursts for", "device memory's growth", "heap's growth, at rest", "most touched of the arena",
                          "most planned"], body)


def engine_gpu(result):
    one, two, left = result["results"][:3]
    body = [[f"{row['tokens_per_second']:,.0f}" for row in (one, two)] +
            [f"{two['tokens_per_second'] / one['tokens_per_second']:.2f}×", f"{left['tokens_per_second']:,.0f}"]]
    lines = [f"**Two GPUs in one engine**, {result['model']} {result['ranks']}, {result['shape'].replace('x', '×')}, "
             f"tokens/s; then one of them loses its context. {gpu_origin(result)}", ""]
    return lines + table(["one GPU", "two", "ratio", "two, one lost"], body)


TABLES = [("peers_cpu", peers), ("peers_cpu_avx512", speed), ("serving_cpu", serving), ("overload", overload),
          ("tokenizer", tokenizer), ("accuracy_cpu", accuracy), ("compression", compression),
          ("encoder_gpu", lambda result: encoder_gpu(result) + memory_gpu(result)), ("peers_gpu", peers_gpu),
          ("kernels_gpu", kernels_gpu),
          ("serving_gpu", lambda result: serving_gpu(result) + soak_gpu(result)), ("engine_gpu", engine_gpu)]


def make():
    blocks = []
    for name, render in TABLES:
        path = RESULTS / f"{name}.json"
        if path.exists():
            blocks.append("\n".join(render(json.loads(path.read_text()))))
    return "\n\n".join(blocks)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--readme", type=pathlib.Path, default=ROOT / "README.md")
    args = parser.parse_args()
    text = args.readme.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        sys.exit(f"{args.readme}: wants the lines {BEGIN} and {END} once each, in this order")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    made = f"{before}{BEGIN}\n{make()}\n{END}{after}"
    if not args.check:
        args.readme.write_text(made)
    elif made != text:
        sys.exit(f"{args.readme}: its tables are not those of tests/bench/results; run tests/bench/make_tables.py")


if __name__ == "__main__":
    main()
