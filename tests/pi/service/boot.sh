#!/bin/sh
# Boots systemd as process 1 of a container made of this machine's own files: boot.sh WORK [BIND...]
#
# To be started by `unshare --fork --pid --mount --cgroup --kill-child`, as root. WORK/root becomes its root: this
# machine's files, on which whatever is written is gone afterwards. Kernel settings and cgroups of the machine
# cannot be changed from inside; devices are a handful that harm nobody. BIND are folders to be seen inside too, read-only.
set -eu
work=$1
shift
mount --make-rprivate /
mount -t tmpfs -o size=2g tmpfs "$work"
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay -o lowerdir=/,upperdir="$work/upper",workdir="$work/work" overlay "$work/root"
cd "$work/root"
mount -t proc proc proc
mount --bind -o ro proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for folder in run tmp dev; do mount -t tmpfs tmpfs "$folder"; done
for node in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod -m 666 "dev/${node%:*}" c 1 "${node#*:}"
done
mknod -m 666 dev/tty c 5 0
ln -s null dev/console
ln -s /proc/self/fd dev/fd
mkdir dev/shm dev/pts run/lock
mount -t tmpfs tmpfs dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
for folder; do
    mkdir -p "./$folder"
    mount --bind "$folder" "./$folder"
    mount -o remount,bind,ro "./$folder"
done
# Nothing of this machine's own services, nor of those that set up a machine: the test asks for what it needs.
rm -rf etc/systemd/system etc/machine-id var/log/journal lib/systemd/system/*.target.wants
mkdir -p etc/systemd/system run/systemd run/machine
# Not just chroot, in which the kernel would refuse the service its own namespace of users.
pivot_root . run/machine
exec env -i container=maskedge-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    sh -c 'cd /; umount -l /run/machine; exec "$@"' sh /lib/systemd/systemd --unit=systemd-journald.service --show-status=no --log-target=journal
