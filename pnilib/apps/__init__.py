"""What people start: the command `pni`, tables and figures, the explorer, the notebooks.  Nothing below imports it."""
