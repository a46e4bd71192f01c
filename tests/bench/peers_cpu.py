#!/usr/bin/env python3
"""The CPU engine against PyTorch, on the same weights, in one run.

    tests/bench/peers_cpu.py --dense models/minilm --compressed models/minilm-r50 \\
        --encoder build/release/tests/bench/encoder_cpu/encoder_cpu \\
        --svdctl build/release/tools/svdctl

Speed: every contender is measured once a round, in an order that is shuffled
each round, on random token ids with a fresh seed; its figure is the median
over rounds of the median over forwards. Memory: peak activation bytes of
32 inputs of 256 tokens, PyTorch's as measured by its allocator hook and by the
formula of ten hidden-wide rows a token, ours as planned (tests hold the
backend to the plan). Needs torch and transformers; a quiet machine.
"""

import argparse
import json
import random
import statistics
import sys

import torch

import bench_common
import torch_peer

SHAPES = [(32, 128), (1, 16)]
MEMORY_SHAPE = (32, 256)
ROWS_A_TOKEN = 10  # x 1, FFN intermediate before and after GELU 4 + 4, its output 1
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class TorchContender:
    def __init__(self, directory, dtype, compiled):
        self.name = f"PyTorch {'compiled' if compiled else 'eager'}, dense {dtype}"
        self.facts = {"library": "torch", "weights": "dense", "dtype": dtype, "compiled": compiled}
        self.encoder = torch_peer.Encoder(directory, DTYPES[dtype])
        self.vocabulary = self.encoder.bert.config.vocab_size
        if compiled:
            self.encoder = torch.compile(self.encoder, dynamic=False)

    def measure(self, shape, seed, seconds, _threads):
        ids = torch_peer.random_ids(*shape, self.vocabulary, seed)
        return statistics.median(torch_peer.measure(self.encoder, ids, seconds))


class EngineContender:
    def __init__(self, program, model, weights, dtype):
        self.name = f"svdserve, {weights} {dtype}"
        self.facts = {"library": "svdserve", "weights": weights, "dtype": dtype}
        self.program, self.model, self.dtype = program, model, dtype

    def measure(self, shape, seed, seconds, threads):
        result = bench_common.run_json(
            [self.program, "--model", self.model, "--compute", self.dtype, "--threads", threads,
             "--shapes", "%dx%d" % shape, "--seconds", seconds, "--seed", seed])
        self.facts["mode"] = result["mode"]
        return result["results"][0]["median_ms"] / 1e3


def make_contenders(args):
    for dtype in DTYPES:
        for compiled in (False, True):
            yield TorchContender(args.dense, dtype, compiled)
    for dtype in DTYPES:
        yield EngineContender(args.encoder, args.dense, "dense", dtype)
        yield EngineContender(args.encoder, args.compressed, "compressed", dtype)


def measure_speed(contenders, args, rng):
    """Rows of results, by shape, then contender."""
    rows = []
    for shape in SHAPES:
        medians = {c.name: [] for c in contenders}
        for number in range(args.rounds):
            for contender in rng.sample(contenders, len(contenders)):
                seconds = contender.measure(shape, rng.getrandbits(31), args.seconds, args.threads)
                medians[contender.name].append(seconds)
                print(f"round {number + 1}/{args.rounds} {shape[0]}x{shape[1]} "
                      f"{contender.name}: {seconds * 1e3:.3f} ms", file=sys.stderr)
        base = statistics.median(medians[contenders[0].name])
        fastest_base = min(statistics.median(medians[c.name]) for c in contenders
                           if c.facts["library"] == "torch" and c.facts["dtype"] == "float32")
        for contender in contenders:
            seconds = statistics.median(medians[contender.name])
            rows.append(contender.facts | {
                "name": contender.name, "shape": "%dx%d" % shape,
                "median_ms": seconds * 1e3, "best_round_ms": min(medians[contender.name]) * 1e3,
                "worst_round_ms": max(medians[contender.name]) * 1e3,
                "tokens_per_second": shape[0] * shape[1] / seconds,
                "against_torch_eager_float32": base / seconds,
                "against_best_torch_float32": fastest_base / seconds})
    return rows


def measure_memory(args, rng):
    sequences, length = MEMORY_SHAPE
    result = {"shape": "%dx%d" % MEMORY_SHAPE, "torch": {}, "svdserve": {}}
    for dtype, torch_dtype in DTYPES.items():
        encoder = torch_peer.Encoder(args.dense, torch_dtype)
        config = encoder.bert.config
        ids = torch_peer.random_ids(sequences, length, config.vocab_size, rng.getrandbits(31))
        formula = ROWS_A_TOKEN * config.hidden_size * torch_dtype.itemsize * sequences * length
        result["torch"][dtype] = {"measured_bytes": torch_peer.peak_activation_bytes(encoder, ids),
                                  "formula_bytes": formula}
        inspection = bench_common.run_json(
            [args.svdctl, "inspect", args.compressed, "--json", "--plan", "%dx%d" % MEMORY_SHAPE,
             "--compute", dtype, "--threads", args.threads])
        peak = inspection["plan"]["peak_bytes"]
        result["svdserve"][dtype] = {
            "plan_peak_bytes": peak, "charged_bytes": inspection["plan"]["charged_bytes"],
            "share_of_formula": peak / formula,
            "share_of_measured": peak / result["torch"][dtype]["measured_bytes"]}
    result["accounting"] = (
        "torch measured: most bytes live at once in PyTorch's CPU allocator during one eager forward "
        "with SDPA (profiler memory events; weights and ids not counted, oneDNN's own scratch not seen); "
        "formula: 10 x hidden x element bytes x tokens; svdserve: peak_bytes of the plan, everything included")
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dense", required=True, help="directory of the dense model")
    parser.add_argument("--compressed", required=True, help="the same at ratio 0.5")
    parser.add_argument("--encoder", required=True, help="the program encoder_cpu")
    parser.add_argument("--svdctl", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="of each measurement")
    parser.add_argument("--only", choices=["speed", "memory"], help="one half, printed only")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    rng = random.Random()
    compressed = bench_common.run_json([args.svdctl, "inspect", args.compressed, "--json"])
    result = {
        "threads": args.threads,
        "torch_version": torch.__version__,
        "kept_ratio": compressed["matrix_parameters"] / compressed["dense_matrix_parameters"],
        "ranks": compressed["ranks"][0],
    }
    if args.only != "memory":
        result["speed"] = measure_speed(list(make_contenders(args)), args, rng)
    if args.only != "speed":
        result["memory"] = measure_memory(args, rng)
    print(json.dumps(result, indent=1))
    if args.only is None:
        bench_common.write_result("peers_cpu", result)


if __name__ == "__main__":
    main()
