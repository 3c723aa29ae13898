"""Which upstream is asked next, and when: evidence, the breaker, failover."""
