#!/bin/bash
# The guest's first process: mounts what a host has, and runs the scenes. Its end is the machine's.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/run/home LANG=C.UTF-8
export PYTHONPATH=/immure/src:/immure/tests:/packages
mount -t proc proc /proc
mount -t sysfs sysfs /sys
for folder in /tmp /run /home /var/tmp; do mount -t tmpfs -o mode=1777 tmpfs $folder; done
mkdir /dev/pts /dev/shm /run/home /home/plain /home/ranges
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
busybox chown 1000:1000 /home/plain
busybox chown 1001:1001 /home/ranges
busybox ifconfig lo up
# As systemd does it, so that who has a cgroup namespace can't lift limits from outside it.
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
mkswap -q /dev/vdb && swapon /dev/vdb
cd /immure && "$PYTHON" -m cgroup2.inside.scenery
busybox reboot -f
