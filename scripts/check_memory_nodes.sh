#!/usr/bin/env bash
# Whether threads and weights lie on the memory nodes as they should, on a machine with two of them that QEMU plays: four processors, 4 GiB.
#
#   check_memory_nodes.sh BISE
#
# Needs the Debian packages qemu-system-x86 and busybox-static; fetches a Debian kernel. About three minutes. Exit status 1 when a page
# of a weight lies on another node than was asked for, or a thread is not bound.
set -euo pipefail
bise=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

kernel=$(apt-cache depends linux-image-cloud-amd64 | grep -oE 'linux-image-[0-9][^ ]+' | head -n 1)
apt-get download "$kernel" >apt.log 2>&1 || { cat apt.log >&2; exit 1; }
dpkg -x ./*.deb kernel

mkdir -p root/bin root/proc root/sys root/tmp
cp /bin/busybox root/bin/
strip -o root/bin/bise "$bise"
ldd "$bise" | grep -oE '/[^ ]+' | sort -u | while read -r library; do
  mkdir -p "root/$(dirname "$library")"
  cp -L "$library" "root/$library"
done
"$bise" bench make-model root/m.gguf --format Q8_0 --layers 2 --hidden 1024 --ffn 4096 --heads 8 --vocab 8192 >/dev/null
cat >root/init <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t tmpfs tmp /tmp
export PATH=/bin HOME=/tmp
echo; echo BEGIN
bise doctor 2>/dev/null | grep ^cores
bise bench decode /m.gguf --threads 4 --contexts 16 --reps 1000 >/tmp/out 2>&1 &
process=$!
for i in $(seq 60); do sleep 1; grep -q prefer /proc/$process/numa_maps && break; done
sleep 20
grep -E "prefer|interleave" /proc/$process/numa_maps
for task in /proc/$process/task/*; do grep Cpus_allowed_list $task/status; done
echo END
poweroff -f
INIT
chmod +x root/init
(cd root && find . | busybox cpio -o -H newc 2>/dev/null) | gzip -1 >initrd.gz

timeout 600 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -m 4096 -smp 4 \
  -object memory-backend-ram,size=2G,id=m0 -object memory-backend-ram,size=2G,id=m1 \
  -numa node,nodeid=0,cpus=0-1,memdev=m0 -numa node,nodeid=1,cpus=2-3,memdev=m1 \
  -kernel kernel/boot/vmlinuz-* -initrd initrd.gz -append "console=ttyS0 quiet panic=-1" -nographic -no-reboot >log 2>&1 </dev/null || true
tr -d '\r' <log | sed -n '/^BEGIN/,/^END/p' >said
cat said
grep -q '^END' said || { tail -n 40 log >&2; exit 1; }
awk '
  /prefer:/ { asked = $2; sub("prefer:", "", asked)
              for (i = 3; i <= NF; ++i) if ($i ~ /^N[01]=/) { split($i, of, "="); if (of[1] == "N" asked) near += of[2]; else far += of[2] } }
  /Cpus_allowed_list/ { if ($2 == "0-1") ++first; if ($2 == "2-3") ++second }
  END { print near + 0 " pages of weights where they belong, " far + 0 " elsewhere; bound threads: " first + 0 " and " second + 0
        exit !(near > 10000 && far == 0 && first == 1 && second == 2) }' said
