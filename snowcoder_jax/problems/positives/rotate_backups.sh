#!/usr/bin/env bash
#
# Keep the newest backups and delete the rest.
#
# A folder collects backups named NAME-YYYYMMDD.tar.gz, one series per NAME. Keep
# the newest KEEP files of every series and delete the older ones; touch nothing
# else in the folder. The date in the file name counts, not the time stamp of the
# file, because copying the folder changes time stamps. With -n only print what
# would be deleted.
#
# Usage: rotate_backups.sh [-n] FOLDER KEEP

set -euo pipefail

usage() {
    echo "usage: ${0##*/} [-n] FOLDER KEEP" >&2
    exit 2
}

# Print the files of FOLDER that are too old, one per line.
outdated() {
    local folder=$1 keep=$2
    local file series count
    local -A seen=()

    # Within a series all names have the same length and the date is written from
    # year to day, so reverse alphabetical order is newest first.
    while IFS= read -r file; do
        series=${file%-*}
        count=$((${seen[$series]:-0} + 1))
        seen[$series]=$count
        if ((count > keep)); then
            printf '%s\n' "$file"
        fi
    done < <(find "$folder" -maxdepth 1 -type f \
        -name '*-[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9].tar.gz' | LC_ALL=C sort -r)
}

dry_run=false
if [[ ${1:-} == -n ]]; then
    dry_run=true
    shift
fi
[[ $# -eq 2 && -d $1 && $2 =~ ^[0-9]+$ ]] || usage

outdated "$1" "$2" | while IFS= read -r file; do
    echo "delete $file"
    if [[ $dry_run == false ]]; then
        rm -- "$file"
    fi
done
