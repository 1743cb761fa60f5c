#!/usr/bin/env bash
# Installs what Deflector needs on Debian 12, step by step, and skips each step whose inputs have not changed,
# so that a second run needs no network. Called by `make setup`; needs root only where packages are missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
root=$PWD

PACKAGES=(python3 python3-venv python3-bpfcc linux-headers-amd64 nftables iptables iproute2 iputils-ping curl nghttp2-client
  openssl wrk util-linux bind9-dnsutils
  libevent-2.1-7 libprotobuf-c1 libpython3.11 libnghttp2-14)  # the last four: what unbound is linked with

say() { printf '\033[36m%s\033[0m %s\n' "setup:" "$*" >&2; }
die() { printf 'setup: %s\n' "$*" >&2; exit 2; }

missing=()
for package in "${PACKAGES[@]}"; do
  [ "$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null)" = "install ok installed" ] || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
  [ "$(id -u)" = 0 ] || die "Debian packages are missing (${missing[*]}): run 'make setup' as root"
  say "installing Debian packages: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  log=$(mktemp)
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 \
    || { tail -5 "$log" >&2; die "apt-get failed (its whole output: $log)"; }
  rm -f "$log"
fi

stamp=.venv/.setup-stamp
want=$(cat setup.sh pyproject.toml constraints.txt | sha256sum | cut -d' ' -f1)-$root
if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
  say "making the virtual environment and installing Python packages"
  # The system's interpreter and its site-packages: bcc exists only as a Debian package.
  [ -x .venv/bin/python ] || /usr/bin/python3 -m venv --system-site-packages .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' 2> >(grep -v '^WARNING' >&2) \
    || die "pip failed: is a package index reachable?"
  # Our `xds` package and the one of xds-protos share a name: ours must be found first, and it extends its path.
  site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  echo "import sys; sys.path[:0] = ['$root', '$root/build/pb']" > "$site/deflector-first.pth"
  echo "$want" > "$stamp"
fi

protos=$(cd flows/proto && find . -name '*.proto' | sort)
stamp=build/pb/.stamp
want=$(cat flows/proto/*/*.proto constraints.txt 2>/dev/null | sha256sum | cut -d' ' -f1)
if [ -n "$protos" ] && [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
  say "generating protobuf code"
  rm -rf build/pb && mkdir -p build/pb
  # shellcheck disable=SC2086
  (cd flows/proto && "$root/.venv/bin/python" -m grpc_tools.protoc -I. --python_out="$root/build/pb" --pyi_out="$root/build/pb" \
    --grpc_python_out="$root/build/pb" $protos)
  find build/pb -mindepth 1 -type d -exec touch {}/__init__.py \;
  echo "$want" > "$stamp"
fi

# Unpacked and not installed, since installing these packages starts services: what tests and suites need of them.
unpack() { # PACKAGE BINARY
  [ -x "build/$1/$2" ] && return
  say "unpacking $1"
  rm -rf "build/$1" && mkdir -p "build/$1/deb"
  local log
  log=$(mktemp)
  (cd "build/$1/deb" && { apt-get download "$1" || { apt-get update -qq && apt-get download "$1"; }; } && dpkg -x "$1"_*.deb . &&
    install -D "$2" "../$2" && cd .. && rm -rf deb) >"$log" 2>&1 \
    || { tail -5 "$log" >&2; die "cannot fetch the Debian package $1 (whole output: $log)"; }
  rm -f "$log"
}
unpack prometheus usr/bin/prometheus # the dashboards' queries are put to it
unpack unbound usr/sbin/unbound      # the nameserver of the conformance suites
