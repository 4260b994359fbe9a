"""
Vendors that are described rather than coded: each a file of data for the adapter `compatible`.

Owns which of them there are. What a vendor's documents do not tell stands in no file as if it were
known: it is among the vendor's `unknown`, and a job file can set it.
"""

from __future__ import annotations

from batchrank.providers.base import Vendor
from batchrank.providers.presets.anybody import COMPATIBLE, LLMAPI
from batchrank.providers.presets.azure import AZURE, AZURE_SERVERLESS
from batchrank.providers.presets.bedrock import BEDROCK, BEDROCK_RERANK
from batchrank.providers.presets.cohere import COHERE
from batchrank.providers.presets.dashscope import DASHSCOPE
from batchrank.providers.presets.deepinfra import DEEPINFRA
from batchrank.providers.presets.fireworks import FIREWORKS
from batchrank.providers.presets.infinity import INFINITY
from batchrank.providers.presets.jina import JINA
from batchrank.providers.presets.litellm import LITELLM_PROXY
from batchrank.providers.presets.llama_cpp import LLAMA_CPP
from batchrank.providers.presets.localai import LOCALAI
from batchrank.providers.presets.mixedbread import MIXEDBREAD
from batchrank.providers.presets.novita import NOVITA
from batchrank.providers.presets.nvidia import NVIDIA, NVIDIA_NIM
from batchrank.providers.presets.pinecone import PINECONE
from batchrank.providers.presets.sglang import SGLANG
from batchrank.providers.presets.tei import TEI
from batchrank.providers.presets.together import TOGETHER
from batchrank.providers.presets.vertex import VERTEX
from batchrank.providers.presets.vllm import VLLM
from batchrank.providers.presets.voyage import VOYAGE
from batchrank.providers.presets.xinference import XINFERENCE
from batchrank.providers.presets.zeroentropy import ZEROENTROPY

PRESETS: tuple[Vendor, ...] = (
    COHERE,
    AZURE,
    AZURE_SERVERLESS,
    BEDROCK,
    BEDROCK_RERANK,
    VERTEX,
    VOYAGE,
    JINA,
    MIXEDBREAD,
    TOGETHER,
    DEEPINFRA,
    FIREWORKS,
    NOVITA,
    NVIDIA,
    PINECONE,
    DASHSCOPE,
    ZEROENTROPY,
    LLMAPI,
    TEI,
    VLLM,
    INFINITY,
    LLAMA_CPP,
    SGLANG,
    NVIDIA_NIM,
    XINFERENCE,
    LOCALAI,
    LITELLM_PROXY,
    COMPATIBLE,
)
"""In the order in which people look for them: vendors, servers of one's own, anybody else."""
