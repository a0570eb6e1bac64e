#!/bin/sh
# Behaves like the entrypoint of the official @NAME@ image: root makes the data directory its user's own and becomes that user.
set -e

# The first argument is an option or a configuration file: both are meant for the server.
case $1 in -* | *.conf) set -- @NAME@-server "$@" ;; esac

if [ "$1" = @NAME@-server ] && [ "$(id -u)" = 0 ]; then
	find . \! -user @NAME@ -exec chown @NAME@ '{}' +
	exec setpriv --reuid=@NAME@ --regid=@NAME@ --clear-groups -- "$0" "$@"
fi

# Files of the database are nobody else's, unless a stricter or another mask was asked for.
[ "$(umask)" != 0022 ] || umask 0077

exec "$@"
