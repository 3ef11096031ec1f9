#!/usr/bin/env bash
# Write the secrets of deploy/compose.yaml, once: random passwords, and the URLs that hold them.
# A file that is there is kept, so a second call changes nothing.
set -euo pipefail
umask 077
folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"

keep() { [ -s "$folder/$1" ] || printf '%s' "$2" > "$folder/$1"; }
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

for name in postgres s3_secret neo4j sync_token grafana; do keep "$name" "$(random)"; done
password=$(cat "$folder/postgres")
keep warehouse_url "postgresql://tidemill:$password@postgres:5432/warehouse"
keep dagster_url "postgresql://tidemill:$password@postgres:5432/dagster"
keep neo4j_auth "neo4j/$(cat "$folder/neo4j")"
# The images run as uid 10001 with group 0: their files are read by the group, and by nobody else.
chgrp 0 "$folder"/* 2>/dev/null || true
chmod 0750 "$folder" && chmod 0640 "$folder"/*
