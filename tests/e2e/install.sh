#!/usr/bin/env bash
# Installs the reference network (PLC directory, PDS, reference consumer, and the Node they run on) into a cache
# folder, and links it as tests/e2e/node_modules. Done again only when the lock file changes.
#
# better-sqlite3 is compiled against the installed Node's own headers, since there is no prebuilt one to rely on.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
home=${REFNET_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/atproto-relay/refnet}
wanted=$(cat "$here/package.json" "$here/package-lock.json" | sha256sum)

if [ "$(cat "$home/.installed" 2>/dev/null || true)" != "$wanted" ]; then
  mkdir -p "$home"
  cp "$here/package.json" "$here/package-lock.json" "$home/"
  (
    cd "$home"
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
    node=$(echo "$home"/node_modules/node-linux-*)
    PATH="$node/bin:$PATH" npm_config_nodedir="$node" npm_config_build_from_source=true \
      npm rebuild better-sqlite3 --dangerously-allow-all-scripts --loglevel=error
    PATH="$node/bin:$PATH" node -e "new (require('better-sqlite3'))(':memory:').close()"
  )
  echo "$wanted" > "$home/.installed"
fi
ln -sfn "$home/node_modules" "$here/node_modules"
