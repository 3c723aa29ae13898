"""Users, tokens, and what they did: where principals come from, and the audit log."""
