"""Everything that proves appbox: see `./dev help`."""
