"""What a directory of jobs can do: filing, claiming, finishing, finding, presence, recovery."""
