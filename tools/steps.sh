# Sourced by the scripts beside it: steps that show progress and keep a log.
# shellcheck shell=bash

# Other checkouts of this repository share compiler results.
CCACHE_BASEDIR="$(pwd)"
export CCACHE_BASEDIR CCACHE_NOHASHDIR=1

# step TITLE LOG COMMAND...: runs the command with its output in LOG. A terminal
# sees the latest line of it; anything else sees a sign of life each minute.
step() {
  local title=$1 log=$2 start=$SECONDS next=60 code=0
  shift 2
  mkdir -p "$(dirname "$log")"
  if [[ ! -t 1 ]]; then echo "-- $title"; fi
  "$@" >"$log" 2>&1 </dev/null &
  local pid=$!
  # shellcheck disable=SC2064  # the pid of now is meant
  trap "kill $pid 2>/dev/null; exit 130" INT TERM
  while kill -0 "$pid" 2>/dev/null; do
    if [[ -t 1 ]]; then
      printf '\r\033[K-- %s (%ds) %.50s' "$title" $((SECONDS - start)) \
        "$(tail -n 1 "$log" | tr -d '\r')"
    elif ((SECONDS - start >= next)); then
      echo "   ... $((SECONDS - start)) s: $(tail -n 1 "$log" | cut -c1-60)"
      next=$((next + 60))
    fi
    sleep 0.2
  done
  wait "$pid" || code=$?
  trap - INT TERM
  if [[ -t 1 ]]; then printf '\r\033[K-- %s' "$title"; else printf '  '; fi
  if ((code == 0)); then
    echo " done in $((SECONDS - start)) s"
  else
    echo " FAILED after $((SECONDS - start)) s; the end of $log:"
    tail -n 40 "$log" | sed 's/^/   | /'
  fi
  return "$code"
}

# build PRESET: configures and builds.
build() { cmake --preset "$1" && cmake --build --preset "$1"; }

# Says what the build is made for: CMake's AUTO looks in the same places.
say_target() {
  if [[ -n ${CUDACXX:-} ]] || command -v nvcc >/dev/null ||
    [[ -x ${CUDA_HOME:-/usr/local/cuda}/bin/nvcc ]]; then
    echo "-- nvcc found: building for the CPU and for NVIDIA GPUs"
  else
    echo "-- no nvcc: building for the CPU only"
  fi
}
