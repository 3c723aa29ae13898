"""Files of a hosted index: how they come in, what is checked of them, and what is kept beside them."""
