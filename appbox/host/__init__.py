"""The host: facts about it, and the only places that start programs or make system calls of their own."""
