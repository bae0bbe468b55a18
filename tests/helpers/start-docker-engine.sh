#!/usr/bin/env bash
# Run a private Docker engine in the foreground until this process ends:  start-docker-engine.sh DIRECTORY
#
# It lives in its own network, mount and process namespaces, listens on DIRECTORY/docker.sock and touches no
# engine, bridge, firewall rule or setting of the machine. When this process ends, in whatever way, the engine and
# all its containers end too; DIRECTORY and the (empty) control groups DIRECTORY/cgroup names may then be deleted.
# Needs Linux and root; installs Debian's docker.io and iptables where they are missing (and, with them, bubblewrap
# for the tests of the sandbox without an engine). No registry is needed for an image with Python:
#     export DOCKER_HOST=unix://DIRECTORY/docker.sock
#     python3 tests/helpers/make_python_image.py /usr/bin/python3 | docker import - python:3.12-slim
set -euo pipefail

directory=${1:?usage: start-docker-engine.sh DIRECTORY}
cgroup=/gpt-oss-engine-$$

if [ "$(uname -s)" != Linux ] || [ "$(id -u)" != 0 ]; then
    echo "start-docker-engine.sh: a private engine needs Linux and root" >&2
    exit 3
fi
if ! command -v dockerd >/dev/null || ! command -v iptables >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get -o DPkg::Lock::Timeout=300 update -qq
    apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends docker.io iptables bubblewrap
fi

mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
rm -rf "$directory/docker.sock" "$directory/exec" "$directory/dockerd.pid"  # a stale containerd.pid stalls dockerd
echo "$cgroup" >"$directory/cgroup"
init=""
if command -v tini >/dev/null; then init="tini -g --"; fi

cat >"$directory/inner.sh" <<INNER
set -e
umount /sys/fs/cgroup/unified 2>/dev/null || true  # in this mount namespace only: hybrid hierarchies confuse crun
ip link set lo up
exec $init dockerd --host "unix://$directory/docker.sock" --data-root "$directory/data" \\
    --exec-root "$directory/exec" --pidfile "$directory/dockerd.pid" --cgroup-parent "$cgroup" \\
    --exec-opt native.cgroupdriver=cgroupfs --storage-driver overlay2 --userland-proxy=false --log-level warn
INNER

# The engine must not outlive the one who asked for it: --pdeathsig ends unshare with its parent, --kill-child
# ends the first process of the namespace with unshare, and the kernel ends the namespace with its first process.
exec setpriv --pdeathsig KILL \
    unshare --net --mount --pid --fork --kill-child=KILL --mount-proc --propagation private \
    bash "$directory/inner.sh"
