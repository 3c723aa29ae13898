"""A file that is still arriving: one writer, many readers, and what becomes of it when the disk takes no more."""
