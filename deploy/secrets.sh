#!/usr/bin/env bash
# Creates the secrets that compose.yaml mounts: random, one file each. Existing files are not changed.
set -euo pipefail
readonly FOLDER="${1:-$(dirname "${BASH_SOURCE[0]}")/secrets}"

mkdir -p "$FOLDER"
# The files are mounted into containers with other users, so all may read them; the mode of the folder keeps others out.
chmod 700 "$FOLDER"
umask 022

random() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

make() {
    local file="$FOLDER/$1"
    [ -e "$file" ] || printf '%s\n' "$2" >"$file"
}

make postgres-password "$(random)"
make token "$(random)"
make metrics-token "$(random)"
make grafana-password "$(random)"
make database-url "postgres://tidemill:$(cat "$FOLDER/postgres-password")@postgres:5432/tidemill"
