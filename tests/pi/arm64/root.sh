#!/bin/bash
# root.sh bookworm|trixie arm64|armhf DEST [PACKAGE...]; exit code 77 where the packages cannot be had.
#
# Unpacks Python (and Debian packages) of another architecture into DEST, with a Raspberry Pi 4's /proc/cpuinfo and
# /sys/devices/system/cpu, which the runtimes read to pick their kernels. For qemu's user emulation with -L DEST: needs no
# root, chroot, mount or binfmt, only apt, and takes the packages from the mirror that this machine's apt already uses.
set -euo pipefail

suite=$1 arch=$2 dest=$(realpath -m "$3")
shift 3
apt=$(mktemp -d)
trap 'rm -rf "$apt"' EXIT

mkdir -p "$apt"/state/lists/partial "$apt"/cache/archives/partial "$apt"/etc/apt.conf.d "$apt"/etc/preferences.d
: > "$apt/status"
cat > "$apt/apt.conf" <<END
Dir::Etc "$apt/etc"; Dir::State "$apt/state"; Dir::State::status "$apt/status"; Dir::Cache "$apt/cache";
APT::Architecture "$arch"; APT::Architectures {"$arch";}; APT::Install-Recommends "false"; APT::Sandbox::User "";
Acquire::Languages "none"; Acquire::Check-Valid-Until "false"; Acquire::Check-Date "false"; Debug::NoLocking "true";
END
mirror=$(apt-get indextargets --format "\$(SITE)" "Created-By: Packages" "Origin: Debian" | grep -v security | head -n 1 || true)
if [ -z "$mirror" ]; then
    echo "apt has no Debian mirror set up (an Ubuntu?): the packages of $suite $arch cannot be had" >&2
    exit 77
fi
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" > "$apt/etc/sources.list"
export APT_CONFIG=$apt/apt.conf
if ! apt-get -qq update || ! apt-get -qq -y install --download-only python3 libstdc++6 "$@" > /dev/null; then
    echo "the packages of $suite $arch cannot be had from apt's mirror" >&2
    exit 77
fi

rm -rf "$dest"
mkdir -p "$dest"/usr/bin "$dest"/usr/lib "$dest"/usr/sbin
for name in bin lib sbin; do ln -sfn usr/$name "$dest/$name"; done
for deb in "$apt"/cache/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink --no-same-owner -C "$dest"
done

# What the packages' own scripts would do: one BLAS and LAPACK of those that can be there, under the common name.
for library in blas lapack; do
    for file in "$dest"/usr/lib/*/"$library/lib$library.so.3"; do
        [ ! -e "$file" ] || ln -sfn "$library/lib$library.so.3" "$(dirname "$(dirname "$file")")/lib$library.so.3"
    done
done

cpus=$dest/sys/devices/system/cpu
mkdir -p "$dest/proc" "$cpus"
for i in 0 1 2 3; do
    printf 'processor\t: %d\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n' $i
    topology=$cpus/cpu$i/topology frequency=$cpus/cpu$i/cpufreq
    mkdir -p "$topology" "$frequency"
    echo 0 > "$topology/physical_package_id"
    echo $i > "$topology/core_id"
    echo $i > "$topology/thread_siblings_list"
    for list in core_siblings_list package_cpus_list cluster_cpus_list; do echo 0-3 > "$topology/$list"; done
    echo 1500000 > "$frequency/cpuinfo_max_freq"
    echo 600000 > "$frequency/cpuinfo_min_freq"
done > "$dest/proc/cpuinfo"
printf 'Revision\t: c03114\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n' >> "$dest/proc/cpuinfo"
echo 0-3 > "$cpus/possible"
echo 0-3 > "$cpus/present"
echo 255 > "$cpus/kernel_max"
