"""
What people use today, each as an experienced user would write it, and in an environment of its own.

Nothing here imports batchrank, and nothing in batchrank knows of it. `envs` makes the environments;
`task` is what all of them are given and what they print.
"""
