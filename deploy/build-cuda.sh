#!/usr/bin/env bash
# Builds tidemill for NVIDIA GPUs (`engine.device = "cuda"`) on a machine that needs neither a GPU nor an installed CUDA toolkit.
#
#   deploy/build-cuda.sh                  target/cuda/release/tidemill, feature `cuda`; ten minutes on two cores
#   deploy/build-cuda.sh --flash-attn     with flash attention as well; each of its seven kernel files takes five minutes of one core
#   deploy/build-cuda.sh --check          only check that the code compiles with the feature; compiles no kernels and downloads nothing
#   deploy/build-cuda.sh --kafka-tls      with TLS to Kafka as well
#   deploy/build-cuda.sh --auditable      with the list of crates inside the binary, by cargo-auditable, which must be installed
#   deploy/build-cuda.sh --pack           also write target/cuda/tidemill.tar.xz, without symbols, for copying to a machine with a GPU, where
#                                         tests/bench/gpu.py measures it; fails if it is larger than 60 MB
#
# The compiler and the libraries come as Python packages, pinned below by version and hash: about 700 MB, downloaded once and stored in
# $TIDEMILL_CACHE_DIR, else $XDG_CACHE_HOME/tidemill, else ~/.cache/tidemill.
#
# The binary needs a driver of series 580 or later, and libcublas, libcublasLt, libcurand, libnvrtc and libcudart of CUDA 13, as in NVIDIA's
# runtime images. Without them the loader names the missing library; use the usual binary there. CUDA_COMPUTE_CAP names the GPUs to compile
# for; the default is 90 (Hopper).

set -euo pipefail

readonly COMPUTE_CAPABILITY="${CUDA_COMPUTE_CAP:-90}"

# The kernels are PTX, and a driver accepts PTX only from a toolkit that is not newer than itself: stay at 13.0 for drivers of series 580.
readonly CUDA_VERSION="13.0"
readonly PACKAGES="\
nvidia-cuda-nvcc==13.0.88 --hash=sha256:56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03
nvidia-cuda-crt==13.0.88 --hash=sha256:2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4
nvidia-nvvm==13.0.88 --hash=sha256:c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0
nvidia-cuda-nvrtc==13.0.88 --hash=sha256:ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575
nvidia-cuda-runtime==13.0.96 --hash=sha256:7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548
nvidia-cuda-cccl==13.0.85 --hash=sha256:e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649
nvidia-cublas==13.0.2.14 --hash=sha256:0cf238ffdbe46c00cb9aa98e7bca745c223a5ca5a53e686ac8b3e5a08fe80d6c
nvidia-curand==10.4.0.35 --hash=sha256:1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc"

# CUTLASS as flash attention's build script needs it: release 3.5.0, which is this commit. The script would clone it otherwise.
readonly CUTLASS_PACKAGE="nvidia-cutlass==3.5.0.0 --hash=sha256:4ec3ab4820dd4ae3ebc2c5ddf23352b0dc90f779435284e7dce822006adc51f6"
readonly CUTLASS_COMMIT="7d49e6c7e2f8896c47f586706e67e1fb215529dc"

# The kernels that src/engine/gpu/flash_attention.rs uses: encoders attend to whole sequences, decoders to the blocks of their cache, and weights on
# GPUs are bf16. Each further kernel file would take as long again.
readonly FLASH_KERNELS='flash_fwd_(hdim(32|64|128)_bf16|splitkv_hdim(64|128)_bf16(_causal)?)_sm80\.cu$'

# The largest archive, in bytes.
readonly MOST_PACKED=60000000

readonly ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
readonly TARGET="$ROOT/target/cuda"

CARGO_BUILD=(cargo build)
PACK=""

fail() {
    echo "build-cuda: $*" >&2
    exit 1
}

say() {
    echo "build-cuda: $*" >&2
}

need() {
    command -v "$1" >/dev/null || fail "$1 is missing; install $2"
}

cache_folder() {
    local folder="${TIDEMILL_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/tidemill}"
    mkdir -p "$folder" 2>/dev/null || fail "cannot make $folder; set TIDEMILL_CACHE_DIR to a folder that can be written"
    (cd "$folder" && pwd)
}

# Downloads the packages listed on stdin and unpacks them into one folder, because they share a layout.
unpack_packages() {
    local into="$1" requirements wheels
    wheels="$into.wheels"
    rm -rf "$into" "$wheels"
    mkdir -p "$into" "$wheels"
    requirements="$wheels/requirements.txt"
    cat >"$requirements"
    python3 -m pip download --quiet --disable-pip-version-check --no-input --no-deps --only-binary=:all: --require-hashes \
        --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux_2_12_x86_64 \
        --platform manylinux2014_x86_64 --platform manylinux2010_x86_64 --platform any \
        --python-version 3.11 --requirement "$requirements" --dest "$wheels" >&2 ||
        fail "cannot download the packages; pip says why above"
    # Keep the executable bit of programs, which Python's zipfile drops.
    python3 - "$into" "$wheels"/*.whl <<'PYTHON' || fail "cannot unpack the packages into $into"
import os, sys, zipfile

target, *archives = sys.argv[1:]
for archive in archives:
    with zipfile.ZipFile(archive) as files:
        for entry in files.infolist():
            path = files.extract(entry, target)
            if not entry.is_dir() and entry.external_attr >> 16 & 0o111:
                os.chmod(path, 0o755)
PYTHON
    rm -rf "$wheels"
}

# The toolkit as build scripts expect one: bin, include, lib64 with unversioned names, and a driver library to link against.
prepare_toolkit() {
    local cache="$1" toolkit partial library
    toolkit="$cache/cuda-$CUDA_VERSION"
    if [ -e "$toolkit/.complete" ]; then
        echo "$toolkit"
        return
    fi
    say "downloading the CUDA $CUDA_VERSION compiler and libraries (700 MB) into $cache"
    partial="$toolkit.partial"
    unpack_packages "$partial" <<<"$PACKAGES"
    [ -x "$partial/nvidia/cu13/bin/nvcc" ] || fail "the packages hold no nvidia/cu13/bin/nvcc: their layout has changed"
    rm -rf "$toolkit"
    mv "$partial/nvidia/cu13" "$toolkit"
    rm -rf "$partial"
    # nvcc looks for its parts in lib64, and linkers look for names without versions.
    ln -sfn lib "$toolkit/lib64"
    for library in "$toolkit"/lib/*.so.*; do
        ln -sf "$(basename "$library")" "${library%%.so.*}.so"
    done
    make_driver_stub "$toolkit"
    touch "$toolkit/.complete"
    echo "$toolkit"
}

# The driver's library comes with the driver, so a machine without one has none to link against. A library of the same name with the
# functions that the bindings name is enough; at run time the real one is found.
make_driver_stub() {
    local toolkit="$1" bindings source
    bindings="$(crate_folder cudarc)/src/driver/sys/mod.rs"
    [ -r "$bindings" ] || fail "cannot find $bindings; cudarc keeps its driver bindings elsewhere now"
    mkdir -p "$toolkit/lib/stubs"
    source="$toolkit/lib/stubs/libcuda.c"
    grep -oE '\bfn cu[A-Z][A-Za-z0-9_]*' "$bindings" | sort -u | sed 's/^fn \(.*\)$/void \1(void) {}/' >"$source"
    [ "$(wc -l <"$source")" -gt 100 ] || fail "$bindings names hardly any driver function; cudarc writes them otherwise now"
    gcc -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$toolkit/lib/stubs/libcuda.so" "$source" || fail "cannot compile the driver stub"
}

# The folder of a dependency's source, in the version of Cargo.lock.
crate_folder() {
    (cd "$ROOT" && cargo metadata --locked --format-version 1 --features cuda) | python3 -c '
import json, os, sys
found = [p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == sys.argv[1]]
print(os.path.dirname(found[0]) if found else "")' "$1"
}

# Flash attention's build script clones CUTLASS unless this folder has it at its commit.
prepare_cutlass() {
    local cache="$1" checkout partial
    checkout="$cache/cudaforge/git/checkouts/cutlass-${CUTLASS_COMMIT:0:16}"
    if [ ! -e "$checkout/.complete" ]; then
        say "downloading CUTLASS (4 MB) into $cache"
        partial="$cache/cutlass.partial"
        unpack_packages "$partial" <<<"$CUTLASS_PACKAGE"
        rm -rf "$checkout"
        mkdir -p "$checkout/tools/util"
        mv "$partial/cutlass_library/source/include" "$checkout/include" || fail "the package holds no headers of CUTLASS"
        mv "$partial/cutlass_library/source/tools/util/include" "$checkout/tools/util/include"
        rm -rf "$partial"
        git init --quiet "$checkout"
        echo "$CUTLASS_COMMIT" >"$checkout/.git/HEAD"
        touch "$checkout/.complete"
    fi
    echo "$cache/cudaforge"
}

# nvcc for flash attention: kernel files that no supported model needs become functions that print so and end the process.
make_selective_nvcc() {
    local toolkit="$1" wrapper="$1/bin/nvcc-selective"
    cat >"$wrapper" <<WRAPPER
#!/usr/bin/env bash
set -euo pipefail
readonly NVCC="$toolkit/bin/nvcc" WANTED='$FLASH_KERNELS'
WRAPPER
    cat >>"$wrapper" <<'WRAPPER'
file="${*: -1}"
name="$(basename "$file")"
if [[ ! "$name" =~ ^flash_fwd_.*\.cu$ || "$name" =~ $WANTED ]]; then
    exec "$NVCC" "$@"
fi
folder="$(cd "$(dirname "$file")" && pwd)"
stub="$(mktemp -d)"
trap 'rm -rf "$stub"' EXIT
signature="$(grep -E '^void run_mha_fwd' "$file" | head -n 1)"
[ -n "$signature" ] || exec "$NVCC" "$@"
cat >"$stub/$name" <<STUB
#include <cstdio>
#include <cstdlib>
#include <cutlass/numeric_types.h>
#include "flash.h"
template<>
$signature
    (void)params;
    (void)stream;
    std::fprintf(stderr, "flash attention was built without $name; see FLASH_KERNELS in deploy/build-cuda.sh\\n");
    std::abort();
}
STUB
"$NVCC" -I "$folder" "${@:1:$#-1}" "$stub/$name"
WRAPPER
    chmod +x "$wrapper"
    echo "$wrapper"
}

# A compiler that compiles nothing, so that only Rust is checked.
make_idle_nvcc() {
    local toolkit="$1"
    mkdir -p "$toolkit/bin" "$toolkit/include" "$toolkit/lib64"
    cat >"$toolkit/bin/nvcc" <<'WRAPPER'
#!/usr/bin/env bash
set -euo pipefail
output="" folder="" file="${*: -1}" ptx=""
while [ $# -gt 0 ]; do
    case "$1" in
        --version) printf 'nvcc\n\n\nCuda compilation tools, release 13.0, V13.0.88\n'; exit ;;
        --list-gpu-code) printf 'sm_80\nsm_90\n'; exit ;;
        -o) output="$2"; shift ;;
        --output-directory) folder="$2"; shift ;;
        --ptx) ptx=1 ;;
    esac
    shift
done
if [ -n "$ptx" ]; then
    name="$(basename "$file")"
    : >"$folder/${name%.cu}.ptx"
elif [ -n "$output" ]; then
    rm -f "$output"
    case "$output" in
        *.a) ar rcs "$output" ;;
        *) : >"$output" ;;
    esac
fi
WRAPPER
    chmod +x "$toolkit/bin/nvcc"
}

check() {
    local features="$1" idle="$TARGET/idle-toolkit"
    make_idle_nvcc "$idle"
    export CUDA_HOME="$idle" NVCC="$idle/bin/nvcc" PATH="$idle/bin:$PATH" CUDA_COMPUTE_CAP="$COMPUTE_CAPABILITY"
    # The same commit as the real one, but empty, like the kernels.
    if [[ "$features" == *flash-attn* ]]; then
        export CUDAFORGE_HOME="$idle/cudaforge"
        local checkout="$CUDAFORGE_HOME/git/checkouts/cutlass-${CUTLASS_COMMIT:0:16}"
        mkdir -p "$checkout/include"
        git init --quiet "$checkout"
        echo "$CUTLASS_COMMIT" >"$checkout/.git/HEAD"
    fi
    # A separate target folder: the output of the dummy compiler must never be linked.
    cargo check --locked --features "$features" --target-dir "$TARGET/check" ||
        fail "the code does not compile with --features $features"
    say "the code compiles with --features $features; no kernel was compiled"
}

build() {
    local features="$1" cache toolkit binary
    cache="$(cache_folder)"
    toolkit="$(prepare_toolkit "$cache")"
    export CUDA_HOME="$toolkit" PATH="$toolkit/bin:$PATH" CUDA_COMPUTE_CAP="$COMPUTE_CAPABILITY"
    export NVCC="$toolkit/bin/nvcc" LIBRARY_PATH="$toolkit/lib64:$toolkit/lib64/stubs${LIBRARY_PATH:+:$LIBRARY_PATH}"
    if [[ "$features" == *flash-attn* ]]; then
        CUDAFORGE_HOME="$(prepare_cutlass "$cache")"
        NVCC="$(make_selective_nvcc "$toolkit")"
        export CUDAFORGE_HOME NVCC
    fi
    "${CARGO_BUILD[@]}" --release --locked --bin tidemill --features "$features" --target-dir "$TARGET" ||
        fail "the build failed; the first error above says where"
    binary="$TARGET/release/tidemill"
    local library libraries
    libraries="$(ldd "$binary")"
    for library in libcuda.so.1 libcublas.so.13; do
        [[ "$libraries" == *"$library"* ]] || fail "$binary does not ask for $library: it was built without CUDA"
    done
    say "built $binary for compute capability $COMPUTE_CAPABILITY with --features $features"
    [ -z "$PACK" ] || pack "$binary"
}

# The binary without symbols, compressed. The same binary gives the same archive.
pack() {
    local binary="$1" archive="$TARGET/tidemill.tar.xz" folder="$TARGET/packed" bytes
    rm -rf "$folder"
    mkdir -p "$folder"
    strip --strip-all -o "$folder/tidemill" "$binary" || fail "cannot strip $binary"
    tar --create --directory "$folder" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=755 tidemill |
        xz --threads=0 -6 --stdout >"$archive.partial" || fail "cannot compress $folder/tidemill"
    rm -rf "$folder"
    mv "$archive.partial" "$archive"
    bytes="$(stat --format=%s "$archive")"
    [ "$bytes" -le "$MOST_PACKED" ] ||
        fail "$archive has $bytes bytes, and $MOST_PACKED are the most; build without --flash-attn, or for one GPU by CUDA_COMPUTE_CAP"
    say "packed $archive: $bytes bytes"
}

main() {
    local features="cuda" mode="build" more="" argument
    for argument in "$@"; do
        case "$argument" in
            --flash-attn) features="cuda,flash-attn" ;;
            --check) mode="check" ;;
            --pack) PACK=1 ;;
            --kafka-tls) more=",kafka-tls" ;;
            --auditable) CARGO_BUILD=(cargo auditable build) ;;
            *) fail "unknown argument $argument; there are --flash-attn, --check, --pack, --kafka-tls and --auditable" ;;
        esac
    done
    features+="$more"
    [ "$(uname -sm)" = "Linux x86_64" ] || fail "the packages are for Linux on x86_64, and this is $(uname -sm)"
    [[ "$COMPUTE_CAPABILITY" =~ ^[0-9]+$ ]] || fail "CUDA_COMPUTE_CAP is $COMPUTE_CAPABILITY; write it like 90"
    need cargo "Rust"
    need gcc "a C compiler"
    need g++ "a C++ compiler"
    need git "git"
    need python3 "Python 3 with pip"
    if [ -n "$PACK" ]; then
        need strip "binutils"
        need xz "xz-utils"
    fi
    cd "$ROOT"
    "$mode" "$features"
}

main "$@"
