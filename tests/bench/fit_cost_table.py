#!/usr/bin/env python3
"""Derives a row of engine/plan/cuda_cost_table.h from measured kernels.

  tests/bench/fit_cost_table.py [--kernels kernels_gpu.json] [--encoder encoder_gpu.json] [--sm 90]

The formulas are those of engine/plan/cuda_cost_model.cc. Tile shapes are taken from the table as it is; what is
fitted are rates, what a block's start and end cost, and the launch, so that the mean squared logarithm of predicted over
measured is least. Printed are every row, predicted beside measured; the new row of the table, each number with the rows
that it comes from; and, with --encoder, how far the planner's choice is from the fastest measured plan of no more bytes.
"""

import argparse
import json
import math
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLE = ROOT / "engine/plan/cuda_cost_table.h"
RESULTS = ROOT / "tests/bench/results"

# Where the numbers come from: the names of kernels_gpu's rows.
GEMM = ("qkv_factors", "head_factor", "out_narrow", "ffn_factors", "ffn_inner", "ffn_narrow", "dense_qkv",
        "dense_ffn_in")
# Not those of dense layers: another kernel runs them, which has no rival.
GEMM_NORM = ("out_expand_norm", "ffn_expand_norm")
UPDATE_NORM = ("out_update_norm", "ffn_update_norm")


def read_table(text, sm):
    """The table's row of this architecture: names to numbers, lists or lists of lists."""
    row = re.search(r"\{\.sm = %d,(.*?)\}(?=,\n\s*\{\.sm|,\n\};)" % sm, text, re.S)
    if row is None:
        sys.exit(f"fit_cost_table: the table has no row of sm_{sm}")
    body = re.sub(r"//[^\n]*", "", row[1])
    _, *parts = re.split(r"\.([a-z]\w*)\s*=\s*", body)
    return {name: json.loads(value.strip().rstrip(",").replace("{", "[").replace("}", "]"))
            for name, value in zip(parts[::2], parts[1::2])}


def read_rows(path, gpu_name):
    """Measured rows of one device's file."""
    result = json.loads(path.read_text())
    gpu_name.append(result["gpu"]["name"])
    rows = []
    for row in result["results"]:
        if "median_ms" not in row or row.get("causal"):
            continue
        sequences, length = map(int, row["shape"].split("x"))
        rows.append({**row, "sequences": sequences, "length": length, "rows": sequences * length,
                     "seconds": row["median_ms"] * 1e-3})
    return rows


class Model:
    """cuda_cost_model.cc, of one device."""

    def __init__(self, costs, multiprocessors):
        self.costs = costs
        self.multiprocessors = multiprocessors

    def rate(self, tflops):
        return tflops * 1e12 / self.costs["multiprocessors"]

    def waves(self, blocks, seconds):
        return math.ceil(blocks / self.multiprocessors) * seconds

    def launch(self, seconds, values):
        bandwidth = self.costs["bytes_per_second"] * self.multiprocessors / self.costs["multiprocessors"]
        return self.costs["launch_seconds"] + max(seconds, 2 * values / bandwidth)

    def tiles(self, name, rows, depth, out):
        def one(tile):
            tile_rows, columns, tflops, extra = tile
            columns = columns or out
            flops = 2 * tile_rows * columns * (depth + extra)
            return self.waves(math.ceil(rows / tile_rows) * math.ceil(out / columns), flops / self.rate(tflops))
        tiles = self.costs[name]
        return min(map(one, tiles if isinstance(tiles[0], list) else [tiles]))

    def gemm(self, rows, depth, out):
        return self.launch(self.tiles("gemm", rows, depth, out), rows * (depth + out) + depth * out)

    def gemm_norm(self, rows, depth, hidden):
        return self.launch(self.tiles("gemm_norm", rows, depth, hidden), rows * (depth + 2 * hidden) + depth * hidden)

    def gemm_then_norm(self, rows, depth, hidden):
        blocks = math.ceil(rows / self.costs["norm_rows"])
        return self.gemm(rows, depth, hidden) + self.launch(self.waves(blocks, self.costs["norm_block_seconds"]),
                                                            4 * rows * hidden)

    def fused_ffn(self, rows, width, intermediate):
        return self.launch(self.tiles("fused_ffn", rows, intermediate, width), (rows + intermediate) * width)

    def ffn_layer(self, rows, width, hidden, intermediate):
        return self.launch(self.tiles("ffn_layer", rows, hidden + intermediate, width),
                           2 * rows * hidden + (hidden + intermediate) * width)

    def attention_cost(self, head_dim):
        return next(cost for cost in self.costs["attention"] if head_dim <= cost[0])

    def attention(self, sequences, length, heads, head_dim):
        def one(tile):
            rows, places, tflops, extra = tile
            most = math.ceil(sequences * heads * math.ceil(length / rows) / self.multiprocessors)
            full, rest = divmod(most, places)
            rounds = full + (0.3 + 0.7 * rest / places if rest else 0)
            flops = 4 * places * rows * (length + extra) * head_dim
            return rounds * flops / self.rate(tflops)
        _, _, tiles = self.attention_cost(head_dim)
        return self.launch(min(map(one, tiles)), 4 * sequences * length * heads * head_dim)

    def lowrank_attention(self, sequences, length, heads, head_dim, depth):
        tflops, start = self.costs["lowrank"]
        build = 2 * length * depth * head_dim / self.rate(tflops)
        core = 4 * length * length * head_dim / self.rate(self.attention_cost(head_dim)[1])
        return self.launch(self.waves(sequences * heads, build + core + start),
                           sequences * length * (depth + heads * head_dim))

    def row_chain(self, rows):
        cluster_rows, clusters, seconds = self.costs["chain"]
        return self.costs["launch_seconds"] + math.ceil(math.ceil(rows / cluster_rows) / clusters) * seconds

    def predict(self, row):
        """Seconds of a measured row; None: the planner asks about no such kernel."""
        op = row["op"]
        if op in GEMM:
            return self.gemm(row["rows"], row["in"], row["out"])
        if op in GEMM_NORM:
            return self.gemm_norm(row["rows"], row["in"], row["out"])
        if op in UPDATE_NORM:
            return self.gemm_then_norm(row["rows"], row["in"], row["out"])
        if op == "ffn_core":
            return self.fused_ffn(row["rows"], row["in_rank"] + row["out_rank"], row["intermediate"])
        if op == "row_chain" and "chain" in self.costs:
            return self.row_chain(row["rows"])
        if op == "ffn_layer" and "ffn_layer" in self.costs:
            return self.ffn_layer(row["rows"], row["in_rank"] + row["out_rank"], row["hidden"], row["intermediate"])
        if op == "attention":
            return self.attention(row["sequences"], row["length"], row["heads"], row["head_dim"])
        if op == "attention_core":
            return self.lowrank_attention(row["sequences"], row["length"], row["heads"], row["head_dim"],
                                          3 * row["rank"])
        return None


def error(model, rows):
    """The mean squared logarithm of predicted over measured."""
    return sum(math.log(model.predict(row) / row["seconds"]) ** 2 for row in rows) / max(1, len(rows))


def descend(model, places, rows):
    """Moves numbers of the table, one after the other by ever smaller factors, while the error falls."""
    if not rows:
        return
    best = error(model, rows)
    factor = 1.6
    while factor > 1.002:
        moved = False
        for holder, key in places:
            for by in (factor, 1 / factor):
                before = holder[key]
                holder[key] = before * by
                now = error(model, rows)
                if now < best * (1 - 1e-9):
                    best, moved = now, True
                    break
                holder[key] = before
        if not moved:
            factor = math.sqrt(factor)


def fit(model, rows):
    """All numbers; several rounds, since the launch and the bandwidth belong to all kernels."""
    costs = model.costs
    groups = [(GEMM, [(tile, i) for tile in costs["gemm"] for i in (2, 3)]),
              (GEMM_NORM, [(tile, i) for tile in costs["gemm_norm"] for i in (2, 3)]),
              (UPDATE_NORM, [(costs, "norm_block_seconds")]),
              (("ffn_core",), [(tile, i) for tile in costs["fused_ffn"] for i in (2, 3)]),
              (("ffn_layer",), [(costs["ffn_layer"], i) for i in (2, 3)] if "ffn_layer" in costs else []),
              (("row_chain",), [(costs["chain"], 2)] if "chain" in costs else [])]
    of = lambda names: [row for row in rows if row["op"] in names]
    for _ in range(6):
        descend(model, [(costs, "launch_seconds"), (costs, "bytes_per_second")], rows)
        for names, places in groups:
            descend(model, places, of(names))
        for cost in costs["attention"]:
            wide = [row for row in of(("attention",)) if model.attention_cost(row["head_dim"]) is cost]
            descend(model, [(tile, i) for tile in cost[2] for i in (2, 3)], wide)
        descend(model, [(costs["lowrank"], i) for i in range(2)] + [(cost, 1) for cost in costs["attention"]],
                of(("attention_core",)))


def rounded(value):
    return round(value) if value == 0 or 1 <= value < 1e9 else float(f"{value:.2g}")


def as_cpp(costs, rows, gpu):
    """The row as C++, each number with what it comes from."""
    count = lambda *names: sum(row["op"] in names for row in rows)
    lists = lambda value: ("{" + ", ".join(map(lists, value)) + "}" if isinstance(value, list) else
                           str(rounded(value)))
    sources = {
        "launch_seconds": f"all {len(rows)} rows", "bytes_per_second": f"all {len(rows)} rows",
        "gemm": f"{count(*GEMM)} rows: {', '.join(GEMM)}", "gemm_norm": f"{count(*GEMM_NORM)}: {', '.join(GEMM_NORM)}",
        "norm_block_seconds": f"{count(*UPDATE_NORM)}: {', '.join(UPDATE_NORM)}", "fused_ffn": f"{count('ffn_core')}: ffn_core",
        "ffn_layer": f"{count('ffn_layer')}: ffn_layer",
        "attention": f"{count('attention')}: attention, by head dimension; {count('attention_core')}: attention_core",
        "chain": f"{count('row_chain')}: row_chain",
        "lowrank": f"{count('attention_core')}: attention_core",
    }
    lines = [f"    // {gpu}, tests/bench/fit_cost_table.py of kernels_gpu.json"]
    for name, value in costs.items():
        text = lists(value) if isinstance(value, list) else f"{rounded(value):g}"
        note = f"  // {sources[name]}" if name in sources else ""
        lines.append(f"     .{name} = {text},{note}")
    return "\n".join(lines)


def print_rows(model, rows):
    print(f"{'op':20} {'model':18} {'shape':8} {'measured':>10} {'predicted':>10} {'ratio':>6}  ms")
    for row in rows:
        predicted = model.predict(row)
        name = f"{row.get('model') or '-'} {row.get('ranks', '')}"
        print(f"{row['op']:20} {name:18} {row['shape']:8} {row['seconds'] * 1e3:10.4f} {predicted * 1e3:10.4f} "
              f"{predicted / row['seconds']:6.2f}")


def print_choices(path):
    """How much slower the planned batch is than the fastest one of no more bytes."""
    groups = {}
    for row in json.loads(path.read_text())["results"]:
        if row.get("mode", "strict") != "strict":
            continue
        groups.setdefault((row["model"], row["ranks"], row["shape"]), []).append(row)
    worst = 1
    print(f"\n{'model':18} {'shape':8} {'plan':10} {'ms':>8} {'fastest':>12} {'ms':>8} {'ratio':>6}")
    for (model, ranks, shape), rows in groups.items():
        for row in rows:
            if row["plan"] not in ("planned", "bar"):
                continue
            fastest = min((other for other in rows if other["peak_bytes"] <= row["peak_bytes"]),
                          key=lambda other: other["median_ms"])
            ratio = row["median_ms"] / fastest["median_ms"]
            worst = max(worst, ratio)
            print(f"{model + ' ' + ranks:18} {shape:8} {row['plan']:10} {row['median_ms']:8.3f} {fastest['plan']:>12} "
                  f"{fastest['median_ms']:8.3f} {ratio:6.3f}")
    print(f"the worst choice takes {worst:.3f} of the fastest")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernels", type=pathlib.Path, default=RESULTS / "kernels_gpu.json")
    parser.add_argument("--encoder", type=pathlib.Path)
    parser.add_argument("--sm", type=int, default=90)
    parser.add_argument("--no-fit", action="store_true", help="the table as it is against the measured rows")
    options = parser.parse_args()
    gpu = []
    rows = read_rows(options.kernels, gpu)
    costs = read_table(TABLE.read_text(), options.sm)
    model = Model(costs, costs["multiprocessors"])
    rows = [row for row in rows if model.predict(row) is not None]
    before = math.sqrt(error(model, rows))
    if not options.no_fit:
        fit(model, rows)
    print_rows(model, rows)
    print(f"\nroot mean square of ln(predicted / measured): {before:.3f} by the table, {math.sqrt(error(model, rows)):.3f} "
          "as fitted\n")
    print(as_cpp(costs, rows, gpu[0]))
    if options.encoder:
        print_choices(options.encoder)


if __name__ == "__main__":
    main()
