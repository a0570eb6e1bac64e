"""What a kill, a failing system call, a power loss or a full file system may leave behind, tried at every step."""
