"""May this job start? Each rule answers from names and files, and changes nothing."""
