#!/bin/sh
# The permit hook of dr (live migration and disaster recovery for libvirt hosts). Written by the dr agent, which puts
# it back when it is changed. libvirt calls it with: GUEST OPERATION SUBOPERATION EXTRA, and the domain's XML on stdin.
#
# A guest that dr protects may start (prepare), be received (migrate) or restored (restore) on this host only with a
# permit: one file, used once, that names the operations in the order in which libvirt will ask. Everything else passes.
# It must never call libvirt (that would deadlock), and it fails closed for protected guests, open for all others.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL

protected='@protected@'
permits='@permits@'
consumed='@consumed@'
uptime='@proc@/uptime'

guest=$1
operation=$2

case $operation in
    prepare | migrate | restore) ;;
    *) exit 0 ;;
esac

refuse() {
    printf '%s\n' "@marker@: $*" >&2
    exit 1
}

# The first <uuid> of the XML is the guest's own: libvirt writes it before anything that a user can fill in.
uuid=
while IFS= read -r line || [ -n "$line" ]; do
    case $line in
        *'<uuid>'*'</uuid>'*)
            uuid=${line#*<uuid>}
            uuid=${uuid%%</uuid>*}
            break
            ;;
    esac
done

[ -d "$protected" ] || refuse "the list of guests that dr protects is missing on this host ($protected), so no guest" \
    "may $operation here. Start the dr agent, which writes it again: systemctl start dr-agent. If this host no longer" \
    "belongs to dr, remove the hook: rm /etc/libvirt/hooks/qemu.d/50-dr"

case $uuid in
    *[!0-9a-f-]* | '') uuid= ;;
    ????????-????-????-????-????????????) ;;
    *) uuid= ;;
esac
[ -n "$uuid" ] || refuse "no UUID was found in the XML of guest $guest, so it cannot be told whether dr protects it." \
    "Another hook in /etc/libvirt/hooks may have changed that XML."

[ -e "$protected/$uuid" ] || [ -L "$protected/$uuid" ] || exit 0

# A permit is one line: OPERATION... [until=UPTIME] [ticket=ID]. Sets `rest` to the operations that remain after this
# one; fails when this one is not the next.
allows() {
    next=
    rest=
    ticket=
    for word in $1; do
        case $word in
            ticket=*) ticket=$word ;;
            until=*)
                read -r now _ <"$uptime" || return 1
                [ "${now%.*}" -lt "${word#until=}" ] || return 1
                ;;
            *) if [ -z "$next" ]; then next=$word; else rest="$rest$word "; fi ;;
        esac
    done
    [ "$next" = "$operation" ]
}

no_permit() {
    refuse "guest $guest is protected by dr and has no permit to $operation on this host. It may run elsewhere." \
        "To start it where it belongs: dr guest start $guest"
}

permit=$permits/$uuid
set -f
line=
[ -f "$permit" ] && read -r line <"$permit"
allows "$line" || no_permit

# Of two that come here with one permit, only one can move it away. What was moved is read again: it may be a newer one.
mine=$consumed/$uuid.$$
mv -T "$permit" "$mine" 2>/dev/null || no_permit
line=
read -r line <"$mine"
allows "$line" || no_permit

# An incoming guest is asked about twice, within moments: what remains of its permit is good for ten seconds.
if [ -n "$rest" ]; then
    read -r now _ <"$uptime" || no_permit
    now=${now%.*}
    echo "$rest until=$((now + 10)) $ticket" >"$mine.rest" && mv -T "$mine.rest" "$permit" || no_permit
fi
exit 0
