"""The tests of pypiproxy: behaviour first, on real sockets of the loopback interface or on a clock that is set by hand."""
