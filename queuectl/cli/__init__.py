"""The shell's view of the queue: a module a noun, one error boundary, one module that prints."""
