#!/usr/bin/env python3
"""PyTorch on the same GPU, shapes and ranks as encoder_gpu and kernels_gpu.

    tests/bench/peers.py --budget 90 --out tests/bench/results/peers_gpu.json

Parts: `stack`, whole encoder stacks, dense and unfused low-rank, eager (SDPA)
and compiled, each also as a CUDA graph, with peak activation bytes;
`attention`, SDPA's backends; `gemm`, single products and the cores that our
fused kernels replace. Jobs run in the order of their value until the budget is
spent; what was left out is named in the result, which is rewritten after every
job. bf16, random data, medians by CUDA events.
"""

import argparse
import functools
import gc
import json
import pathlib
import sys
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import bench_common
import torch_gpu

MODELS = json.loads((pathlib.Path(__file__).parent / "gpu_models.json").read_text())
SHAPES = ["32x512", "1x128", "32x128", "64x512", "8x2048", "8x512", "8x128"]  # by value
PARTS = ["stack", "attention", "gemm"]
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
ATTENTION_TOKENS = 16384
ACCOUNTING = ("torch.cuda.max_memory_allocated of one forward minus memory_allocated before it, after a warm-up: "
              "weights, the input and workspaces of libraries are not counted")


def parse_shape(text):
    sequences, length = text.split("x")
    return int(sequences), int(length)


# ---- Stacks ----

@functools.lru_cache(maxsize=1)
def stack_of(model, ranks):
    gc.collect()
    torch.cuda.empty_cache()
    spec = MODELS[model]
    return torch_gpu.Stack(spec, spec["ranks"].get(ranks))


def measure_stack(model, ranks, mode, shape, seconds):
    """Two rows: launched one by one, and replayed as a graph."""
    sequences, length = parse_shape(shape)
    stack = stack_of(model, ranks)
    if mode == "compiled":
        stack = stack.compiled()
    x = torch_gpu.random(sequences * length, MODELS[model]["hidden"])

    def run():
        stack(x, sequences)

    head = {"model": model, "weights": ranks, "shape": shape}
    peak = torch_gpu.peak_bytes(run)
    plain = torch_gpu.median_ms(run, seconds)
    graph = torch_gpu.median_ms(torch_gpu.capture(run), seconds)
    return [head | {"mode": mode, "median_ms": plain, "peak_bytes": peak,
                    "peak_bytes_per_token": peak / (sequences * length)},
            head | {"mode": mode + " + graph", "median_ms": graph}]


def stack_jobs(args):
    for model in args.models:
        for ranks in ["dense"] + list(MODELS[model]["ranks"]):
            for shape in args.shapes:
                for mode in args.modes:
                    yield (stack_value(model, ranks, mode, shape), "stack", f"{model} {ranks} {mode} {shape}",
                           functools.partial(measure_stack, model, ranks, mode, shape, args.seconds))


def stack_value(model, ranks, mode, shape):
    """Less comes first. Compilation takes seconds a shape, the rest fractions."""
    stage = {"bert-base": 0, "minilm": 16, "bert-large": 17}.get(model, 18)
    if ranks not in ("dense", "r50"):
        stage += 50
    if mode == "compiled":
        stage += 20 if shape in ("32x512", "1x128") else 60
    return (stage, ranks != "dense", SHAPES.index(shape) if shape in SHAPES else len(SHAPES))


# ---- Attention ----

def measure_attention(backend, length, head_dim, causal, seconds):
    heads = 768 // head_dim
    sequences = max(1, ATTENTION_TOKENS // length)
    each = sequences * length * heads * head_dim

    def call():
        # As the model has them: Q, K and V of a token lie side by side.
        qkv = torch_gpu.random(sequences, length, 3, heads, head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal)

    with sdpa_kernel(BACKENDS[backend]):
        ms = torch_gpu.kernel_ms([call() for _ in range(torch_gpu.sets_for(4 * 2 * each))], seconds)
    flops = 4.0 * each * length / (2 if causal else 1)
    return [{"backend": backend, "shape": f"{sequences}x{length}", "heads": heads, "head_dim": head_dim,
             "causal": causal, "median_ms": ms, "tflops": flops / ms * 1e-9}]


def attention_jobs(args):
    for causal in (False, True):
        for head_dim in (64, 128):
            for length in (512, 2048, 8192):
                for backend in BACKENDS:
                    yield ((15 if causal else 10,), "attention", f"attention {backend} {length} {head_dim} {causal}",
                           functools.partial(measure_attention, backend, length, head_dim, causal, args.seconds))


# ---- Products ----

def products(spec, ranks):
    """name, in, out: the names that kernels_gpu uses."""
    d, inner = spec["hidden"], spec["intermediate"]
    qkv, out, ffn = ranks["qkv"], ranks["out"], ranks["ffn"]
    return [("qkv_factors", d, 3 * qkv), ("head_factor", qkv, d), ("out_narrow", d, out),
            ("ffn_factors", d, ffn), ("ffn_inner", ffn, inner), ("ffn_narrow", inner, ffn),
            ("ffn_expand", ffn, d), ("dense_qkv", d, 3 * d), ("dense_out", d, d),
            ("dense_ffn_in", d, inner), ("dense_ffn_out", inner, d)]


def measure_product(name, rows, in_width, out_width, seconds):
    def call():
        x, w = torch_gpu.random(rows, in_width), torch_gpu.linear_weights(in_width, out_width)
        bias = torch_gpu.random(out_width)
        return lambda: F.linear(x, w, bias)

    set_bytes = 2 * (rows * in_width + rows * out_width + in_width * out_width)
    ms = torch_gpu.kernel_ms([call() for _ in range(torch_gpu.sets_for(set_bytes))], seconds)
    return [{"op": name, "rows": rows, "in": in_width, "out": out_width, "median_ms": ms,
             "tflops": 2.0 * rows * in_width * out_width / ms * 1e-9}]


def measure_core(name, model, ranks, shape, seconds):
    """What FusedFfn and LowRankAttention replace, unfused."""
    sequences, length = parse_shape(shape)
    rows, spec = sequences * length, MODELS[model]
    rank = spec["ranks"][ranks]
    weights = torch_gpu.lowrank_weights(spec, rank)
    width = rank["ffn"] if name == "ffn_core" else 3 * rank["qkv"]

    def call():
        p = torch_gpu.random(rows, width)
        if name == "ffn_core":
            return lambda: torch_gpu.ffn_core(p, weights)
        return lambda: torch_gpu.attention_core(p, weights, sequences, spec["heads"])

    ms = torch_gpu.kernel_ms([call() for _ in range(torch_gpu.sets_for(2 * rows * spec["hidden"]))], seconds)
    return [{"op": name, "model": model, "ranks": ranks, "shape": shape, "median_ms": ms}]


def gemm_jobs(args):
    for model in args.models:
        ranks = "r50"
        value = 12 if model == "bert-base" else 45
        for shape in args.shapes:
            if shape not in ("32x512", "1x128", "32x128"):
                continue
            sequences, length = parse_shape(shape)
            rows = sequences * length
            for name in ("ffn_core", "attention_core"):
                yield ((value,), "gemm", f"{name} {model} {shape}",
                       functools.partial(measure_core, name, model, ranks, shape, args.seconds))
            for name, in_width, out_width in products(MODELS[model], MODELS[model]["ranks"][ranks]):
                yield ((value + 1,), "gemm", f"{name} {model} {rows}",
                       lambda n=name, r=rows, i=in_width, o=out_width, m=model:
                       [{"model": m, **measure_product(n, r, i, o, args.seconds)[0]}])


# ---- All of them ----

def gpu_facts():
    properties = torch.cuda.get_device_properties(0)
    return {"name": properties.name, "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory}


def run_jobs(jobs, args, result):
    started = time.monotonic()
    for _, part, name, measure in jobs:
        left = args.budget - (time.monotonic() - started)
        if left <= 0:
            result["left_out"].append(name)
            continue
        try:
            rows = measure()
        except RuntimeError as error:
            rows = [{"name": name, "error": str(error).splitlines()[0]}]
        result[part] += rows
        print(f"{time.monotonic() - started:6.1f} s  {name}: "
              + ", ".join(f"{r['median_ms']:.4f} ms" if "median_ms" in r else r["error"] for r in rows),
              file=sys.stderr, flush=True)
        bench_common.write_result("peers_gpu", result, args.out, quiet=True)


def names(choices):
    def parse(text):
        chosen = text.split(",")
        for name in chosen:
            if choices and name not in choices:
                raise argparse.ArgumentTypeError(f"'{name}' is none of {', '.join(choices)}")
        return chosen
    return parse


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", type=names(PARTS), default=PARTS, help="of stack,attention,gemm")
    parser.add_argument("--models", type=names(list(MODELS)), default=list(MODELS))
    parser.add_argument("--shapes", type=names(None), default=SHAPES, help="BxS, separated by commas")
    parser.add_argument("--modes", type=names(["eager", "compiled"]), default=["eager", "compiled"])
    parser.add_argument("--seconds", type=float, default=0.15, help="of each measurement")
    parser.add_argument("--budget", type=float, default=1e9, help="no job starts after that many seconds")
    parser.add_argument("--out", type=pathlib.Path, default=bench_common.RESULTS / "peers_gpu.json")
    args = parser.parse_args()

    jobs = []
    for part, make in (("stack", stack_jobs), ("attention", attention_jobs), ("gemm", gemm_jobs)):
        if part in args.parts:
            jobs += make(args)
    jobs.sort(key=lambda job: job[0])  # stable: within a value, as written
    result = {"gpu": gpu_facts(), "torch_version": torch.__version__, "dtype": "bfloat16",
              "accounting": ACCOUNTING, "stack": [], "attention": [], "gemm": [], "left_out": []}
    with torch.no_grad():
        run_jobs(jobs, args, result)
    bench_common.write_result("peers_gpu", result, args.out)


if __name__ == "__main__":
    main()
