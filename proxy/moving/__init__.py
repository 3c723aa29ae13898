"""Moving in: projects of other indexes and of directories that a hosted index takes over."""
