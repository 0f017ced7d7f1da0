#!/bin/sh
# Installs what ships on a distribution as its user would, and works with it: run by the release
# workflow in a privileged container of that distribution, as root.
#
# usage: in-container.sh OUT SIM WORK   (what was packaged, the simulator, `work.sh`)
set -eu
OUT=$1 SIM=$2 WORK=$3
export SIM
. "$WORK"
version=$(sed -n 's/^.*bin\/asmt-\(.*\)-linux-x64$/\1/p' "$OUT/SHA256SUMS")
case $(uname -m) in
  x86_64) arch=x64 deb=amd64 rpm=x86_64 ;;
  aarch64) arch=arm64 deb=arm64 rpm=aarch64 ;;
esac
if command -v apk > /dev/null; then
  # Alpine has musl: npm's package is the way there.
  apk add --no-cache nodejs npm
  npm install -g "$OUT/npm/asmt-linux-$arch-musl-$version.tgz" "$OUT/npm/asmt-$version.tgz" --omit=optional
elif command -v dpkg > /dev/null; then
  apt-get update -qq
  apt-get install -y -qq "$OUT/deb/asmt-rs_$version-1_$deb.deb"
else
  # Without the repositories, which may be gone for old ones: what it needs is in each image.
  rpm -i "$OUT/rpm/asmt-rs-$version-1.$rpm.rpm" ||
    { { dnf install -y -q libstdc++ || microdnf install -y libstdc++; } && rpm -i "$OUT/rpm/asmt-rs-$version-1.$rpm.rpm"; }
fi
asmt --version
work /var/backups/asmt asmt
# The single file, too, where it is for: glibc.
if ! command -v apk > /dev/null; then
  work /var/backups/single env -i "$OUT/bin/asmt-$version-linux-$arch"
fi
echo "passed on $(. /etc/os-release && echo "$PRETTY_NAME"), $arch"
