"""The dashboard: pages that show a spool and act on it, for one browser or a hundred."""
