"""Statistics: events in, figures out."""
