"""The command line: a module for each kind of command, `boundary` for errors, `printer` for output."""
