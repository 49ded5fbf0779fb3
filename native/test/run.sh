#!/usr/bin/env bash
# Builds and runs the C tests under AddressSanitizer and UndefinedBehaviorSanitizer, and the threaded one under
# ThreadSanitizer. Needs gcc and its sanitizer libraries; no root, no network. Ends with 1 at the first failure.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p build

sources=(../bpf.c ../netlink.c ../outstanding.c ../queue.c ../raw.c ../watchdog.c)
flags=(-std=c11 -D_GNU_SOURCE -O1 -g -Wall -Wextra -Wconversion -Wno-sign-conversion -Werror -fno-omit-frame-pointer -pthread)

build() { # name, sanitizers
  "${CC:-gcc}" "${flags[@]}" "-fsanitize=$2" -fno-sanitize-recover=all -o "build/$1-${2%%,*}" "$1.c" "${sources[@]}"
}

for name in bpf_test messages_test outstanding_test queue_test; do
  build "$name" address,undefined
  "build/$name-address"
  echo "ok $name"
done

# ThreadSanitizer of older compilers cannot live with much address randomisation.
build queue_test thread
if setarch -R true 2>/dev/null; then setarch -R build/queue_test-thread; else build/queue_test-thread; fi
echo "ok queue_test (threads)"
