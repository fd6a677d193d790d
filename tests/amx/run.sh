#!/usr/bin/env bash
# Checks the AMX kernels on a machine without AMX: kernels/matrix_unit.cc runs on bare metal in Bochs, which emulates a
# Sapphire Rapids. Takes a minute; downloads 60 MB of Debian packages into build/amx (nothing is installed).
# Not part of the test suite: CPUs with AMX run matrix_unit_test on the real thing.
#
#   tests/amx/run.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
case ${1:-} in
  "") ;;
  -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) echo "amx: unknown option $1 (see --help)" >&2; exit 2 ;;
esac
source=$PWD
. tests/unpack.sh
mkdir -p build/amx && cd build/amx

unpack trixie amd64 bochs bochs-term bochsbios vgabios
unpack bookworm amd64 isolinux syslinux-common xorriso

# Of the kernel's own sources; without an operating system there are no exceptions and no red zone.
flags="-std=c++20 -O2 -ffreestanding -fno-exceptions -fno-rtti -fno-threadsafe-statics -fno-stack-protector -mno-red-zone
  -fno-pic -no-pie -fno-asynchronous-unwind-tables -Wall -Wextra -Werror -I$source"
g++ $flags -c "$source/tests/amx/main.cc" -o main.o
g++ $flags -c "$source/kernels/matrix_unit.cc" -o matrix_unit.o
gcc -c "$source/tests/amx/boot.S" -o boot.o
ld --no-warn-rwx-segments -T "$source/tests/amx/link.ld" -nostdlib -o program.elf boot.o main.o matrix_unit.o
mkdir -p cd/isolinux
objcopy -O binary program.elf cd/isolinux/program
modules=bookworm-amd64/usr/lib/syslinux/modules/bios
cp bookworm-amd64/usr/lib/ISOLINUX/isolinux.bin "$modules"/{ldlinux,libcom32,mboot}.c32 cd/isolinux/
printf 'DEFAULT p\nPROMPT 0\nTIMEOUT 1\nLABEL p\n KERNEL mboot.c32\n APPEND program\n' >cd/isolinux/isolinux.cfg
LD_LIBRARY_PATH=bookworm-amd64/usr/lib/x86_64-linux-gnu bookworm-amd64/usr/bin/xorriso -as mkisofs -quiet -o boot.iso \
  -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table cd

cat >bochsrc <<END
config_interface: textconfig
display_library: rfb, options="timeout=0"
cpu: model=sapphire_rapids, count=1, ips=100000000, reset_on_triple_fault=0
memory: guest=64, host=64
romimage: file=$PWD/trixie-amd64/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=$PWD/trixie-amd64/usr/share/bochs/VGABIOS-lgpl-latest
ata0-master: type=cdrom, path=$PWD/boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$PWD/serial.txt
log: $PWD/bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
END
echo "amx: running in Bochs"
rm -f serial.txt
libraries=$PWD/trixie-amd64/usr/lib/x86_64-linux-gnu
(yes c || true) | head -50 | LTDL_LIBRARY_PATH=$libraries/bochs/plugins TERM=dumb "$libraries/ld-linux-x86-64.so.2" \
  --library-path "$libraries:$libraries/pulseaudio" trixie-amd64/usr/bin/bochs-bin -q -f bochsrc >bochs.out 2>&1 &
bochs=$!
trap 'kill $bochs 2>/dev/null || true' EXIT
for ((i = 0; i < 300; ++i)); do
  if grep -qE '^(PASS|FAIL)' serial.txt 2>/dev/null; then break; fi
  kill -0 $bochs 2>/dev/null || break
  sleep 1
done
cat serial.txt 2>/dev/null || { echo "amx: no word from the program; see build/amx/bochs.log" >&2; exit 1; }
grep -q '^PASS' serial.txt
