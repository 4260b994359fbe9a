"""
Clients that others wrote, each as a program that asks what it is told to: see `asking`.
"""
