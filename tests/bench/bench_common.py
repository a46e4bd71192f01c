"""What the benchmark scripts share: facts of the machine, result files, models."""

import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys

RESULTS = pathlib.Path(__file__).parent / "results"
LOAD_AT_START = os.getloadavg()[0]  # of others: a quiet machine is near 0


def machine():
    """What a reader needs to judge the figures; nothing that names the machine."""
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    fields = dict(line.split(":", 1) for line in cpuinfo.split("\n\n")[0].splitlines() if ":" in line)
    fields = {k.strip(): v.strip() for k, v in fields.items()}
    flags = set(fields.get("flags", "").split())
    wanted = ["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16"]
    return {
        "processor": fields.get("model name", platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "features": [f for f in wanted if f in flags],
        "load_average_at_start": round(LOAD_AT_START, 2),
    }


def command():
    """The command line, with paths cut to their last component."""
    words = [pathlib.Path(w).name if w.startswith("/") else w for w in sys.argv[1:]]
    script = pathlib.Path(sys.argv[0]).resolve().relative_to(RESULTS.resolve().parents[2])
    return " ".join([str(script)] + words)


def write_result(name, result, path=None, quiet=False):
    """Writes results/NAME.json, or `path`, with machine, date and command."""
    path = path or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    head = {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command(),
        "machine": machine(),
    }
    path.write_text(json.dumps(head | result, indent=1) + "\n")
    if not quiet:
        print(f"wrote {path}", file=sys.stderr)


def run_json(argv):
    """Runs a program that prints JSON."""
    done = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, check=False, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{argv[0]} failed with exit code {done.returncode}")
    return json.loads(done.stdout)


def sentence_embeddings(model, texts, threads):
    """sentence-transformers in fp32, normalised: [texts, width] float64."""
    import numpy as np
    import torch
    sys.path.insert(0, str(RESULTS.resolve().parents[2] / "tools/pytorch"))
    from svdserve_pytorch import load_sentence_transformer
    torch.set_num_threads(threads)
    encoder = load_sentence_transformer(model, dtype=torch.float32, device="cpu")
    vectors = encoder.encode(texts, batch_size=16, normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(vectors, dtype=np.float64)


def cosine_summary(ours, theirs):
    """Rows against rows."""
    import numpy as np
    ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    return {"inputs": len(cosine), "min": float(cosine.min()),
            "p1": float(np.percentile(cosine, 1)), "mean": float(cosine.mean())}
