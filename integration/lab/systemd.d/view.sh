# Read by boot.sh where systemd will be PID 1. It runs with every capability in the initial user namespace, so it gets
# nothing to change the real machine with: the real /etc, /usr, /var and sysctls read-only, a /dev without disks,
# consoles and kernel log, and no unit or generator but those that are listed here.
for path in etc usr var proc/sys; do
    mount --bind "/$path" "/$path"
    mount -o remount,bind,ro "/$path"
done
# The only sysctls that belong to a network namespace, and libvirt sets some.
mkdir /run/proc
mount -t proc proc /run/proc
mount --bind /run/proc/sys/net /proc/sys/net
umount /run/proc
rmdir /run/proc

mkdir /run/dev
mount -t tmpfs -o mode=755 tmpfs /run/dev
for node in null zero full random urandom tty net kvm fuse; do
    if [ -e "/dev/$node" ]; then cp -a "/dev/$node" /run/dev/; fi
done
mkdir -m 755 /run/dev/pts /run/dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /run/dev/pts
mount -t tmpfs -o mode=1777 tmpfs /run/dev/shm
ln -s pts/ptmx /run/dev/ptmx
ln -s null /run/dev/console
# boot.sh reads what systemd itself has to say. No journald: it would read and write the real kernel's log.
mkfifo -m 600 /run/dev/kmsg
mount --move /run/dev /dev
rmdir /run/dev

mkdir -p /run/lab/units /run/lab/none
for unit in \
    basic.target ctrl-alt-del.target exit.target final.target halt.target local-fs-pre.target local-fs.target \
    multi-user.target network-online.target network-pre.target network.target nss-lookup.target \
    nss-user-lookup.target paths.target poweroff.target reboot.target remote-fs-pre.target remote-fs.target \
    shutdown.target sigpwr.target slices.target sockets.target swap.target sysinit.target time-set.target \
    time-sync.target timers.target umount.target systemd-halt.service systemd-poweroff.service \
    systemd-reboot.service user.slice machine.slice dbus.socket dbus.service systemd-logind.service \
    systemd-machined.service libvirt-guests.service virt-guest-shutdown.target; do
    if [ -e "/usr/lib/systemd/system/$unit" ]; then cp "/usr/lib/systemd/system/$unit" /run/lab/units/; fi
done
ln -s multi-user.target /run/lab/units/default.target
# The names that the bus starts them by.
ln -s systemd-logind.service /run/lab/units/dbus-org.freedesktop.login1.service
ln -s systemd-machined.service /run/lab/units/dbus-org.freedesktop.machine1.service
cp -r "${0%/*}/systemd.d/units/." /run/lab/units/
mount --bind /run/lab/units /usr/lib/systemd/system
for path in /usr/lib/systemd/system-generators /usr/lib/systemd/system-shutdown; do
    if [ -d "$path" ]; then mount --bind /run/lab/none "$path"; fi
done
if [ -e "$dir/etc/libvirt-guests" ]; then
    mount --bind "$dir/etc/libvirt-guests" /etc/default/libvirt-guests
fi
