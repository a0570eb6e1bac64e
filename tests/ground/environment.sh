#!/bin/sh
# Installs Python packages into the virtual environment of a root: environment.sh LOWER LAYER SCRATCH ENVIRONMENT
# LOWER: the root as an overlay's lower layers; LAYER receives what is added; SCRATCH holds `wheels/` and `requirements`.
# Works without a network.
# shellcheck disable=SC2016  # the inner shell expands its own words
set -eu
root=$3/root
mkdir "$root" "$3/work"
mount -t overlay -o "lowerdir=$1,upperdir=$2,workdir=$3/work" overlay "$root"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/root"
mkdir "$root/tmp/wheels"
mount --bind "$3/wheels" "$root/tmp/wheels"
cp "$3/requirements" "$root/tmp/requirements"
chroot "$root" /usr/bin/env -i PATH=/usr/bin:/bin HOME=/root sh -euc '
    [ -e "$1/bin/pip" ] || python3 -m venv "$1"
    "$1/bin/pip" --disable-pip-version-check --quiet install --no-cache-dir --no-index --find-links /tmp/wheels \
        --root-user-action ignore -r /tmp/requirements
    ln -sf "$1/bin/appbox" /usr/local/bin/appbox
' sh "$4"
