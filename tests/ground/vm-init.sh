#!/bin/busybox sh
# shellcheck shell=dash
# The first program of a virtual machine: loads modules, mounts the disks, starts the agent and becomes the init.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in /modules/*.ko; do insmod "$module" || echo "cannot load $module"; done
tries=0
until mount -t ext4 -o rw,noatime /dev/vda /new 2>/dev/null; do
    [ "$tries" -lt 100 ] || { echo "there is no disk"; exec sleep 1000; }
    tries=$((tries + 1))
    sleep 0.1
done
# What this machine has besides: to be copied over the root, or to be looked at.
read -r options </proc/cmdline
case " $options " in
*" ground.look "*) mount -t ext4 -o ro,noload /dev/vdb /new/media ;;
*)
    mkdir /more
    mount -t ext4 -o ro,noload /dev/vdb /more
    cp -af /more/. /new/
    umount /more
    ;;
esac
port=
for entry in /sys/class/virtio-ports/*; do
    read -r name <"$entry/name" && [ "$name" = ground ] && port=/dev/${entry##*/}
done
for name in dev proc sys; do mount --move "/$name" "/new/$name"; done
: >/dev/null # what a shell starts in the background reads from there
init=
while read -r word || [ -n "$word" ]; do init="$init $word"; done </new/ground/init
# It stays when the init comes, which knows nothing of it.
chroot /new setsid /usr/bin/python3 /ground/agent.py "$port" &
# shellcheck disable=SC2086  # words without spaces in them
exec switch_root /new $init
