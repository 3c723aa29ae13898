"""What operators may ask of a data directory, whether a proxy runs on it or not; answers are values that JSON can carry."""
