"""
A cross-encoder of two layers, made on the spot: `python -m tests.others.tiny FOLDER` in an
environment with transformers. Its weights are random, and the same each time.

Its vocabulary are digits and single letters, so that every text of a test is told from another.
"""

from __future__ import annotations

import json
import string
import sys
from pathlib import Path

SEED = 7
TOKENS_MAX = 64
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def build(folder: Path, *, labels: int = 1, head: bool = True) -> None:
    """
    Write the model to *folder*; without a *head* it is one that embeds, and scores nothing.
    """
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel, set_seed

    set_seed(SEED)
    folder.mkdir(parents=True)
    config = BertConfig(
        vocab_size=_write_tokenizer(folder),
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


def _write_tokenizer(folder: Path) -> int:
    """
    Write the files that every version of transformers reads; returns how many tokens there are.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = string.ascii_lowercase + string.digits
    pieces = [*SPECIAL.values(), *letters, *(f"##{letter}" for letter in letters)]
    ids = {piece: number for number, piece in enumerate(pieces)}
    made = Tokenizer(models.WordPiece(ids, unk_token=SPECIAL["unk_token"]))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, ids[name]) for name in ("[CLS]", "[SEP]")],
    )
    made.save(str(folder / "tokenizer.json"))
    told = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": TOKENS_MAX,
        # versions differ in what they take for granted: without the second, scores are others
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps({**told, **SPECIAL}))
    return len(ids)


if __name__ == "__main__":
    base = Path(sys.argv[1])
    build(base / "tiny")
    build(base / "three", labels=3)
    build(base / "headless", head=False)
