"""
Bytes out and in: the only room that speaks HTTP to a provider and that holds a key.

Owns the carrier (`transport`, behind the port `carrier`), the signing (`auth`), the map from every
exception to a class of failure (`failures`), and the one call that the rest of the program makes
(`exchange`). It never retries, paces or counts money, and knows no vendor.
"""
