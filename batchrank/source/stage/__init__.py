"""
Staging: groups that do not lie nested in Parquet, brought into that form once, by DuckDB.

Rows of candidates, tables that are joined, and what a SELECT returns are sorted in a total order
and folded into one Parquet file in the state folder; positions are positions in that file.
"""
