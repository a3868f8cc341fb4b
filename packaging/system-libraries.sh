#!/bin/sh
# The shared libraries that Qt's platform plugins need on Debian and Ubuntu, and the
# virtual screen that one test opens the real window on. Installs what is missing where
# it may, else prints the one line to run. Does nothing where nothing is missing.
set -eu

packages="libegl1 libgl1 libxkbcommon0 libxkbcommon-x11-0 libdbus-1-3 libfontconfig1
libglib2.0-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0
libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 fonts-dejavu-core xvfb"

command -v dpkg-query >/dev/null 2>&1 || exit 0
missing=""
for package in $packages; do
    state=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
    # Newer releases renamed some packages with a t64 ending.
    state_new=$(dpkg-query -W -f='${Status}' "${package}t64" 2>/dev/null || true)
    case "$state$state_new" in
        *"install ok installed"*) ;;
        *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
    run=""
elif sudo -n true 2>/dev/null; then
    run="sudo"
else
    echo "Qt needs system libraries. Ask someone with the right to run:" >&2
    echo "  sudo apt-get install -y$missing" >&2
    exit 0
fi
echo "Installing system libraries:$missing"
$run apt-get update -qq
DEBIAN_FRONTEND=noninteractive $run apt-get install -y -qq --no-install-recommends $missing
