"""What is asked of one upstream, and how its answers are read: pages, files, documents."""
