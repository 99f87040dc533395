#!/bin/busybox sh
# shellcheck shell=sh
# PID 1 of the virtual machine in tests/nfs.rs: mounts the export with the kernel's own client and shows what
# it sees on the serial console. The server's port comes on the kernel command line.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
dmesg -n 6
for module in /modules/*; do insmod "$module"; done
read -r line </proc/cmdline
for word in $line; do
    case $word in nfsport=*) port=${word#nfsport=} ;; esac
done
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0

options="addr=10.0.2.2,vers=3,nolock,proto=tcp,port=$port,mountport=$port,mountproto=tcp,hard,timeo=20,retrans=1"
mkdir /ro /rw
mount -t nfs -o "ro,$options" 10.0.2.2:/roots/demo /ro && echo "@ mounted"
mount -t nfs -o "ro,$options" 10.0.2.2:/roots/none /rw || echo "@ no such export"

cd /ro || exit
# shellcheck source=tests/nfs/listing.sh
. /listing.sh
[ "$(stat -c %i usr/bin/tool)" = "$(stat -c %i usr/bin/link)" ] && echo "@ hard link"
echo x >dev/null && echo "@ device node"
df -P . | tail -n 1 | sed 's/^/@df /'
touch new 2>&1 | sed 's/^/@ro /'

mount -t nfs -o "rw,$options" 10.0.2.2:/roots/demo /rw
for attempt in "touch new" "mkdir new" "mknod new p" "ln etc/empty new" "ln -s x new" "rm -f etc/empty" "mv -f etc/empty new"; do
    (cd /rw && $attempt) 2>&1 | sed "s/^/@rw /"
done
sh -c 'echo x >>/rw/etc/empty' 2>&1 | sed 's/^/@rw /'

# A file is open across the restart, and one is read again and again.
exec 3<usr/bin/tool
dd bs=100000 count=1 <&3 >/head 2>/head.log
echo "@ restart now"
round=0
while [ "$round" -lt 1000 ]; do
    round=$((round + 1))
    echo 3 >/proc/sys/vm/drop_caches
    echo "@round $round $(sha256sum <usr/bin/tool) $(find big | wc -l)"
    # The test says on the console when it has seen enough.
    # shellcheck disable=SC3045  # BusyBox has it.
    if read -r -t 0 _; then break; fi
done
sha256sum <&3 | sed 's/^/@rest /'
echo "@ end"
poweroff -f
