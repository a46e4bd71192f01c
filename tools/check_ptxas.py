#!/usr/bin/env python3
"""Runs nvcc and fails if ptxas did what kernels here must not suffer.

  tools/check_ptxas.py [ccache] nvcc ARGUMENT...   with -Xptxas=-v among them

That is: wgmma serialised or setmaxnreg ignored (C7508 to C7520), or registers
spilled beyond the kernel's limit in SPILL_LIMITS. ccache keeps what nvcc
printed, so that a cached compilation is checked too. Only what is wrong is
printed.
"""

import re
import subprocess
import sys

# Bytes that a kernel may spill (stores and loads each), by a part of its
# mangled name: each with the reason. Others: none.
SPILL_LIMITS = {
    # Heads of 128 have all 255 registers in use; four of them.
    "15AttentionKernel": 16,
    # 48 rows of width 1024: 144 sums of each thread; two registers.
    "14GemmNormKernel": 8,
    # Gated, 320 columns: 160 sums beside those of two weights.
    "64ELi32ELi320ELb1E": 48,
}

FUNCTION = re.compile(r"Compiling entry function '([^']+)' for '([^']+)'")
SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
SERIALISED = re.compile(r"\bC75(?!19)\d\d\b")  # C7519 is a remark
NOISE = re.compile(r"^ptxas info|bytes stack frame")


def limit_of(function):
    return max((limit for part, limit in SPILL_LIMITS.items() if part in function), default=0)


def check(lines):
    """What is wrong, and what else the compiler had to say."""
    wrong, rest = [], []
    function = architecture = "?"
    for line in lines:
        if found := FUNCTION.search(line):
            function, architecture = found.groups()
        if SERIALISED.search(line):
            wrong.append(line)
        elif found := SPILLS.search(line):
            spilled = max(map(int, found.groups()))
            if spilled > limit_of(function):
                wrong.append(f"{function} for {architecture} spills {spilled} bytes; its limit is "
                             f"{limit_of(function)}")
        if not NOISE.search(line):
            rest.append(line)
    return wrong, rest


def main():
    done = subprocess.run(sys.argv[1:], check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wrong, rest = check(done.stdout.splitlines())
    if any(line.strip() for line in rest):
        print("\n".join(rest))
    for line in wrong:
        print(f"check_ptxas: {line}", file=sys.stderr)
    if done.returncode == 0 and wrong:
        # The object exists, but must not be linked.
        if "-o" in sys.argv:
            subprocess.run(["rm", "-f", sys.argv[sys.argv.index("-o") + 1]], check=False)
        return 1
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
