#!/bin/sh
# systemd as the first process of namespaces of its own, over the files of this host: what it writes is gone with it.
# Called in those namespaces, with a folder that holds `files`, laid over the root; leaves its process there as `pid`.
set -e
folder=$1
read -r pid rest </proc/self/stat
mount --make-rprivate /
mount -t tmpfs tmpfs "$folder/over"
mkdir "$folder/over/upper" "$folder/over/work" "$folder/over/root"
root=$folder/over/root
mount -t overlay -o "lowerdir=/,upperdir=$folder/over/upper,workdir=$folder/over/work" overlay "$root"
mount -t proc proc "$root/proc"
# The kernel's settings are everybody's.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for empty in run tmp dev etc/systemd/system usr/lib/systemd/system-generators; do
    mount -t tmpfs -o mode=0755 tmpfs "$root/$empty"
done
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty "$root/dev/"
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue" "$root/dev/hugepages"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
chmod 1777 "$root/tmp"
cp -a "$folder/files/." "$root/"
echo "$pid" >"$folder/pid.new"
mv "$folder/pid.new" "$folder/pid"
cd "$root"
mkdir run/host
pivot_root . run/host
umount -l /run/host
exec env -i container=tests PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=basic.target --log-target=journal --show-status=0
