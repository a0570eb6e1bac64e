#!/bin/sh
# Behaves like the entrypoint of the official eclipse-mosquitto image: root gives the data to the broker's user; the broker drops to it.
set -e

if [ "$(id -u)" = 0 ] && [ -d /mosquitto/data ]; then
	chown -R mosquitto:mosquitto /mosquitto/data || :
fi

exec "$@"
