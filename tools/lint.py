#!/usr/bin/env python3
"""Checks the sources: format, include directions, headers, tidy, shell, tables.

  tools/lint.py [CHECK...]   the checks of CI, or the named ones

Needs a configured and built build/release, for its compile commands and
generated headers. Prints what it finds, then a line `passed|failed|skipped
CHECK [reason]` a check; exits 1 if one failed. What passed is remembered by its
contents in build/lint, so that only what changed is checked again.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build/release"
PASSED = ROOT / "build/lint"
FOLDERS = ["server", "engine", "kernels", "tools", "tests"]

# What a folder may include of ours, and what of others it must never see. The
# first match by path counts.
GENERATED = r"(svdserve/v1|google/rpc)/.*\.pb\.h"
SERVING = r"grpc.*|google/protobuf/.*|yaml-cpp/.*|prometheus/.*|.*\.pb\.h"
DIRECTIONS = [
    # (folder, may include, never)
    ("kernels/", r"kernels/", SERVING + r"|absl/.*|nlohmann/.*"),
    ("engine/text/", r"engine/(text/|observer\.h)", SERVING),
    ("engine/model/", r"engine/(text/|model/|observer\.h)", SERVING),
    ("engine/plan/", r"engine/(model/|plan/)", SERVING),
    ("engine/schedule/",
     r"engine/(text/|model/|plan/|schedule/|device/backend\.h|observer\.h)",
     SERVING),
    ("engine/device/", r"engine/(model/|plan/|device/)|kernels/", SERVING),
    ("engine/", r"engine/|kernels/", SERVING),
    ("server/config", r"server/|engine/", r"grpc.*|prometheus/.*"),
    ("server/", r"server/|engine/|" + GENERATED, r"yaml-cpp/.*"),
    ("tools/forward/", r"tools/forward/|engine/(text|model)/|kernels/",
     SERVING),
    ("tools/compress/", r"tools/|engine/|kernels/team\.h", SERVING),
    ("tools/evaluate/", r"tools/|engine/|kernels/team\.h", SERVING),
    ("tools/", r"tools/|engine/|" + GENERATED, r"yaml-cpp/.*|prometheus/.*"),
]
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


class Skip(Exception):
    """The check cannot run here; the message says why."""


def sources(*suffixes):
    found = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in suffixes and path.is_file():
                found.append(path.relative_to(ROOT))
    return found


def includes(path):
    return INCLUDE.findall((ROOT / path).read_text(encoding="utf-8"))


def own_headers(path, seen=None):
    """The headers of ours that `path` includes, directly or not."""
    seen = set() if seen is None else seen
    for _, name in includes(path):
        header = pathlib.Path(name)
        if header not in seen and (ROOT / header).is_file():
            seen.add(header)
            own_headers(header, seen)
    return seen


def fingerprint(path, *facts):
    digest = hashlib.sha256(repr(facts).encode())
    for file in [path, *sorted(own_headers(path))]:
        digest.update(str(file).encode() + (ROOT / file).read_bytes())
    return digest.hexdigest()


def run(command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True,
                          errors="replace", check=False)


def check_each(check, jobs):
    """Runs (path, command, fingerprint) jobs that have not passed before."""
    PASSED.mkdir(parents=True, exist_ok=True)
    todo = [job for job in jobs if not (PASSED / job[2]).exists()]
    print(f"{check}: {len(jobs)} files, {len(todo)} of them new or changed",
          flush=True)
    good = True
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for job, result in zip(todo, pool.map(lambda j: run(j[1]), todo)):
            if result.returncode == 0:
                (PASSED / job[2]).touch()
            else:
                good = False
                print(result.stdout + result.stderr, flush=True)
    return good


def compile_commands():
    database = BUILD / "compile_commands.json"
    if not database.exists():
        raise Skip("no build/release; run `cmake --preset release`")
    commands = {}
    for entry in json.loads(database.read_text()):
        if "nvcc" in entry["command"]:  # emulated, kernels are C++ too
            continue
        path = pathlib.Path(entry["directory"], entry["file"]).resolve()
        if path.is_relative_to(ROOT) and not path.is_relative_to(BUILD):
            commands[path.relative_to(ROOT)] = entry["command"]
    return commands


def tool(name):
    """The program of build/python, or else of the system."""
    local = ROOT / "build/python/bin" / name
    found = str(local) if local.exists() else shutil.which(name)
    if not found:
        raise Skip(f"{name} is not installed")
    return found


def check_format():
    formatter = tool("clang-format")
    version = run([formatter, "--version"]).stdout
    if "version 14." not in version:
        raise Skip(f"wants clang-format 14, not {version.strip()}")
    files = [str(p) for p in sources(".h", ".cc", ".cu")]
    result = run([formatter, "--dry-run", "--Werror", *files])
    print(result.stderr, end="")
    return result.returncode == 0


def check_directions():
    good = True
    for path in sources(".h", ".cc", ".cu"):
        for folder, may, never in DIRECTIONS:
            if str(path).startswith(folder):
                break
        else:
            continue
        for quote, name in includes(path):
            ours = quote == '"' and re.match(
                "|".join(f + "/" for f in FOLDERS), name)
            if (ours and not re.match(may, name)) or re.fullmatch(never, name):
                print(f"{path} must not include {name}")
                good = False
    return good


def cuda_headers():
    """The folder of the CUDA toolkit's headers; none if there is no toolkit."""
    for home in (os.environ.get("CUDA_HOME"), "/usr/local/cuda"):
        if home and pathlib.Path(home, "include/cuda_runtime_api.h").exists():
            return [str(pathlib.Path(home, "include"))]
    return []


def needs_cuda(path):
    headers = [path, *own_headers(path)]
    return any(name.startswith("cuda_") or name.startswith("vector_functions")
               for header in headers for quote, name in includes(header)
               if quote == "<")


def check_headers():
    """Every header compiles alone.

    One that its own .cc includes first has been compiled alone by the build.
    """
    commands = compile_commands()
    proven = set()
    for path in commands:
        names = [name for _, name in includes(path)]
        if names and names[0] == str(path.with_suffix(".h")):
            proven.add(pathlib.Path(names[0]))
    compiler = shlex.split(next(iter(commands.values())))
    if "ccache" in compiler[0]:
        compiler = compiler[1:]
    base = [compiler[0], "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra",
            "-Wno-pragma-once-outside-header", "-I", ".",
            "-isystem", str(BUILD / "proto/gen"), "-x", "c++"]
    cuda = cuda_headers()
    base[base.index("-x"):base.index("-x")] = [
        flag for folder in cuda for flag in ("-isystem", folder)]
    jobs = []
    for path in sources(".h"):
        if path not in proven and not path.name.endswith(("-inl.h", ".cuh")):
            if not cuda and needs_cuda(path):
                continue
            command = [*base, str(path)]
            jobs.append((path, command, fingerprint(path, command)))
    return check_each("headers", jobs)


def tidy(check, wanted, checks=""):
    """`checks` comes behind .clang-tidy's own list."""
    program = tool("clang-tidy")
    version = run([program, "--version"]).stdout
    if "version 14." not in version:
        raise Skip("wants clang-tidy 14: each version finds other things")
    configs = [p.read_text() for p in sorted(ROOT.rglob(".clang-tidy"))
               if "build" not in p.parts]
    jobs = []
    for path, command in sorted(compile_commands().items()):
        if not wanted(path):
            continue
        key = fingerprint(path, version, configs, checks, command)
        jobs.append((path, [program, "--quiet", "--checks=" + checks,
                            "-p", str(BUILD), str(path)], key))
    return check_each(check, jobs)


def is_source(path):
    """clang-tidy 14 does not read nvcc's command lines."""
    return path.parts[0] != "tests" and path.suffix != ".cu"


def check_tidy():
    return tidy("tidy", is_source, "-clang-analyzer-*")


def check_analyzer():
    return tidy("analyzer", is_source, "-*,clang-analyzer-*,"
                "-clang-analyzer-optin.performance.Padding")


def check_tidy_tests():
    return tidy("tidy-tests", lambda path: path.parts[0] == "tests")


def check_shell():
    program = tool("shellcheck")
    scripts = [".ci/run"]
    for path in [*(ROOT / "tools").iterdir(), *(ROOT / "tests").rglob("*.sh")]:
        if path.is_file() and re.match(
                rb"#!.*\b(ba)?sh\b|# shellcheck", path.read_bytes()[:200]):
            scripts.append(str(path.relative_to(ROOT)))
    # 2317: older ones take functions that are called by name for dead code.
    result = run([program, "-x", "-e", "SC2317", *scripts])
    print(result.stdout + result.stderr, end="")
    return result.returncode == 0


def check_tables():
    """The top README's tables are what tests/bench/results say."""
    result = run([sys.executable, "tests/bench/make_tables.py", "--check"])
    print(result.stdout + result.stderr, end="")
    return result.returncode == 0


CHECKS = {
    "format": check_format,
    "directions": check_directions,
    "headers": check_headers,
    "tidy": check_tidy,
    "analyzer": check_analyzer,
    "tidy-tests": check_tidy_tests,
    "shell": check_shell,
    "tables": check_tables,
}
# Six to eight minutes each, for code that two compilers and the sanitizers see:
# by name only.
ON_DEMAND = ["analyzer", "tidy-tests"]


def main(names):
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        sys.exit(f"no check named {unknown[0]}; there are: {', '.join(CHECKS)}")
    lines = []
    for name in names or [c for c in CHECKS if c not in ON_DEMAND]:
        try:
            lines.append(f"{'passed' if CHECKS[name]() else 'failed'} {name}")
        except Skip as reason:
            lines.append(f"skipped {name} ({reason})")
    print("\n".join(lines))
    sys.exit(any(line.startswith("failed") for line in lines))


if __name__ == "__main__":
    main(sys.argv[1:])
