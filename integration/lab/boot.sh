#!/bin/bash
# The first process of a lab machine: makes the machine's own view of the file system, starts its services, and
# becomes tini. Run by machine.py inside fresh pid, mount, uts and ipc namespaces and the machine's network namespace.
#   boot.sh MACHINE_DIR NAME DIRECTORY...
# MACHINE_DIR/pid1 gets "pid start-time" as seen from outside: /proc is still the outer one. That file is what
# "powered on" means, so it comes first.
set -eu
dir=$1 name=$2
shift 2
read -r line < /proc/self/stat
stat=($line)
echo "${stat[0]} ${stat[21]}" > "$dir/pid1"

mount --make-rprivate /
# Copies of other namespaces' handles and of other machines' disks would keep those alive after a teardown.
umount -R -l /run/netns 2> /dev/null || true
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount --bind "$dir/boot_id" /proc/sys/kernel/random/boot_id
for path in "$@"; do
    mount --bind "$dir/disk/$path" "/$path"
done
for file in hostname hosts machine-id nsswitch.conf; do
    mount --bind "$dir/etc/$file" "/etc/$file"
done
while read -r _ target _; do
    case $target in /var/tmp/dr-*/machines/*/disk) umount -l "$target" ;; esac
done < /proc/mounts
hostname "$name"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/sshd /run/faketime
cp -r "$dir/sv" /run/sv
cd /run/sv
for service in *; do
    if [ -d "$service" ]; then setsid runsv "$service" & fi
done
cd /
# tini reaps: without a reaper dead QEMUs stay zombies and libvirt waits 40 s at the end of each migration.
exec tini -s -- sleep infinity
