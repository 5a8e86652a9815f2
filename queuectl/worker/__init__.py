"""What happens to a claimed job: running its command, the loop, starting and stopping workers."""
