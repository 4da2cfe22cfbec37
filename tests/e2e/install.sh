#!/usr/bin/env bash
# Installs the reference network (PLC directory, PDS, reference consumer, and the Node they run on) into a cache
# folder, and links it as tests/e2e/node_modules. Done again only when what is installed changes.
#
# better-sqlite3 is compiled for the installed Node, since there is no prebuilt one to rely on, by the node-gyp of the
# lock file: Debian's links what it builds to the libnode of Debian's Node, and two Nodes in a process end in a crash.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${REFNET_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/atproto-relay}
version=$(cat "$here/package.json" "$here/package-lock.json" "$0" | sha256sum | cut -c 1-16)
home=$cache/refnet-$version

if [ ! -d "$home" ]; then
  mkdir -p "$cache"
  work=$(mktemp -d "$cache/installing.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  cp "$here/package.json" "$here/package-lock.json" "$work/"
  (
    cd "$work"
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
    node=$(echo "$work"/node_modules/node-linux-*)
    export PATH="$node/bin:$PATH"
    cd node_modules/better-sqlite3
    # Little is asked of it here: compiling it for speed costs more time than that gives.
    CFLAGS=-O1 CXXFLAGS=-O1 node ../node-gyp/bin/node-gyp.js rebuild --release --nodedir="$node" --jobs=max --loglevel=error >"$work/build.log" 2>&1 ||
      { cat "$work/build.log" >&2; exit 1; }
    node -e "new (require('better-sqlite3'))(':memory:').close()"
  )
  chmod 755 "$work"
  # Another run may have been faster. What is there is whole, since it came by this line, too.
  mv -T "$work" "$home" || [ -d "$home" ]
fi
ln -sfn "$home/node_modules" "$here/node_modules"
