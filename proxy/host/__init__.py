"""What ties the service to its host: data directory, sockets, signals, logs, the service manager."""
