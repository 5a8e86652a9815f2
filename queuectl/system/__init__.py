"""What differs between operating systems and file systems, and nothing else."""
