"""May it be seen?  One pure decision, which every route asks: rules hide projects and files, and nothing else does."""
