"""
What sentence-transformers says by itself: `python -m tests.others.direct MODEL ACTIVATION`, groups
as JSON lines `[query, documents]` in, their scores out.
"""

from __future__ import annotations

import json
import sys

from sentence_transformers import CrossEncoder
from torch import nn

if __name__ == "__main__":
    model = CrossEncoder(sys.argv[1], device="cpu")
    activation = {"sigmoid": nn.Sigmoid, "identity": nn.Identity}[sys.argv[2]]()
    for line in sys.stdin:
        query, documents = json.loads(line)
        # one pair at a time, so that nothing depends on how a batch is padded
        pairs = [[(query, document)] for document in documents]
        scores = [model.predict(pair, activation_fn=activation)[0] for pair in pairs]
        print(json.dumps([float(score) for score in scores]))
