#!/usr/bin/env bash
# Checks deploy/Dockerfile without a container engine: copies what each stage copies, parses every command as a shell, and runs Cargo's
# checks in a folder that has only what the builder gets.
#
#   deploy/replay.sh          prints a line for each check that passes; exits with 1 at the first that fails
set -euo pipefail

readonly ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
readonly DOCKERFILE="$ROOT/deploy/Dockerfile"
readonly IGNORE="$DOCKERFILE.dockerignore"

fail() {
    echo "replay: $*" >&2
    exit 1
}

say() {
    echo "replay: $*"
}

# The instructions of the Dockerfile, one per line, without comments and with continued lines joined.
instructions() {
    grep -v '^[[:space:]]*#' "$DOCKERFILE" | sed -e ':again' -e '/\\$/{N;s/\\\n[[:space:]]*//;b again' -e '}' | grep -v '^[[:space:]]*$'
}

# Whether the path, relative to the root, is sent to the engine: the ignore file excludes all but the paths that it names.
is_sent() {
    local path="$1" line
    while read -r line; do
        case "$line" in
            '!'*) [[ "$path/" == "${line#!}/"* ]] && return 0 ;;
        esac
    done <"$IGNORE"
    return 1
}

# Copies into the folder as the instruction says.
replay_copy() {
    local into="$1" stage="$2" words destination source
    read -r -a words <<<"$3"
    destination="${words[-1]}"
    unset 'words[-1]'
    for source in "${words[@]}"; do
        [ -e "$ROOT/$source" ] || fail "stage $stage copies $source, which is not there"
        is_sent "$source" || fail "stage $stage copies $source, which $(basename "$IGNORE") leaves out"
        case "$destination" in
            */) mkdir -p "$into/$destination" && cp -R "$ROOT/$source" "$into/$destination" ;;
            *) mkdir -p "$into/$(dirname "$destination")" && cp -R "$ROOT/$source" "$into/$destination" ;;
        esac
    done
    say "stage $stage: copies ${words[*]}"
}

# Checks a build with the features in a folder that has only what the builder gets.
replay_build() {
    local folder="$1" arguments="$2" features binary word previous=""
    for word in $arguments; do
        case "$previous" in
            --features) features="$word" ;;
            --bin) binary="$word" ;;
        esac
        previous="$word"
    done
    [[ " $arguments " == *" --locked "* ]] || fail "cargo build $arguments is not locked"
    (cd "$folder" && cargo metadata --locked --no-deps --format-version 1) | python3 -c '
import json, sys
targets = [t["name"] for p in json.load(sys.stdin)["packages"] for t in p["targets"] if "bin" in t["kind"]]
sys.exit(0 if sys.argv[1] in targets else 1)' "$binary" || fail "there is no binary $binary"
    # Fails if a feature does not exist, or if Cargo.lock does not match Cargo.toml.
    (cd "$folder" && cargo tree --quiet --locked --edges normal,build --features "$features" --prefix none) >"$folder/tree" ||
        fail "Cargo refuses --locked --features $features"
    if [[ ",$features," == *,kafka-tls,* ]]; then
        grep -q '^openssl-src ' "$folder/tree" || fail "--features $features builds no OpenSSL"
    fi
    say "cargo build $arguments: $(sort -u "$folder/tree" | grep -c ' v') crates, all of them in Cargo.lock"
}

# Files that the source includes at compile time must have been copied, and the migrations.
replay_includes() {
    local folder="$1" file path
    while IFS=: read -r file path; do
        [ -e "$folder/$(dirname "$file")/$path" ] || fail "$file includes $path, which the builder does not get"
        say "$file includes $path"
    done < <(cd "$folder" && grep -rEo 'include_(str|bytes)!\("[^"]+"\)' src | sed -E 's/include_[a-z]+!\("([^"]+)"\)/\1/')
    [ -d "$folder/migrations" ] || fail "the builder does not get the migrations, which are compiled in"
}

main() {
    local work stage="" line keyword rest builds=0
    work="$(mktemp -d)"
    trap "rm -rf '$work'" EXIT
    mkdir -p "$work/builder" "$work/other"
    while read -r line; do
        keyword="${line%% *}"
        rest="${line#* }"
        case "$keyword" in
            FROM) stage="${rest##* }" ;;
            COPY)
                case "$rest" in
                    --from=*) ;;
                    *) replay_copy "$work/$([ "$stage" = builder ] && echo builder || echo other)" "$stage" "$rest" ;;
                esac
                ;;
            RUN)
                while [[ "$rest" == --mount=* ]]; do
                    rest="${rest#* }"
                    rest="${rest#"${rest%%[! ]*}"}"
                done
                bash -n <<<"$rest" || fail "stage $stage: no shell understands: $rest"
                if [[ "$rest" == *"cargo auditable build "* ]]; then
                    rest="${rest#*cargo auditable build }"
                    replay_includes "$work/builder"
                    replay_build "$work/builder" "${rest%% && *}"
                    builds=$((builds + 1))
                fi
                if [[ "$rest" == *deploy/build-cuda.sh* ]]; then
                    # The script adds the features that its own options name.
                    replay_build "$work/builder" "--release --locked --bin tidemill --features cuda,kafka-tls"
                    builds=$((builds + 1))
                fi
                ;;
        esac
    done < <(instructions)
    [ "$builds" -eq 2 ] || fail "found $builds builds in the Dockerfile where there are two"
    for line in "$ROOT"/deploy/*.sh "$ROOT"/deploy/*/*.sh; do
        bash -n "$line" || fail "no shell understands $line"
        [ -x "$line" ] || fail "$line cannot be executed"
    done
    say "done"
}

main "$@"
