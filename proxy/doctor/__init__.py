"""What ``pypiproxy doctor`` examines; each module looks at one subject, and findings are values."""
