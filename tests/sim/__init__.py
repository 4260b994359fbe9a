"""
A server with a hidden limit and clients that search for it, on virtual time.
"""
