"""`coordinator up`: everything that one machine needs, as children of one process in the foreground."""
