"""PyTorch on a GPU: encoder stacks, dense and low-rank, and how they are timed.

The hidden state is [rows, hidden]; all sequences of a batch have the same
length, the best case for PyTorch, which would pad others. Embeddings, pooling
and copies from and to the host are left out, in PyTorch's favour.
"""

import statistics

import torch
import torch.nn.functional as F

DTYPE = torch.bfloat16
COLD_BYTES = 128 << 20  # inputs of rotating sets exceed any L2
MAX_SETS = 16


def random(*shape, scale=1.0):
    return torch.randn(*shape, device="cuda", dtype=torch.float32).mul_(scale).to(DTYPE)


def linear_weights(in_width, out_width):
    return random(out_width, in_width, scale=in_width**-0.5)


def norm_weights(hidden):
    return {"gamma": 1 + random(hidden, scale=0.1), "beta": random(hidden, scale=0.1)}


def dense_weights(model):
    d, inner = model["hidden"], model["intermediate"]
    return {
        "qkv": linear_weights(d, 3 * d), "qkv_bias": random(3 * d, scale=0.1),
        "out": linear_weights(d, d), "out_bias": random(d, scale=0.1),
        "ffn_in": linear_weights(d, inner), "ffn_in_bias": random(inner, scale=0.1),
        "ffn_out": linear_weights(inner, d), "ffn_out_bias": random(d, scale=0.1),
        "norm1": norm_weights(d), "norm2": norm_weights(d),
    }


def lowrank_weights(model, ranks):
    d, inner = model["hidden"], model["intermediate"]
    qkv, out, ffn = ranks["qkv"], ranks["out"], ranks["ffn"]
    return {
        "qkv_u": linear_weights(d, 3 * qkv),
        "q_v": linear_weights(qkv, d), "q_bias": random(d, scale=0.1),
        "k_v": linear_weights(qkv, d), "k_bias": random(d, scale=0.1),
        "v_v": linear_weights(qkv, d), "v_bias": random(d, scale=0.1),
        "out_u": linear_weights(d, out),
        "out_v": linear_weights(out, d), "out_bias": random(d, scale=0.1),
        "ffn_in_u": linear_weights(d, ffn),
        "ffn_in_v": linear_weights(ffn, inner), "ffn_in_bias": random(inner, scale=0.1),
        "ffn_out_u": linear_weights(inner, ffn),
        "ffn_out_v": linear_weights(ffn, d), "ffn_out_bias": random(d, scale=0.1),
        "norm1": norm_weights(d), "norm2": norm_weights(d),
    }


def attention(q, k, v, sequences, heads):
    """[rows, hidden] each -> [rows, hidden]."""
    rows, hidden = q.shape

    def by_head(t):
        return t.view(sequences, rows // sequences, heads, hidden // heads).transpose(1, 2)

    context = F.scaled_dot_product_attention(by_head(q), by_head(k), by_head(v))
    return context.transpose(1, 2).reshape(rows, hidden)


def add_norm(x, update, norm):
    return F.layer_norm(x + update, (x.shape[1],), norm["gamma"], norm["beta"], 1e-12)


def dense_layer(x, w, sequences, heads):
    q, k, v = F.linear(x, w["qkv"], w["qkv_bias"]).split(x.shape[1], dim=1)
    context = attention(q, k, v, sequences, heads)
    del q, k, v
    x = add_norm(x, F.linear(context, w["out"], w["out_bias"]), w["norm1"])
    del context
    inner = F.gelu(F.linear(x, w["ffn_in"], w["ffn_in_bias"]))
    return add_norm(x, F.linear(inner, w["ffn_out"], w["ffn_out_bias"]), w["norm2"])


def attention_core(p, w, sequences, heads):
    """From P = x·[U_q U_k U_v] to the context."""
    p_q, p_k, p_v = p.split(p.shape[1] // 3, dim=1)
    return attention(F.linear(p_q, w["q_v"], w["q_bias"]), F.linear(p_k, w["k_v"], w["k_bias"]),
                     F.linear(p_v, w["v_v"], w["v_bias"]), sequences, heads)


def ffn_core(p, w):
    """From P = x·U1 to z = gelu(P·V1 + b1)·U2."""
    return F.linear(F.gelu(F.linear(p, w["ffn_in_v"], w["ffn_in_bias"])), w["ffn_out_u"])


def lowrank_layer(x, w, sequences, heads):
    context = attention_core(F.linear(x, w["qkv_u"]), w, sequences, heads)
    narrow = F.linear(context, w["out_u"])
    del context
    x = add_norm(x, F.linear(narrow, w["out_v"], w["out_bias"]), w["norm1"])
    del narrow
    z = ffn_core(F.linear(x, w["ffn_in_u"]), w)
    return add_norm(x, F.linear(z, w["ffn_out_v"], w["ffn_out_bias"]), w["norm2"])


class Stack:
    """All layers, each with weights of its own."""

    def __init__(self, model, ranks=None):
        self.heads = model["heads"]
        self.layer = lowrank_layer if ranks else dense_layer
        self.weights = [lowrank_weights(model, ranks) if ranks else dense_weights(model)
                        for _ in range(model["layers"])]

    def compiled(self):
        """The same with its layer compiled: once, whatever the number of layers."""
        torch.compiler.reset()  # shapes are static: every one is compiled anew
        twin = object.__new__(Stack)
        twin.heads, twin.weights = self.heads, self.weights
        twin.layer = torch.compile(self.layer, dynamic=False, fullgraph=True)
        return twin

    def __call__(self, x, sequences):
        for w in self.weights:
            x = self.layer(x, w, sequences, self.heads)
        return x


# ---- Timing ----

def capture(run):
    """A CUDA graph of run(); returns its replay."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def median_ms(run, seconds):
    """Median over single runs, each between two events of its own."""
    def timed(count):
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
                  for _ in range(count)]
        for start, end in events:
            start.record()
            run()
            end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in events]

    timed(3)
    estimate = statistics.median(timed(5))
    times = timed(max(10, min(1000, int(seconds * 1e3 / estimate))))
    return statistics.median(times)


def peak_bytes(run):
    """The most that one run has allocated at once, above what was allocated."""
    run()  # caches and workspaces of any kind exist before
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def sets_for(set_bytes):
    return max(1, min(MAX_SETS, -(-COLD_BYTES // set_bytes)))


def kernel_ms(calls, seconds):
    """Milliseconds of one call; `calls` do the same work on buffers of their own
    and are replayed in turn, so that inputs come from memory, not from L2."""
    calls = calls * -(-8 // len(calls))

    def run():
        for call in calls:
            call()

    return median_ms(capture(run), seconds) / len(calls)
