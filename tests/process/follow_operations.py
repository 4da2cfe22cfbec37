#!/usr/bin/env python3
"""Follows docs/operations.md to the letter, from apt to the public firehose, on a bare Debian that may be thrown away.

    python3 tests/process/follow_operations.py            as root in a chroot (debootstrap); 77 and a reason elsewhere
    python3 tests/process/follow_operations.py --print    only the shell script that it would run

Every `sh` block is run, in its order, in one shell; `sh example` blocks are not. Two lines are changed: the relay's
name becomes relay.localhost, for which Caddy is its own certificate authority, and the repository is this checkout's
HEAD. What such a root cannot have is in `stand_ins/`: systemd as process 1, its journal, a kernel of its own. Between
the blocks are the checks that a reader makes by eye. Standard library only: a bare machine has nothing else.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "operations.md"
STAND_INS = Path(__file__).resolve().parent / "stand_ins"
EXIT_SKIPPED = 77

NAME = "relay.localhost"
REPOSITORY = Path("/root/atproto-relay.git")
# There while this root is in use, so that a run that was cut off is cleared away by the next one.
MARK = Path("/root/follow-operations")
POLICY = Path("/usr/sbin/policy-rc.d")
PORTS = (80, 443, 2470, 2471)

FIREHOSE = f"""/opt/relay/bin/python - <<'EOF'
import ssl
from websockets.sync.client import connect
authorities = ssl.create_default_context(cafile="/etc/ssl/certs/ca-certificates.crt")
uri = "wss://{NAME}/xrpc/com.atproto.sync.subscribeRepos"
with connect(uri, ssl=authorities, sock=__import__("socket").create_connection(("127.0.0.1", 443))) as firehose:
    print(uri, "says", firehose.response.status_code)
EOF"""

# What is done after the block that has the words: a look at what it did, or what the world outside would bring.
AFTER = {
    "useradd --system": ["# apt has started it, unless it was installed before.", "systemctl start postgresql"],
    "cat >> /etc/relay/relay.env": ['test "$(stat -c %U:%G:%a /etc/relay/relay.env)" = root:relay:640'],
    "cat > /usr/local/bin/relay": [
        'test "$(relay --version)" = "$(/opt/relay/bin/relay --version)"',
        'BEFORE=$(git -C /opt/relay/src rev-parse HEAD); relay --version | grep "$BEFORE"',
    ],
    "systemctl enable --now relay": [
        "curl -fsS http://127.0.0.1:2471/_health",
        'curl -fsS http://127.0.0.1:2471/metrics | grep "^relay_build_info.*$BEFORE"',
        'test "$(ps -o user= -p "$(cat /run/stand-ins/relay.service.pid)")" = relay',
        'grep -q libjemalloc "/proc/$(cat /run/stand-ins/relay.service.pid)/maps"',
    ],
    "systemctl reload caddy": [
        "# A public authority is trusted by everyone; Caddy's own only by those who are told.",
        "for _ in $(seq 50); do test -e $CADDY_ROOT && break; sleep 0.2; done",
        "cp $CADDY_ROOT /usr/local/share/ca-certificates/stand-in.crt",
        "update-ca-certificates",
    ],
    '"https://$NAME/xrpc/_health"': [
        FIREHOSE,
        'test "$(curl -s -o /dev/null -w "%{http_code}" "http://$NAME/")" = 308',
    ],
    "apt-get install -y --no-install-recommends prometheus": ["promtool check config /etc/prometheus/prometheus.yml"],
    "relay hosts list": [
        "relay bans add banned-before-the-backup.example",
        "# What came to the repository meanwhile.",
        f"git -C {REPOSITORY} update-ref refs/heads/main "
        f"$(git -C {REPOSITORY} -c user.name=x -c user.email=x@x commit-tree -p main -m next 'main^{{tree}}')",
    ],
    "git -C /opt/relay/src pull": [
        f'relay --version | grep "$(git -C {REPOSITORY} rev-parse main)"',
        "ls /var/backups/relay/relay-*.dump",
    ],
    "checkout ORIG_HEAD": ['relay --version | grep "$BEFORE"'],
    "pg_restore": ["relay bans list | grep banned-before-the-backup.example"],
}


class Block(NamedTuple):
    """A fenced block of shell."""

    line: int
    heading: str
    example: bool
    text: str


def blocks(document: str) -> list[Block]:
    """The shell blocks of a document, in order. Raises ValueError for a fence of another kind."""
    found: list[Block] = []
    heading, lines = "", iter(enumerate(document.splitlines(), 1))
    for number, line in lines:
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if not line.startswith("```"):
            continue
        if line not in ("```sh", "```sh example"):
            raise ValueError(f"line {number}: {line}: neither to be run nor an example")
        text = []
        for _, inner in lines:
            if inner == "```":
                break
            text.append(inner)
        found.append(Block(number, heading, line.endswith("example"), "\n".join(text)))
    return found


def script(document: str) -> str:
    """The shell script that follows the document. Raises ValueError when a check finds no block, or several."""
    lines = ["set -eu -o pipefail", "CADDY_ROOT=/var/lib/caddy/.local/share/caddy/pki/authorities/local/root.crt"]
    to_run = [block for block in blocks(document) if not block.example]
    for words in AFTER:
        if sum(words in block.text for block in to_run) != 1:
            raise ValueError(f"not in one block: {words}")
    for block in to_run:
        text = re.sub(r"^NAME=.*", f"NAME={NAME}", block.text, flags=re.MULTILINE)
        text = re.sub(r"^REPOSITORY=.*", f"REPOSITORY={REPOSITORY}", text, flags=re.MULTILINE)
        lines += [f"printf '\\n== {DOCUMENT.name}:{block.line} (%s, %s s)\\n' '{block.heading}' $SECONDS", text]
        lines += [line for words, checks in AFTER.items() if words in block.text for line in checks]
    return "\n".join([*lines, "printf '\\n== followed to the end in %s s\\n' $SECONDS", ""])


def in_chroot() -> bool:
    """Whether this process's root is a folder of a larger system."""
    mounts = Path("/proc/self/mountinfo").read_text("utf-8").splitlines()
    if all(line.split()[4] != "/" for line in mounts):
        return True
    try:
        return not os.path.samefile("/", "/proc/1/root")
    except OSError:
        return False


def reason_to_skip() -> str | None:
    """Why this machine is not one to be changed, or None."""
    if os.geteuid() != 0:
        return "needs root, in a root made by debootstrap"
    if not in_chroot():
        return "this is a whole machine, not a root made by debootstrap"
    if not Path("/etc/debian_version").exists():
        return "this is not Debian"
    if Path("/opt/relay").exists() and not MARK.exists():
        return "/opt/relay is there already"
    for port in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return f"port {port} is in use"
    return None


def bring_repository() -> None:
    """This checkout's HEAD as a bare repository of root's, from which git clones without a question."""
    here = ["git", "-c", "safe.directory=*", "-C", str(ROOT)]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*here, "bundle", "create", "-q", f"{folder}/bundle", "HEAD"], check=True)
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", REPOSITORY], check=True)
        subprocess.run(["git", "-C", REPOSITORY, "fetch", "-q", f"{folder}/bundle", "HEAD:main"], check=True)


def clear() -> None:
    """Take away what a run made, but for the packages."""
    systemctl = STAND_INS / "systemctl"
    for unit in ("relay", "caddy", "prometheus", "prometheus-node-exporter"):
        subprocess.run([systemctl, "stop", unit], capture_output=True)
    if shutil.which("dropdb") and Path("/opt/relay").exists():
        for command in ("dropdb", "dropuser"):
            subprocess.run(["runuser", "-u", "postgres", "--", command, "--if-exists", "relay"], capture_output=True)
    subprocess.run([systemctl, "stop", "postgresql"], capture_output=True)
    subprocess.run(["userdel", "relay"], capture_output=True)
    for folder in ("/opt/relay", "/etc/relay", "/var/lib/relay", "/var/backups/relay", "/run/stand-ins", REPOSITORY):
        shutil.rmtree(folder, ignore_errors=True)
    for file in ("/usr/local/bin/relay", "/etc/sysctl.d/relay.conf", "/usr/local/share/ca-certificates/stand-in.crt"):
        Path(file).unlink(missing_ok=True)
    for unit_file in Path("/etc/systemd/system").glob("relay*"):
        unit_file.unlink()


def main() -> int:
    """Follow the document. 0: to its end; 1: something in it failed; 77: not on this machine."""
    commands = script(DOCUMENT.read_text("utf-8"))
    if sys.argv[1:] == ["--print"]:
        print(commands)
        return 0
    if (reason := reason_to_skip()) is not None:
        print(f"not followed: {reason}")
        return EXIT_SKIPPED
    kept_policy = POLICY.read_text() if POLICY.exists() else None
    clear()
    MARK.touch()
    try:
        # Debian starts the services that it installs; those without an init script wait for the stand-in.
        POLICY.write_text("#!/bin/sh\ncase $1 in postgresql | prometheus*) exit 0 ;; esac\nexit 101\n")
        POLICY.chmod(0o755)
        bring_repository()
        environment = os.environ | {
            "HOME": "/root",
            "PATH": f"{STAND_INS}:{os.environ['PATH']}",
            "DEBIAN_FRONTEND": "noninteractive",
        }
        done = subprocess.run(["bash", "-c", commands], env=environment, stdin=subprocess.DEVNULL, cwd="/root")
        if done.returncode != 0:
            for log in sorted(Path("/run/stand-ins").glob("*.log")):
                print(f"\n== the end of {log}", *log.read_text().splitlines()[-20:], sep="\n")
            return 1
        return 0
    finally:
        if kept_policy is None:
            POLICY.unlink()
        else:
            POLICY.write_text(kept_policy)
        clear()
        MARK.unlink()


if __name__ == "__main__":
    sys.exit(main())
