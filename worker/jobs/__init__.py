"""How each kind of job is run on a node, and what is said of its end."""
