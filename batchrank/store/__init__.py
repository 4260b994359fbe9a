"""
What is durable: the ledger, the parts, the files beside them, and the right to write them.

`ledger` and `reading` own the SQLite file, with `tables` and `inserting`; `parts` turns its rows
into Parquet, `output` publishes, `exports` writes rejects and calls for people, `finished` reads
outputs back and `reuse` compares them, `disk` knows about fsync and locks. Nothing here calls
anyone or waits for anything but a disk or a store.
"""
