#!/bin/sh
# Behaves like the entrypoint of the official syncthing image: root gives the home directory to PUID:PGID and becomes that user.
set -eu

[ -z "${UMASK:-}" ] || umask "$UMASK"

if [ "$(id -u)" = 0 ]; then
	chown "$PUID:$PGID" "$HOME"
	exec setpriv --reuid="$PUID" --regid="$PGID" --clear-groups -- env HOME="$HOME" "$@"
fi
exec "$@"
