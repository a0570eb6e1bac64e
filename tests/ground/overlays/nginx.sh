#!/bin/sh
# Behaves like the entrypoint of the official nginx image: the scripts of /docker-entrypoint.d run, then nginx starts as root.
set -e

if [ "$1" = nginx ] || [ "$1" = nginx-debug ]; then
	find /docker-entrypoint.d -follow -type f -name '*.sh' | sort -V | while read -r script; do
		echo "$0: Launching $script"
		"$script"
	done
	echo "$0: Configuration complete; ready for start up"
fi
exec "$@"
