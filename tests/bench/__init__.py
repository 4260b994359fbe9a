"""
Benchmarks: ratios of sides that alternate in one run. Nothing here is an assertion of a test.
"""
