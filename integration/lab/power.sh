#!/bin/sh
# Holds a machine's power: runs it, and looks at how it ended, as a host's firmware does when the host reboots or
# switches itself off. reboot(2) in a pid namespace ends its PID 1 by SIGHUP (restart) or SIGINT (halt, power off), and
# `unshare` ends as its child did.
#   power.sh LAB NAME ROOT PYTHON OUTER_CGROUP -- COMMAND...
lab=$1 name=$2 root=$3 python=$4 outer=$5
shift 6
"$@"
case $? in
    129) act=restarted ;;
    130) act=switched-off ;;
    *) exit ;;
esac
# Out of the machine's cgroup, which is emptied before it boots again. Still this pid: it is on record.
echo $$ > "$outer/cgroup.procs"
cd "$root" && DR_LAB=$lab exec "$python" -S -E -m integration.lab chassis "$name" "$act"
