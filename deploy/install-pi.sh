#!/bin/sh
# Installs maskedge on Raspberry Pi OS (or, to try it, on x86 Debian and Ubuntu), for all users or one; see --help.
#
# One file that needs nothing beside it but a wheel: constraints come from the checkout around it, else from the wheel.
# Each step looks first whether it is done, so that a second run is quick and an interrupted one is simply repeated.
set -eu
umask 022 # other users, and the service, read what is installed

# For tests: another system than this one. PYTHON is for a system whose python3 is too old or too new.
os_release=${MASKEDGE_OS_RELEASE:-/etc/os-release}
python=${PYTHON:-python3}

usage() {
    cat <<'END'
usage: install-pi.sh [--user | --prefix DIR] [--wheel FILE] [--dry-run]
       install-pi.sh --uninstall [--user | --prefix DIR] [--dry-run]

Installs maskedge into a virtual environment of its own, with the packages that fit this release of the system, adds
you to the group video, and ends with `maskedge doctor`. Can be repeated: it does what is missing.

  --user        for you alone: ~/.local/share/maskedge and ~/.local/bin/maskedge. As a service run it without this:
                a service may not read home folders
  --prefix DIR  into DIR in place of /opt/maskedge; the command is then DIR/bin/maskedge
  --wheel FILE  this wheel, in place of the checkout that the script lies in; needs no git
  --uninstall   remove what it installed, the service too; packages of the system stay
  --dry-run     print the commands, run none

exit codes: 0 done   1 a command failed   2 wrong use, or a system that maskedge cannot run on   3 models cannot run
END
}

say() { printf 'install-pi: %s\n' "$*"; }

die() {
    code=$1
    shift
    printf 'install-pi: error: %s\n' "$*" >&2
    exit "$code"
}

# ------------------------------------------------------------------------------------------------- options

scope=system prefix='' wheel='' action=install dry=''
while [ $# -gt 0 ]; do
    case $1 in
    --user) scope=user ;;
    --prefix | --wheel)
        if [ $# -lt 2 ] || [ -z "$2" ]; then die 2 "$1 needs a value: see --help"; fi
        if [ "$1" = --prefix ]; then prefix=$2; else wheel=$2; fi
        shift
        ;;
    --uninstall) action=uninstall ;;
    --dry-run) dry=yes ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) die 2 "unknown option $1: see --help" ;;
    esac
    shift
done

link=''
if [ -n "$prefix" ]; then
    [ "$scope" = system ] || die 2 "--user and --prefix exclude each other"
    case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac
    scope=prefix
elif [ "$scope" = user ]; then
    [ -n "${HOME:-}" ] || die 2 "--user needs HOME, the path of your home folder"
    if [ "$(id -u)" = 0 ] && [ -n "${SUDO_USER:-}" ]; then die 2 "--user is for you, not for root: call it without sudo"; fi
    prefix=${XDG_DATA_HOME:-$HOME/.local/share}/maskedge link=$HOME/.local/bin/maskedge
else
    prefix=/opt/maskedge link=/usr/local/bin/maskedge
fi
stamp=$prefix/.maskedge

# ---------------------------------------------------------------------------------------- running commands

me=$(id -un)
[ "$me" != root ] || me=${SUDO_USER:-root} # whom to add to the group video

sudo=''
if [ "$(id -u)" != 0 ]; then
    if command -v sudo > /dev/null; then sudo=sudo; else sudo=missing; fi
fi

# Print a command so that it can be pasted into a shell; run it unless this is a dry run.
run() {
    if [ -n "$dry" ]; then
        line=''
        for word; do
            case $word in
            '' | *[!A-Za-z0-9_@%+=:,./-]*) line="$line '$(printf %s "$word" | sed "s/'/'\\\\''/g")'" ;;
            *) line="$line $word" ;;
            esac
        done
        printf '  %s\n' "${line# }"
    else
        "$@"
    fi
}

# The same with the rights of root.
as_root() {
    if [ "$sudo" = missing ] && [ -z "$dry" ]; then
        die 1 "this needs root and there is no sudo: run as root:  $*"
    elif [ -n "$sudo" ]; then
        run sudo "$@"
    else
        run "$@"
    fi
}

# The same with the rights that writing to the prefix takes. Files of a system-wide installation belong to root: what
# a service runs must not be the user's to change.
as_owner() { if [ "$scope" = system ]; then as_root "$@"; else run "$@"; fi; }

# ------------------------------------------------------------------------------------------------ uninstall

ours() { [ -e "$stamp" ] || [ -e "$stamp.started" ]; }

if [ "$action" = uninstall ]; then
    [ -z "$wheel" ] || die 2 "--wheel is for installing"
    unit=/etc/systemd/system/maskedge.service
    if [ "$scope" != user ] && [ -e "$unit" ] && grep -qF "$prefix/bin/" "$unit"; then
        as_root "$prefix/bin/maskedge" service uninstall || die 1 "the service could not be removed"
    fi
    if [ -n "$link" ] && [ "$(readlink "$link" 2> /dev/null || true)" = "$prefix/bin/maskedge" ]; then
        as_owner rm -f "$link"
    fi
    if ours; then
        as_owner rm -rf "$prefix"
        [ -n "$dry" ] || say "removed $prefix; packages of the system and the group video were left as they are"
    elif [ -e "$prefix" ]; then
        die 2 "$prefix was not made by this script: left as it is"
    else
        say "nothing is installed in $prefix"
    fi
    exit 0
fi

# --------------------------------------------------------------------------------------- which system is this

[ -r "$os_release" ] || die 2 "there is no $os_release: this is for Raspberry Pi OS, Debian and Ubuntu"
field() { sed -n "s/^$1=//p" "$os_release" | tail -n 1 | tr -d "\"'"; }
codename=$(field VERSION_CODENAME)
name=$(field PRETTY_NAME)
if [ -n "${MASKEDGE_ARCH:-}" ]; then
    arch=$MASKEDGE_ARCH
else
    # The user's side: 32-bit Raspberry Pi OS runs a 64-bit kernel, of which uname would tell.
    arch=$(dpkg --print-architecture 2> /dev/null) || die 2 "$name has no dpkg: this is for Raspberry Pi OS, Debian and Ubuntu"
fi
case " $(field ID) $(field ID_LIKE) " in
*" debian "* | *" raspbian "* | *" ubuntu "*) ;;
*) die 2 "$name is unknown to this script: use Raspberry Pi OS, Debian or Ubuntu, or pip (see docs/raspberry-pi.md)" ;;
esac

packages="python3 python3-venv" optional='' site='' pins='' bare=''
case $codename-$arch in
bookworm-arm64 | trixie-arm64)
    # picamera2 comes with libcamera from apt alone, and so do the modules that were built for the system's numpy.
    # The pins of these two releases keep that numpy: a newer one laid over it breaks them (Bookworm).
    optional=python3-picamera2 site=yes pins=$codename
    ;;
bookworm-armhf)
    [ "$(uname -m)" != armv6l ] || die 2 "$name on the processor of a Raspberry Pi 1 or Zero: no TFLite runtime has a wheel for it. Use a Raspberry Pi 2 or later, best with 64 bit"
    # 32 bit: of the runtimes only tflite-runtime has a wheel; numpy 1 and OpenCV 4.6 come from apt, built for each other.
    packages="$packages python3-numpy python3-opencv" optional=python3-picamera2 site=yes pins=tflite
    bare=tflite-runtime
    ;;
*-armhf | *-armel)
    die 2 "$name, 32 bit: no TFLite runtime has a wheel for it. Use the 64-bit system, or 32-bit Bookworm (Raspberry Pi 2 and later)"
    ;;
*-arm64)
    die 2 "$name on arm64 was not tried: use Raspberry Pi OS Bookworm or Trixie, or pip (see docs/raspberry-pi.md)"
    ;;
*-amd64) pins=litert ;;
*) die 2 "$name on $arch: no TFLite runtime has a wheel for it. Use a 64-bit Raspberry Pi OS, or x86-64" ;;
esac

# --------------------------------------------------------------------------------- what is to be installed

here=$(cd "$(dirname "$0")/.." && pwd)
checkout=''
if [ -n "$wheel" ]; then
    case $wheel in *.whl) ;; *) die 2 "$wheel is no wheel (.whl)" ;; esac
    [ -f "$wheel" ] || die 2 "there is no file $wheel"
    case $wheel in /*) ;; *) wheel=$PWD/$wheel ;; esac
elif [ -f "$here/pyproject.toml" ] && [ -d "$here/edge" ]; then
    checkout=$here
else
    die 2 "not in a checkout of maskedge: give the wheel with --wheel FILE"
fi

say "$name, $arch: $prefix"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
chmod 755 "$work" # pip may run as root, or as another user, on what lies here

constraints=$here/constraints/$pins.txt
if [ ! -f "$constraints" ]; then
    constraints=$work/$pins.txt
    if command -v "$python" > /dev/null; then
        "$python" - "$wheel" "edge/constraints/$pins.txt" > "$constraints" << 'END' || die 2 "$wheel is damaged, or no wheel of maskedge"
import sys, zipfile
try:
    sys.stdout.write(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2]).decode())
except (KeyError, zipfile.BadZipFile, OSError):
    sys.exit(1)
END
    elif [ -z "$dry" ]; then
        die 2 "there is no $python yet: sudo apt install python3"
    fi
fi

# What would be installed, as one line. The stamp of the installation holds the line of the last complete run.
content() {
    if [ -n "$wheel" ]; then
        cat "$wheel"
    else
        (cd "$checkout" && find edge export benchmarks converted_models pyproject.toml -type f ! -name '*.pyc' -exec sha256sum {} + | sort)
    fi | sha256sum | cut -c1-64
}
wanted="$pins $(sha256sum < "$constraints" 2> /dev/null | cut -c1-16) $(content)"

# ------------------------------------------------------------------------------------------------ the packages

installed() { dpkg-query -W -f '${db:Status-Status}\n' "$1" 2> /dev/null | grep -qx installed; }
missing=''
for package in $packages $optional; do installed "$package" || missing="$missing $package"; done
if [ -n "$missing" ]; then
    say "packages of the system:$missing"
    as_root apt-get -qq update || die 1 "apt could not read its package lists: check the network and the clock (date), then repeat"
    for package in $optional; do
        if [ -z "$dry" ] && ! apt-cache show "$package" > /dev/null 2>&1; then
            say "$package is not in this system's package sources: without it the Raspberry Pi's own camera cannot be used, USB cameras can"
            missing=$(printf %s "$missing" | sed "s/ $package//")
        fi
    done
    # Names of packages, to be split.
    # shellcheck disable=SC2086
    [ -z "$missing" ] || as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing ||
        die 1 "apt could not install$missing, see above: mend that (sudo dpkg --configure -a helps after an interruption), then repeat"
fi

if [ -z "$dry" ] && ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'; then
    die 2 "$("$python" -V 2>&1) is not 3.11 to 3.13: name a fitting one, PYTHON=python3.12 $0"
fi

# ---------------------------------------------------------------------------------- the virtual environment

maskedge=$prefix/bin/maskedge
if [ -z "$dry" ] && [ "$(cat "$stamp" 2> /dev/null)" = "$wanted" ] && "$maskedge" --version > /dev/null 2>&1; then
    say "maskedge is there already, unchanged"
else
    if [ -e "$prefix" ] && ! ours && [ -n "$(ls -A "$prefix" 2> /dev/null)" ]; then
        die 2 "$prefix is there already and not made by this script: remove it, or choose another with --prefix"
    fi
    # The first folder above that is there tells the disk.
    above=$prefix
    while [ ! -d "$above" ]; do above=$(dirname "$above"); done
    free=$(df -Pk "$above" | awk 'NR == 2 {print int($4 / 1024)}')
    [ "$free" -ge 500 ] || die 1 "only $free MB are free in $above: 500 MB are needed while installing"

    # Made anew if an update of the system's Python or a move broke it, and after an interruption: pip takes a package
    # whose files were half written for installed.
    fresh=''
    if [ -e "$stamp.started" ] || ! "$prefix/bin/python" -m pip --version > /dev/null 2>&1; then fresh=yes; fi
    as_owner mkdir -p "$prefix"
    as_owner touch "$stamp.started"
    if [ -n "$fresh" ]; then
        as_owner find "$prefix" -mindepth 1 -maxdepth 1 ! -path "$stamp.started" -exec rm -rf {} +
        as_owner "$python" -m venv ${site:+--system-site-packages} "$prefix" ||
            die 1 "the virtual environment could not be made: is python3-venv there?"
    fi

    # Without the user's own pip settings, where "user = true" would break it; the system's (piwheels) stay.
    pip() {
        as_owner env PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore "$prefix/bin/python" -m pip -q "$@" ||
            die 1 "pip failed, see above: check the network and the free disk space, then repeat: what was downloaded is kept"
    }
    if [ -n "$checkout" ]; then
        built=$work/dist
        [ -z "$dry" ] || built=/tmp/maskedge-dist
        # Not as root, which would leave files of its own in the user's checkout.
        run env PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore "$prefix/bin/python" -m pip -q wheel --no-deps --wheel-dir "$built" "$checkout" ||
            die 1 "the wheel could not be built from $checkout, see above"
        wheel=$built/maskedge-$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$checkout/edge/__init__.py")-py3-none-any.whl
    fi
    say "runtime and OpenCV (pins: $pins)"
    if [ -n "$bare" ]; then
        pip install --no-deps -c "$constraints" "$bare"
    else
        pip install -c "$constraints" "$wheel"
    fi
    # pip keeps an installed version even if the file of that version is another.
    pip install --no-deps --force-reinstall "$wheel"
fi
if [ -n "$link" ] && { [ -n "$dry" ] || [ "$(readlink "$link" 2> /dev/null)" != "$maskedge" ]; }; then
    as_owner mkdir -p "$(dirname "$link")"
    as_owner ln -sfn "$maskedge" "$link"
fi

# ------------------------------------------------------------------------------------------ rights, and a look

if [ "$me" != root ] && getent group video > /dev/null && ! id -nG "$me" | tr ' ' '\n' | grep -qx video; then
    if [ -n "$dry" ] || [ "$sudo" != missing ]; then
        as_root usermod -aG video "$me"
        [ -n "$dry" ] || say "$me is now in the group video, which may open cameras: log out and in again"
    else
        say "as root, so that $me may open cameras: usermod -aG video $me"
    fi
fi

if [ -n "$dry" ]; then
    run "$maskedge" doctor
    exit 0
fi
# Written last: only a complete installation counts as one. The line goes through a file since as_owner may be sudo.
printf '%s\n' "$wanted" > "$work/stamp"
as_owner cp "$work/stamp" "$stamp"
as_owner rm -f "$stamp.started"
code=0
"$maskedge" doctor || code=$?
[ "$code" != 3 ] || die 3 "installed, but models cannot run here: see fail above"
say "installed: ${link:-$maskedge}"
case $link in
'') ;;
*) case ":$PATH:" in *":$(dirname "$link"):"*) ;; *) say "add $(dirname "$link") to your PATH to call it by its name" ;; esac ;;
esac
