"""Units: what a service needs of its init system, rendered for OpenRC and systemd."""
