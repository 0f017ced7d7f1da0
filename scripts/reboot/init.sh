#!/bin/bash
# Boots a machine: this one's systemd becomes the first process of its namespaces, over an overlay of
# this machine's files. What is below DIR stays from boot to boot, as on a disk.
#
# usage: init.sh DIR, in namespaces of its own
#
# Must never: change anything outside DIR, the kernel's settings included.
set -euo pipefail
dir=$1 root=$1/root
# A mount of its own: the overlay is not below itself.
mount --bind "$dir" "$dir"
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" "$root"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount --bind "$dir/boot_id" "$root/proc/sys/kernel/random/boot_id"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
# It stays over a soft reboot.
mount --bind "$dir/run" "$root/run"
cp "$dir/boot_id" "$root/run/boot_id"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for name in null zero full random urandom tty; do
  touch "$root/dev/$name"
  mount --bind "/dev/$name" "$root/dev/$name"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs tmpfs "$root/dev/shm"
# The server's storage device, and the file system of the backups.
[ ! -e "$dir/device" ] || cp -a "$(readlink "$dir/device")" "$root/dev/asd0"
mkdir -p "$root/disk"
mount -o loop "$dir/backups.img" "$root/disk"
mkdir -p "$root/old"
cd "$root"
pivot_root . old
umount -l /old
exec env -i container=asmt-test LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --unit=multi-user.target --log-target=journal --show-status=no
