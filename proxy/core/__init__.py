"""Values and decisions that every room speaks of.  Pure: no Twisted, no I/O."""
