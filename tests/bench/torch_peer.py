"""PyTorch on the CPU: what the benchmarks compare with."""

import json
import os
import tempfile
import time

import torch
from transformers import AutoModel


class Encoder(torch.nn.Module):
    """BERT with SDPA, mean pooling over equal lengths, and unit length."""

    def __init__(self, directory, dtype):
        super().__init__()
        self.bert = AutoModel.from_pretrained(
            directory, attn_implementation="sdpa", add_pooling_layer=False).to(dtype).eval()

    def forward(self, ids):
        # No mask: all inputs have the same length, the best case for a padded
        # batch. A mask of ones would only cost it time.
        hidden = self.bert(input_ids=ids).last_hidden_state
        return torch.nn.functional.normalize(hidden.mean(dim=1).float(), dim=1)


def random_ids(sequences, length, vocabulary, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocabulary, (sequences, length), generator=generator)


@torch.inference_mode()
def measure(encoder, ids, seconds):
    """Seconds of single forwards, sorted, after a warm-up."""
    def run():
        start = time.perf_counter()
        encoder(ids)
        return time.perf_counter() - start

    warm = 0
    while warm < seconds / 10:
        warm += run()
    times = []
    while sum(times) < seconds or len(times) < 3:
        times.append(run())
    return sorted(times)


@torch.inference_mode()
def peak_activation_bytes(encoder, ids):
    """The most bytes that one forward had allocated at once, by PyTorch's own
    allocator hook (the profiler's memory events): inputs and weights exist
    before and are not counted; what kernels take past the allocator, such as
    oneDNN's scratchpads, is not seen."""
    encoder(ids)  # caches of any kind are filled before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU],
                                profile_memory=True) as profile:
        encoder(ids)
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "trace.json")
        profile.export_chrome_trace(path)
        with open(path, encoding="utf-8") as file:
            events = json.load(file)["traceEvents"]
    changes = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]")
    if not changes:
        raise SystemExit("the profiler reported no memory events")
    live = peak = 0
    for _, change in changes:
        live += change
        peak = max(peak, live)
    return peak
