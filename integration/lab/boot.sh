#!/bin/bash
# The first process of a lab machine: makes the machine's own view of the file system, starts its services, and
# becomes tini or systemd. Run by machine.py inside fresh pid, mount, uts and ipc namespaces and the machine's network
# namespace.
#   boot.sh MACHINE_DIR NAME tini|systemd CGROUP DIRECTORY...
# MACHINE_DIR/pid1 gets "pid start-time" as seen from outside: /proc is still the outer one. That file is what
# "powered on" means, so it comes first. CGROUP: the cgroup2 folder that shall be systemd's root.
set -eu
dir=$1 name=$2 init=$3 group=$4
shift 4
read -r line < /proc/self/stat
stat=($line)
echo "${stat[0]} ${stat[21]}" > "$dir/pid1"
if [ "$init" = systemd ]; then echo 0 > "$group/cgroup.procs"; fi

mount --make-rprivate /
# Copies of other namespaces' handles and of other machines' disks would keep those alive after a teardown.
umount -R -l /run/netns 2> /dev/null || true
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/sshd /run/faketime /run/disk
mount --bind "$dir/disk" /run/disk
mapfile -t mounts < /proc/mounts # as a whole: read line by line, an unmount in between makes it skip the next
for mounted in "${mounts[@]}"; do
    read -r _ target _ <<< "$mounted"
    case $target in /var/tmp/dr-*/machines/*/disk) umount -l "$target" ;; esac
done
if [ "$init" = systemd ]; then . "${0%/*}/systemd.d/view.sh"; fi
mount --bind "$dir/boot_id" /proc/sys/kernel/random/boot_id
for path in "$@"; do
    mount --bind "/run/disk/$path" "/$path"
done
umount /run/disk
for file in hostname hosts machine-id nsswitch.conf; do
    mount --bind "$dir/etc/$file" "/etc/$file"
done
hostname "$name"
cp -r "$dir/sv" /run/sv
cd /run/sv
for service in *; do
    if [ "$init-$service" = systemd-libvirtd ]; then continue; fi # a unit there: others are ordered by it
    if [ -d "$service" ]; then setsid runsv "$service" & fi
done
cd /
if [ "$init" = systemd ]; then
    setsid cat <> /dev/kmsg >> /var/log/dr/systemd.log 2> /dev/null &
    # In a cgroup namespace of its own, so that systemd takes the machine's group for the whole tree.
    exec env -i PATH="$PATH" LANG=C.UTF-8 container=lab unshare --cgroup sh -c '
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        exec /lib/systemd/systemd --system --log-target=kmsg --show-status=no'
fi
# tini reaps: without a reaper dead QEMUs stay zombies and libvirt waits 40 s at the end of each migration.
exec tini -s -- sleep infinity
