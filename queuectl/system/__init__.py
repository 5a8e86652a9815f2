"""What differs between operating systems and file systems, and nothing else.

Another system gets its file calls as an object in the place of `files.kernel`. How it waits for a command
and ends all that this started goes to `processes.Command`, users go to `users`, and processes to `host`.
"""
