"""HTTP towards the clients: what is asked, what is answered, and how the bytes go out."""
