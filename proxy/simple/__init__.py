"""Documents of the Simple API: negotiated, parsed and rendered.  No I/O, no clock."""
