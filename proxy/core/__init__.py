"""Values and decisions that all other floors use.  Pure: no Twisted, no I/O."""
