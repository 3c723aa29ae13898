"""Who vouches for those who ask: ID tokens of CI systems, and directories."""
