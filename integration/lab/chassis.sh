#!/bin/sh
# What ipmi_sim runs for `chassis power ...`: tells whether the machine really is on, and switches it.
#   chassis.sh BMC_DIR MACHINE_DIR get|set power|reset|shutdown [VALUE]
# BMC_DIR/mode makes it lie: `lie-off` says off and does nothing, `ignore` says success and does nothing.
bmc=$1 machine=$2 verb=$3 what=$4 value=$5
mode=$(cat "$bmc/mode" 2> /dev/null)

is_on() {
    read -r pid start < "$machine/pid1" || return 1
    read -r line < "/proc/$pid/stat" || return 1
    set -- ${line##*)}
    [ "${20}" = "$start" ] && [ "$1" != Z ] && [ "$1" != X ]
} 2> /dev/null

if [ "$verb" = get ]; then
    if [ "$mode" != lie-off ] && is_on; then echo "$what:1"; else echo "$what:0"; fi
    exit 0
fi
if [ "$mode" = lie-off ] || [ "$mode" = ignore ]; then exit 0; fi
case $what-$value in
    power-1) act=power-on ;;
    power-0 | shutdown-*) act=power-off ;;
    reset-*) act=reset ;;
    *) exit 0 ;;
esac
# Filled in by bmc.py: the lab's name, the interpreter and the folder that holds the `integration` package.
. "$bmc/env"
cd "$LAB_ROOT" && exec "$LAB_PYTHON" -S -E -m integration.lab chassis "${machine##*/}" "$act" > "$bmc/chassis.out" 2>&1
