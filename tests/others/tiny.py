"""
A cross-encoder of two layers, made on the spot: `python -m tests.others.tiny FOLDER` in an
environment with transformers. Its weights are random, and the same each time.

Its vocabulary are digits and single letters, so that every text of a test is told from another.
"""

from __future__ import annotations

import string
import sys
from pathlib import Path

SEED = 7
TOKENS_MAX = 64


def build(folder: Path, *, labels: int = 1, head: bool = True) -> None:
    """
    Write the model to *folder*; without a *head* it is one that embeds, and scores nothing.
    """
    import torch
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        BertModel,
        BertTokenizerFast,
        set_seed,
    )

    set_seed(SEED)
    folder.mkdir(parents=True)
    letters = string.ascii_lowercase + string.digits
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    vocabulary += [f"##{letter}" for letter in letters]
    words = folder / "vocab.txt"
    words.write_text("\n".join(vocabulary) + "\n")
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=TOKENS_MAX,
        initializer_range=0.5,  # or all scores are nearly the same
        num_labels=labels,
    )
    model = (BertForSequenceClassification if head else BertModel)(config)
    model.to(torch.float32).save_pretrained(folder)
    BertTokenizerFast(vocab_file=str(words), model_max_length=TOKENS_MAX).save_pretrained(folder)


if __name__ == "__main__":
    base = Path(sys.argv[1])
    build(base / "tiny")
    build(base / "three", labels=3)
    build(base / "headless", head=False)
