"""What onlookers see of a spool, without changing anything."""
