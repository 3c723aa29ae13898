"""Every client that is known to us, installing through a real proxy: ``make test-clients``."""
