"""A proxy under random damage, beside an upstream that lies, and a crowd of clients that checks every answer.

``python -m bench.damage [--answers 20000] [--seed 0]`` runs it; ``tests/test_every_answer.py`` is its short form.

Theory of operation:

- `truth` makes projects whose bytes are known, and changes them as an index does.
- `lying` is the upstream that serves them, and misbehaves at random.
- `wrecking` damages what the proxy keeps on the disk, between requests.
- `crowd` asks, `verdicts` holds every complete answer against the truth, `journal` remembers what happened to what.
- `running` puts these together in rounds: damage, perhaps a restart, then many requests at once, perhaps with ``kill -9`` among
  them; in the end upstream is honest again and everything must be available.

All choices come from the seed.  The order in which concurrent requests meet is the machine's, so a violation comes with the
trail of what had happened to its subject.
"""
