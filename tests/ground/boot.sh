#!/bin/sh
# Runs as PID 1 of new namespaces until it becomes the init: boot.sh LOWER DIRECTORY CGROUP IMAGES mount|leave INIT…
# LOWER: the overlay's lower layers; `mount`: the init expects the cgroups to be mounted. The mount namespace is private, so
# nothing of this is visible outside.
# shellcheck disable=SC2016  # the inner shells expand their own words
set -eu
lower=$1 dir=$2 cgroup=$3 images=$4 unified=$5
shift 5
echo 0 >"$cgroup/cgroup.procs"
root=$dir/root
mount -t overlay -o "lowerdir=$lower,upperdir=$dir/upper,workdir=$dir/work" ground "$root"
for name in home opt var root; do mount --bind "$dir/$name" "$root/$name"; done
mkdir -p "$root/var/cache/appbox-dev/images"
mount --bind -o ro "$images" "$root/var/cache/appbox-dev/images"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t sysfs -o nosuid,nodev,noexec sysfs "$root/sys"
mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs "$root/run"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/tmp"
mount -t tmpfs -o mode=0755,nosuid tmpfs "$root/dev"
for name in null zero full random urandom tty fuse net/tun; do
    [ -e "/dev/$name" ] || continue
    [ "$name" = "${name#*/}" ] || mkdir -p "$root/dev/${name%/*}"
    : >"$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5,nosuid,noexec devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/0 "$root/dev/stdin"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
mount -t mqueue -o nosuid,nodev,noexec mqueue "$root/dev/mqueue"
: >"$root/dev/console"
mount --bind "$dir/console" "$root/dev/console"
exec unshare --cgroup sh -eu -c '
    root=$1 unified=$2
    shift 2
    [ "$unified" != mount ] || mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
    hostname ground
    mkdir "$root/run/old"
    cd "$root"
    pivot_root . run/old
    exec chroot . sh -eu -c "
        umount -l /run/old
        rmdir /run/old
        mount --make-rshared /
        ip link set lo up
        exec env -i container=ground TERM=dumb PATH=/usr/sbin:/usr/bin:/sbin:/bin \"\$@\" </dev/null >>/dev/console 2>&1
    " sh "$@"
' sh "$root" "$unified" "$@"
