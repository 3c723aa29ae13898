"""What the tests stand on: the one fake upstream, wheels, certificates, the proxy as a process, real clients."""
